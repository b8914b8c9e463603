"""One program in this process: failing loops, hurried stops, full disks, doors that keep people out."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any, cast

import pytest

from towpath.api import admin
from towpath.app import App, Running
from towpath.app import running as running_module
from towpath.cli import logs
from towpath.config import ConnectionEntry, DestinationEntry, load
from towpath.deliver import DeliveryLoop
from towpath.errors import TowpathError
from towpath.log.sqlite import SqliteStore
from towpath.sandbox.serve import sandbox
from towpath.server import exchange
from towpath.settler import Fenced
from towpath.testing.fakes import FakeClock

from .support import HOOK, RATE, YAML, ask, delivered, hub, offline, send, track, until, world, write


@pytest.mark.spec("D05")
async def test_a_loop_that_fails_starts_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "BACK_OFF_S", (0.05,))
    reading, failures = SqliteStore.read, [ValueError("of ana@example.com")]

    async def failing(store: SqliteStore, after: int, limit: int, partition: int = 0) -> Any:
        if failures:
            raise failures.pop()
        return await reading(store, after, limit, partition)

    monkeypatch.setattr(SqliteStore, "read", failing)
    async with world(tmp_path) as (running, box, file):
        await send(running.address, track("ana"))
        assert (await delivered(file))["delivered"] == 1
        status = (await ask(file, "GET", "/status"))["connections"]["kustomer"]
        assert (status["state"], status["failures"]) == ("delivering", 1)
        assert status["failure"].startswith("ValueError at failing:")
        assert len(box.kustomer.requests) == 1


class Loop:
    """Stands in for a delivery loop that ends as it is told."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends = list(ends)
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        if (end := self.ends.pop(0)) is not None:
            raise end

    async def stop(self, grace_s: float) -> None:
        del grace_s


async def waits_of(clock: FakeClock, loop: Loop) -> tuple[Running, list[float]]:
    """Run a loop to its end; how long it waited before each new start."""
    entry = ConnectionEntry("web-out", frozenset({"web"}), "out")
    running = Running(entry, cast("DestinationEntry", None), clock, lambda: cast("DeliveryLoop", loop))
    waits: list[float] = []
    sleep = clock.sleep

    async def noted(delay_s: float) -> None:
        waits.append(delay_s)
        await sleep(0)

    clock.sleep = noted  # type: ignore[method-assign]
    await running._keep_going()
    return running, waits


@pytest.mark.spec("D05")
async def test_a_loop_that_goes_on_failing_starts_ever_later() -> None:
    loop = Loop(*[RuntimeError()] * 8, None)
    running, waits = await waits_of(FakeClock(), loop)
    assert waits == [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]
    assert (loop.runs, running.failures, running.down) == (9, 8, False)


async def test_a_fenced_loop_stays_down() -> None:
    loop = Loop(Fenced("web-out"))
    running, waits = await waits_of(FakeClock(), loop)
    assert (waits, loop.runs, running.fenced, running.down) == ([], 1, True, True)


@pytest.mark.spec("D05", "P3")
async def test_a_stop_lets_calls_end(tmp_path: Path) -> None:
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box, HOOK)
        box.webhook.faults.add("delay", delay_s=1.0, count=5)
        async with hub(file) as running:
            await send(running.address, *[track(f"p{number}") for number in range(5)])
            await until(lambda: box.webhook.faults.met.get("delay") == 5)
        async with hub(file):
            assert (await delivered(file, recount=True))["delivered"] == 5
        assert (len(box.webhook.received), box.webhook.duplicates) == (5, 0)


@pytest.mark.spec("D05", "D04")
async def test_a_stop_does_not_wait_for_a_destination_that_hangs(tmp_path: Path) -> None:
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box, HOOK)
        box.webhook.faults.add("delay", delay_s=60.0)
        async with hub(file) as running:
            await send(running.address, *[track(f"p{number}") for number in range(5)])
            await until(lambda: box.webhook.faults.met.get("delay") == 5)
            started = time.monotonic()
        assert time.monotonic() - started <= 10.0
        box.webhook.faults.clear()
        async with hub(file):
            assert (await delivered(file, recount=True))["delivered"] == 5
        assert len(box.webhook.received) == 5


@pytest.mark.spec("D05", "E036")
async def test_a_full_disk_refuses_events_while_deliveries_go_on(tmp_path: Path) -> None:
    async with world(tmp_path, HOOK) as (running, box, file):
        app = running.app
        box.webhook.faults.add("delay", delay_s=0.3, count=3)
        await send(running.address, track("a"), track("b"), track("c"))
        free = app.store._free_bytes
        app.store._free_bytes = lambda _: 0
        status, headers, text = await send(running.address, track("d"))
        assert (status, "retry-after" in headers) == (507, True)
        assert "nothing of this request was kept" in text
        balance = await delivered(file)
        assert (balance["accepted"], balance["delivered"]) == (3, 3)
        app.store._free_bytes = free
        assert (await send(running.address, track("d")))[0] == 200
        assert (await delivered(file, recount=True))["delivered"] == 4


@pytest.mark.spec("E036")
async def test_a_store_that_fails_is_answered_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    async with world(tmp_path, HOOK) as (running, _, __):
        monkeypatch.setattr(running.app.store, "append", failing)
        status, headers, _text = await send(running.address, track("a"))
        assert (status, "retry-after" in headers) == (503, True)


# -- doors ---------------------------------------------------------------------------------------------


@pytest.mark.spec("D16")
async def test_the_admin_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, _, __):
        path = running.app.config.socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()


def get(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, named, response.read()
    finally:
        connection.close()


@pytest.mark.spec("D16")
async def test_the_admin_listener_wants_its_token_and_answers_no_other_site(tmp_path: Path) -> None:
    token = "a-token-of-24-characters"
    door = f"admin:\n  listen: 127.0.0.1:0\n  token: {token}\n"
    async with world(tmp_path, YAML + door) as (running, _, __):
        listen = running.listeners[2].address
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": token[:-1]}):
            status, _, body = await asyncio.to_thread(get, listen, "/status", **headers)
            assert (status, json.loads(body)["code"]) == (401, "E5010")
        right = {"authorization": f"Bearer {token}", "origin": "https://elsewhere.example"}
        status, named, body = await asyncio.to_thread(get, listen, "/status", **right)
        assert (status, json.loads(body)["running"]) == (200, True)
        preflight = await asyncio.to_thread(get, listen, "/status", "OPTIONS", **right)
        for seen in (named, preflight[1]):
            assert not [name for name in seen if name.startswith("access-control-")]


@pytest.mark.spec("D16")
async def test_the_event_port_has_no_admin_routes(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, _, __):
        for path in ("/status", "/people/u1", "/secrets", "/listen", "/balance"):
            assert (await asyncio.to_thread(get, running.address, path))[0] == 404


@pytest.mark.parametrize(
    ("method", "where", "body", "code"),
    [
        ("GET", "/nothing", b"", "E5016"),
        ("DELETE", "/status", b"", "E5016"),
        ("GET", "/dlq/-1", b"", "E5016"),
        ("GET", "/dlq/99999999999999999999", b"", "E4402"),
        ("GET", "/deliveries/99999999999999999999", b"", "E5012"),
        ("GET", "/events?limit=many", b"", "E5012"),
        ("GET", f"/events?before={'9' * 5000}&limit=1{'0' * 50}", b"", None),
        ("POST", "/people/erase", b"{", "E5011"),
        ("POST", "/people/erase", b"[" * 100_000, "E5011"),
        ("POST", "/people/erase", b"[]", "E5011"),
        ("POST", "/people/erase", b'{"ids":"u1"}', "E5013"),
        ("POST", "/people/erase", b'{"ids":[""]}', "E5013"),
        ("POST", "/dlq/replay", b'{"ids":"x"}', "E5014"),
        ("POST", "/dlq/replay", b'{"connexion":"x"}', "E5014"),
        ("POST", "/dlq/drop", b'{"connection":"x"}', "E4404"),
        ("GET", "/dlq?connection=x", b"", "E4404"),
        ("GET", "/deliveries?connection=x", b"", "E4404"),
        ("POST", "/deliveries/retry", b'{"connection":"x"}', "E4404"),
        ("POST", "/destinations/x/pause", b"", "E4403"),
        ("GET", "/connectors/x", b"", "E4406"),
        ("GET", "/events/x%2F..%2Fy", b"", "E4401"),
        ("PUT", "/secrets/a", b"{}", "E5015"),
        ("PUT", "/secrets/a%2Fb", b'{"value":"x"}', "E2206"),
        ("DELETE", "/secrets/nope", b"", "E2207"),
        ("POST", "/send", b'{"messages":{}}', "E5011"),
        ("POST", "/send", b'{"messages":[],"source":"x"}', "E4405"),
        ("POST", "/reload", b"", "E5004"),
    ],
)
async def test_a_wrong_request_is_an_answer_with_a_code(
    tmp_path: Path, method: str, where: str, body: bytes, code: str | None
) -> None:
    async with App(load(offline(tmp_path)), delivering=False) as app:
        status, answer = await exchange(admin(app), method, where, body)
    said = json.loads(answer)
    if code is None:
        assert status == 200
    else:
        assert (said["code"], 400 <= status < 500) == (code, True)
        assert said["title"]


async def test_a_failure_inside_is_an_answer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such luck")

    async with App(load(offline(tmp_path)), delivering=False) as app:
        monkeypatch.setattr(app.store, "balance", failing)
        status, answer = await exchange(admin(app), "GET", "/balance", b"")
    assert (status, json.loads(answer)["code"]) == (500, "E5017")


# -- one owner -----------------------------------------------------------------------------------------


async def test_a_second_program_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    async with world(tmp_path) as (_, __, file):
        with pytest.raises(TowpathError) as told:
            async with hub(file):
                pass
        assert told.value.code == "E5001"
        assert str(os.getpid()) in told.value.title
        assert (await ask(file, "GET", "/status"))["running"] is True


async def test_a_taken_port_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = offline(tmp_path, f"127.0.0.1:{port}")
        for _ in range(2):  # the lock is free again after the first
            with pytest.raises(TowpathError) as told:
                async with hub(file):
                    pass
            assert (told.value.code, told.value.why) == (
                "E5008",
                "server.listen of the configuration names this address",
            )


# -- the program's own log -----------------------------------------------------------------------------


@pytest.mark.spec("D08")
@pytest.mark.parametrize("log_pii", [False, True])
async def test_people_are_in_the_log_only_when_asked_for(
    tmp_path: Path, log_pii: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.begin(log_pii=log_pii)
    async with world(tmp_path) as (running, box, _):
        said = '{"errors":[{"title":"ana@example.com Ana may not"}]}'
        box.kustomer.faults.add("status", status=401, body=said)
        call = {"type": "identify", "userId": "u-ana", "traits": {"email": "ana@example.com", "name": "Ana"}}
        await send(running.address, call)
        await until(lambda: running.app.connections["kustomer"].loop.pauses.in_force)
    err = capsys.readouterr().err
    assert "paused: everything waits" in err
    assert ("ana@example.com" in err) is log_pii
    assert "u-ana" not in err
    assert log_pii or "Ana" not in err


@pytest.mark.spec("P1")
async def test_relaxed_durability_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.begin()
    async with world(tmp_path, YAML + "durability: relaxed\n") as (_, __, file):
        assert (await ask(file, "GET", "/status"))["durability"] == "relaxed"
    assert "a power cut may lose the last accepted events" in capsys.readouterr().err
