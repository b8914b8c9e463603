"""Faults on request: each kind does what it says, to those it should meet, as often as it should."""

from __future__ import annotations

import asyncio
import random

import aiohttp
import pytest

from towpath.sandbox.exchange import Incoming, read
from towpath.sandbox.faults import Fault, Faults
from towpath.sandbox.kustomer import KustomerSimulator

from .conftest import Client, SetClock

pytestmark = pytest.mark.spec("D12")

ADA = {"externalId": "u-1"}


async def test_a_status_is_answered_and_nothing_is_handled(
    client: Client, kustomer: KustomerSimulator
) -> None:
    kustomer.faults.add("status", status=429, headers={"X-RateLimit-Reset": "17"}, count=2)
    got = [await client.track(ADA, f"E{n}") for n in range(3)]
    assert [answer.status for answer in got] == [429, 429, 201]
    assert got[0].headers["X-Ratelimit-Reset"] == "17"
    assert got[0].error["status"] == 429
    assert kustomer.state.event_count == 1
    assert [seen.status for seen in kustomer.requests] == [429, 429, 201]


async def test_a_status_carries_the_given_body(client: Client, kustomer: KustomerSimulator) -> None:
    kustomer.faults.add("status", status=500, body='{"errors":[]}')
    assert (await client.track(ADA, "E1")).json == {"errors": []}


async def test_a_delay_waits_by_the_clock_then_handles(
    client: Client, kustomer: KustomerSimulator, clock: SetClock
) -> None:
    kustomer.faults.add("delay", delay_s=30.0, count=1)
    assert (await client.track(ADA, "E1")).status == 201
    assert clock.slept == [30.0]
    await client.track(ADA, "E2")
    assert clock.slept == [30.0]


async def test_a_delay_joins_another_fault(
    client: Client, kustomer: KustomerSimulator, clock: SetClock
) -> None:
    kustomer.faults.add("status", status=503)
    kustomer.faults.add("delay", delay_s=5.0)
    assert (await client.track(ADA, "E1")).status == 503
    assert clock.slept == [5.0]


async def test_a_reset_cuts_before_anything_is_handled(client: Client, kustomer: KustomerSimulator) -> None:
    kustomer.faults.add("reset", count=1)
    with pytest.raises(aiohttp.ClientOSError):
        await client.track(ADA, "E1")
    assert kustomer.state.event_count == 0
    assert [seen.status for seen in kustomer.requests] == [0]
    assert (await client.track(ADA, "E1")).status == 201


async def test_a_dropped_answer_is_lost_after_the_commit(client: Client, kustomer: KustomerSimulator) -> None:
    kustomer.faults.add("drop_answer", count=1)
    with pytest.raises(aiohttp.ClientOSError):
        await client.track(ADA, "E1")
    assert kustomer.state.event_count == 1
    assert (await client.track(ADA, "E1")).status == 201
    assert (kustomer.state.event_count, kustomer.state.duplicates) == (2, 1)


async def test_garbage_is_no_json(client: Client, kustomer: KustomerSimulator) -> None:
    kustomer.faults.add("garbage", count=1)
    with pytest.raises(ValueError, match="utf-8"):
        await client.track(ADA, "E1")
    assert kustomer.state.event_count == 1


async def test_a_drip_sends_byte_by_byte(
    client: Client, kustomer: KustomerSimulator, clock: SetClock
) -> None:
    kustomer.faults.add("drip", delay_s=0.5, count=1)
    assert (await client("GET", "/v1/customers/externalId=nobody")).status == 404
    assert len(clock.slept) > 50
    assert set(clock.slept) == {0.5}


async def test_an_endless_body_ends_when_the_caller_leaves(
    client: Client, kustomer: KustomerSimulator, session: aiohttp.ClientSession
) -> None:
    kustomer.faults.add("endless", count=1)
    headers = {"authorization": "Bearer key-of-everything"}
    async with session.get(f"{client.url}/v1/customers", headers=headers) as reply:
        assert len(await reply.content.readexactly(1_000_000)) == 1_000_000
        reply.close()
    assert (await client("GET", "/v1/customers")).status == 200


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({"method": "get"}, [False, True, False, True]),
        ({"path": "/v1/tracking/"}, [True, False, False, False]),
        ({"person": "u-1"}, [True, True, False, True]),
        ({"person": "u-2"}, [False, False, True, False]),
        ({"person": "ada@example.com"}, [False, False, False, True]),
        ({"person": "u"}, [False, False, False, False]),
        ({"method": "POST", "person": "u-1"}, [True, False, False, False]),
    ],
)
async def test_conditions_choose_the_requests(
    client: Client, kustomer: KustomerSimulator, condition: dict[str, str], met: list[bool]
) -> None:
    customer = await client.create(externalId="u-1", emails=[{"email": "ada@example.com"}])
    kustomer.faults.add("status", status=418, **condition)
    got = [
        await client.track({"externalId": "u-1"}, "E1"),
        await client("GET", "/v1/customers/externalId=u-1"),
        await client("POST", "/v1/customers", {"externalId": "u-2"}),
        await client("GET", f"/v1/customers/{customer}"),
    ]
    assert [answer.status == 418 for answer in got] == met
    assert kustomer.faults.met.get("status", 0) == sum(met)
    kustomer.faults.clear()
    assert (await client.track({"externalId": "u-1"}, "E9")).status == 201


async def strikes(seed: int) -> list[bool]:
    faults = Faults(SetClock(), seed)
    faults.put(Fault(kind="status", probability=0.3))
    request = Incoming("GET", "/", "", [], b"", 0)
    return [await faults.before(request, lambda _, __: False) is not None for _ in range(200)]


async def test_chance_is_seeded() -> None:
    first = await strikes(1)
    assert first == await strikes(1)
    assert first != await strikes(2)
    assert 30 < sum(first) < 90


async def test_a_count_holds_when_requests_come_together(client: Client, kustomer: KustomerSimulator) -> None:
    kustomer.faults.add("delay", delay_s=0.01)
    kustomer.faults.add("status", status=503, count=5)
    got = await asyncio.gather(*(client.track({"externalId": f"u-{n}"}, "E1") for n in range(20)))
    assert sorted(answer.status for answer in got) == [201] * 15 + [503] * 5


async def test_the_control_route_adds_lists_and_clears(client: Client, kustomer: KustomerSimulator) -> None:
    got = await client("POST", "/_sandbox/faults", {"kind": "status", "status": 500, "path": "/v1/tracking"})
    assert (got.status, [fault["status"] for fault in got.json["faults"]]) == (200, [500])
    assert (await client.track(ADA, "E1")).status == 500
    assert (await client("GET", "/_sandbox/faults")).json["met"] == {"status": 1}
    assert (await client("DELETE", "/_sandbox/faults")).json["faults"] == []
    assert (await client.track(ADA, "E1")).status == 201
    wrong: object
    for wrong in ({"kind": "fire"}, {"kind": "status", "pth": "/"}, {"status": 500}, []):
        bad = await client("POST", "/_sandbox/faults", wrong)
        assert (bad.status, bad.json["error"].startswith("not a fault: ")) == (400, True)
    assert (await client("PUT", "/_sandbox/faults")).status == 404
    assert len(kustomer.requests) == 2


async def test_the_state_route_sums_up(client: Client) -> None:
    await client.create(emails=[{"email": "ada@example.com"}])
    for name in ("E1", "E2", "E2"):
        await client.track(ADA, name)
    state = (await client("GET", "/_sandbox/state")).json
    assert state["people"] == {"ada@example.com": [], "u-1": ["E1", "E2", "E2"]}
    assert (state["customers"], state["events"], state["duplicates"], state["requests"]) == (2, 3, 1, 4)


async def test_without_control_the_routes_do_not_exist() -> None:
    sent: list[object] = []

    async def send(message: object) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/_sandbox/state",
        "query_string": b"",
        "headers": [],
    }
    await KustomerSimulator()(scope, receive, send)
    assert "'status': 401" in str(sent[0])


async def test_a_cut_without_a_server_that_can_cut_is_a_connection_error() -> None:
    simulator = KustomerSimulator()
    simulator.faults.add("reset")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(_: object) -> None:
        raise AssertionError("nothing is answered")

    scope = {"type": "http", "method": "GET", "raw_path": b"/", "query_string": b"", "headers": []}
    with pytest.raises(ConnectionResetError):
        await simulator(scope, receive, send)


async def test_a_caller_who_leaves_halfway_is_no_request() -> None:
    parts: list[dict[str, object]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, object]:
        return parts.pop(0)

    scope = {"type": "http", "method": "POST", "raw_path": b"/", "query_string": b"", "headers": []}
    with pytest.raises(ConnectionError):
        await read(scope, receive)


def test_the_default_seed_does_not_touch_the_global_randomness() -> None:
    random.seed(5)
    expected = random.Random(5).random()
    Faults(SetClock())
    assert random.random() == expected
