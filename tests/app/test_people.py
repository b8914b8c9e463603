"""People: suppressed and erased by their exact ids, counted beforehand, in every store here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from towpath.message import Message
from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.serve import sandbox, serve

from .support import HOOK, RATE, ask, delivered, hub, send, track, until, world, write


@pytest.mark.spec("E027", "D10")
async def test_suppressed_people_are_taken_in_and_not_delivered(tmp_path: Path) -> None:
    async with world(tmp_path, HOOK) as (running, box, file):
        await ask(file, "POST", "/people/suppress", {"ids": ["u1", "a1"]})
        calls = [track("u1"), {"type": "track", "anonymousId": "a1", "event": "X"}, track("u2")]
        assert (await send(running.address, *calls))[0] == 200
        balance = await delivered(file, recount=True)
        assert (balance["delivered"], balance["skipped"]) == (1, {"suppressed": 2})
        assert (await ask(file, "GET", "/people/u1"))["suppressed"] is True
        await ask(file, "POST", "/people/unsuppress", {"ids": ["u1"]})
        await send(running.address, track("u1"))
        assert (await delivered(file))["delivered"] == 2
        assert len(box.webhook.received) == 2


@pytest.mark.spec("D10", "D15")
async def test_an_erase_counts_first_and_removes_exactly_these_ids(tmp_path: Path) -> None:
    async with world(tmp_path, HOOK) as (running, box, file):
        box.webhook.faults.add("status", status=400, person="gone")
        box.webhook.faults.add("status", status=503, person="waits")
        link = {"type": "identify", "userId": "gone", "anonymousId": "shared"}
        calls = [track("gone", "One"), link, {"type": "track", "anonymousId": "shared", "event": "Two"}]
        await send(running.address, *calls, track("waits"), track("stays"))
        await until(lambda: len(running.app.connections["hook"].loop.lanes) == 1)

        async def dead() -> bool:
            return len(await ask(file, "GET", "/dlq")) == 2

        await until(dead)
        counted = await ask(file, "POST", "/people/mentions", {"ids": ["gone", "waits", "nobody"]})
        found = {row["id"]: (row["records"], row["dead"]) for row in counted}
        assert found == {"gone": (2, 2), "nobody": (0, 0), "waits": (1, 0)}
        said = await ask(file, "POST", "/people/erase", {"ids": ["gone", "waits"]})
        assert (said["ids"], said["records"]) == (["gone", "waits"], 3)
        assert set(said["destinations"]) == {"hook"}
        assert "not erased there" in said["destinations"]["hook"]
        box.webhook.faults.clear()
        assert await ask(file, "GET", "/dlq") == []
        balance = await delivered(file, recount=True)
        assert (balance["erased"], balance["waiting"], balance["difference"]) == (1, 0, 0)
        # The device was linked to them, and is another id: what names only it stays (D15).
        left = await ask(file, "GET", "/events")
        assert {(row["user_id"], row["anonymous_id"]) for row in left} == {("stays", None), (None, "shared")}


PUSH = """\
accounts:
  app: {{type: fcm, service_account: "{key}", fcm_url: "{fcm}"}}
  kept: {{type: warehouse, duckdb: kept.duckdb}}
push: {{account: app}}
"""


@pytest.mark.spec("D10")
async def test_an_erase_says_how_it_stands_at_each_destination(tmp_path: Path) -> None:
    fcm = FcmSimulator()
    async with sandbox(requests_per_minute=RATE) as box, serve(fcm) as url:
        (tmp_path / "key.json").write_text(fcm.account(url))
        pushes = "  pushes: {type: fcm, account: app}\n  copy: {type: warehouse, account: kept}\n"
        file = write(tmp_path, box, HOOK)
        text = file.read_text().replace("connections:", pushes + "connections:")
        file.write_text(text + PUSH.format(key="${file:key.json}", fcm=url))
        async with hub(file):
            said = (await ask(file, "POST", "/people/erase", {"ids": ["gone"]}))["destinations"]
    assert said.keys() == {"hook", "pushes", "copy", "devices"}
    assert "not erased there" in said["hook"]
    assert said["pushes"].startswith("keeps nothing")
    assert said["copy"] == "see `warehouses`"
    assert said["devices"].startswith("erased")


@pytest.mark.spec("D10")
async def test_while_a_person_is_erased_nothing_of_theirs_starts(tmp_path: Path) -> None:
    async with world(tmp_path, HOOK) as (running, box, file):
        box.webhook.faults.add("delay", delay_s=0.5, count=1)
        await send(running.address, track("gone", "One"))
        await until(lambda: box.webhook.faults.met.get("delay") == 1)
        erasing = asyncio.create_task(ask(file, "POST", "/people/erase", {"ids": ["gone"]}))
        await until(lambda: running.app.people._erasing)
        await send(running.address, track("gone", "Two"), track("other", "Three"))
        await erasing
        balance = await delivered(file, recount=True)
        assert balance["difference"] == 0
        sent = [item.json() for item in box.webhook.received]
        assert sorted(item["event"] for item in sent) == ["One", "Three"]
        # After the erase the person is like any other.
        await send(running.address, track("gone", "Four"))
        await until(lambda: len(box.webhook.received) == 3)


@pytest.mark.spec("D10")
async def test_an_erase_forgets_what_a_destination_remembers(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, box, file):
        call = {"type": "identify", "userId": "gone", "traits": {"email": "gone@example.com"}}
        await send(running.address, call)
        await delivered(file)
        first = len(box.kustomer.requests)
        await send(running.address, call)
        await delivered(file)
        remembered = len(box.kustomer.requests) - first
        await ask(file, "POST", "/people/erase", {"ids": ["gone"]})
        await send(running.address, call)
        await delivered(file)
        assert len(box.kustomer.requests) - first - remembered > remembered


async def test_people_can_be_erased_while_no_server_runs(tmp_path: Path) -> None:
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box, HOOK)
        async with hub(file) as running:
            await send(running.address, track("gone"), track("stays"))
            await delivered(file)
        said = await ask(file, "POST", "/people/erase", {"ids": ["gone"]})
        assert said["records"] == 1
        assert [row["user_id"] for row in await ask(file, "GET", "/events")] == ["stays"]


@pytest.mark.spec("D10")
async def test_what_is_being_erased_is_held_back_by_its_position_and_by_every_id_it_names(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, HOOK) as (running, _, _file):
        people = running.app.people
        people._erasing = {"gone": 7}
        own = Message(type="track", user_id="gone", received_at=running.app.clock.now() + 3600)
        alias = Message(type="alias", user_id="other", previous_id="gone")
        for message in (own, alias):
            assert people.suppressed(message, 7)
            assert not people.suppressed(message, 8)
        assert not people.suppressed(Message(type="track", user_id="other"), 7)
        await people.suppress(frozenset({"gone"}), on=True)
        assert people.suppressed(own, 8)
        assert not people.suppressed(alias, 8)
