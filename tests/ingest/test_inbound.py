"""Webhooks: verified, kept, then answered; nothing that a sender can do stops what comes behind it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec
import pytest

from towpath.errors import Unauthorized
from towpath.feed import Feed
from towpath.ingest import IngestLimits
from towpath.ingest.inbound import Door, Webhooks
from towpath.log import Log, LogFull
from towpath.message import Message
from towpath.source import Heard, Inbound, Incoming, Known, Malformed, SourceSettings, items_apart
from towpath.state import State

from .support import ManualClock, MemoryLog, Reply, _exchange


class Toy(Inbound[SourceSettings]):
    """Takes `{"id": …}` from whoever knows the word."""

    name: ClassVar[str] = "toy"
    path: ClassVar[str] = "toys"
    Settings: ClassVar[type[Any]] = SourceSettings

    def verify(self, request: Incoming, now: float) -> None:
        if request.route == "partner" and request.local:
            return
        if request.headers.get("x-word") != "please":
            raise Unauthorized("the word is missing")

    def messages(self, request: Incoming, known: Known) -> Iterable[Heard]:
        try:
            found = msgspec.json.decode(request.body)
        except msgspec.DecodeError as error:
            raise Malformed("it is not JSON") from error
        for item in found if isinstance(found, list) else [found]:
            yield Message(type="track", message_id=item["id"], user_id="u1", event=request.path or "top")

    def parts(self, request: Incoming) -> Sequence[Incoming]:
        return items_apart(request)

    def routes(self) -> Mapping[str, str]:
        return {"partner": "/partners/{partner}/{source}.php", "shared": "/toys/{city}"}


class World:
    def __init__(self, state: State) -> None:
        self.log = MemoryLog()
        self.clock = ManualClock()
        self.state = state
        self.webhooks = Webhooks({}, self.clock)

    def door(self, name: str, **settings: Any) -> Door:
        feed = Feed(name, "server", cast("Log", self.log), self.state.facts(name), self.clock)
        return Door(Toy(SourceSettings(**settings)), feed)

    async def post(
        self,
        path: str,
        body: bytes = b'{"id":"m1"}',
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        client: str = "203.0.113.7",
    ) -> Reply:
        given = {"x-word": "please", **(headers or {})}
        scope = {
            "type": "http", "method": method, "path": path, "query_string": b"", "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": (client, 1234),
        }  # fmt: skip
        return await _exchange(cast("Any", self.webhooks), scope, [body])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    state = State.open(tmp_path)
    made = World(state)
    made.webhooks.replace({"crm": made.door("crm")})
    yield made
    state.close()


@pytest.mark.spec("C080", "P1")
async def test_a_request_is_kept_and_answered(world: World) -> None:
    assert world.webhooks.takes("/webhooks/crm")
    assert not world.webhooks.takes("/v1/batch")
    reply = await world.post("/webhooks/crm/orders/new/")
    assert (reply.status, reply.body) == (200, b"OK")
    (message,) = world.log.messages()
    assert (message.message_id, message.event, message.source) == ("m1", "orders/new", "crm")
    assert world.log.records[0].envelope.ip == "203.0.113.7"


async def test_the_path_of_a_kind_finds_its_only_source(world: World) -> None:
    assert (await world.post("/webhooks/toys")).status == 200
    world.webhooks.replace({"crm": world.door("crm"), "erp": world.door("erp")})
    assert (await world.post("/webhooks/toys")).status == 404
    assert (await world.post("/webhooks/erp")).status == 200


@pytest.mark.spec("C116")
async def test_what_proves_nothing_is_401_counted_and_without_effect(world: World) -> None:
    reply = await world.post("/webhooks/crm", headers={"x-word": "give me"})
    assert (reply.status, reply.text()) == (401, "the word is missing\n")
    assert world.webhooks.refused == {"crm": 1}
    assert world.log.records == []


async def test_other_methods_names_and_sources_switched_off(world: World) -> None:
    world.webhooks.replace({"crm": world.door("crm"), "off": world.door("off", enabled=False)})
    reply = await world.post("/webhooks/crm", method="GET")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert (await world.post("/webhooks/nobody")).status == 404
    assert (await world.post("/webhooks/off")).text() == "source is disabled\n"


@pytest.mark.parametrize("path", ["/partners/acme/crm.php", "/partners/acme/toys.php", "/toys/berlin"])
async def test_a_source_answers_at_the_addresses_it_names(world: World, path: str) -> None:
    assert world.webhooks.takes(path)
    assert (await world.post(path)).status == 200
    assert [message.event for message in world.log.messages()] == [path.strip("/")]


@pytest.mark.parametrize(
    "path",
    ["/partners/a/b/crm.php", "/partners//crm.php", "/partners/acme/crmXphp", "/partners/acme/erp.php"],
)
async def test_it_answers_at_no_others(world: World, path: str) -> None:
    assert not world.webhooks.takes(path)
    assert (await world.post(path)).status == 404


async def test_an_address_that_two_sources_claim_is_neithers(world: World) -> None:
    world.webhooks.replace({"crm": world.door("crm"), "erp": world.door("erp")})
    assert not world.webhooks.takes("/toys/berlin")
    assert (await world.post("/partners/acme/erp.php")).status == 200
    assert {record.envelope.source for record in world.log.records} == {"erp"}


@pytest.mark.spec("D13")
async def test_a_source_is_told_by_which_way_and_whether_from_this_machine(world: World) -> None:
    path, bare = "/partners/acme/crm.php", {"x-word": ""}
    assert (await world.post(path, headers=bare, client="127.0.0.1")).status == 200
    assert (await world.post(f"/webhooks/crm{path}", headers=bare, client="127.0.0.1")).status == 401
    assert (await world.post(path, headers=bare, client="203.0.113.7")).status == 401
    forwarded = {**bare, "x-forwarded-for": "127.0.0.1"}
    assert (await world.post(path, headers=forwarded, client="127.0.0.1")).status == 401


@pytest.mark.spec("P5")
async def test_what_cannot_be_read_is_400_and_a_dead_letter(world: World) -> None:
    reply = await world.post("/webhooks/crm", b"<xml>")
    assert (reply.status, reply.text()) == (400, "the request cannot be read: it is not JSON\n")
    (letter,) = world.log.refused
    assert (letter.source, letter.code, letter.raw) == ("crm", "malformed", b"<xml>")


@pytest.mark.spec("P5")
async def test_a_fault_of_ours_is_a_dead_letter_and_blocks_no_feed(world: World) -> None:
    assert (await world.post("/webhooks/crm", b'{"no":"id"}')).status == 200
    (letter,) = world.log.refused
    assert (letter.code, letter.raw) == ("unforeseen", b'{"no":"id"}')
    assert letter.reason.startswith("towpath failed to read this: KeyError at messages:")


@pytest.mark.spec("P5", "D10")
@pytest.mark.parametrize("faults", [{0}, {4}, {2, 3}, {0, 1, 2, 3, 4}])
async def test_of_a_request_of_many_only_what_is_at_fault_is_a_dead_letter(
    world: World, faults: set[int]
) -> None:
    items = [b'{"no":%d}' % number if number in faults else b'{"id":"m%d"}' % number for number in range(5)]
    assert (await world.post("/webhooks/crm", b"[" + b", ".join(items) + b"]")).status == 200
    assert [message.message_id for message in world.log.messages()] == [
        f"m{number}" for number in range(5) if number not in faults
    ]
    assert {letter.code for letter in world.log.refused} == {"unforeseen"}
    assert [letter.raw for letter in world.log.refused] == [
        b'[{"no":%d}]' % number for number in sorted(faults)
    ]


@pytest.mark.spec("E036")
async def test_a_full_log_is_507_and_nothing_is_answered_ok(world: World) -> None:
    world.log.failure = LogFull("full")
    reply = await world.post("/webhooks/crm")
    assert (reply.status, reply.headers["retry-after"]) == (507, "30")
    world.log.failure = RuntimeError("someone@example.com")
    assert (await world.post("/webhooks/crm")).status == 503


async def test_bodies_are_inflated_within_the_limit(world: World) -> None:
    zipped = gzip.compress(b'{"id":"m2"}')
    assert (await world.post("/webhooks/crm", zipped, {"content-encoding": "gzip"})).status == 200
    world.webhooks.replace({"crm": world.door("crm")}, limits=IngestLimits(request_bytes=1024))
    bomb = gzip.compress(b" " * 1_000_000)
    assert (await world.post("/webhooks/crm", bomb, {"content-encoding": "gzip"})).status == 413
    assert (await world.post("/webhooks/crm", b"x" * 2000)).status == 413


async def test_a_burst_is_kept_whole(world: World) -> None:
    bodies = [b'{"id":"m%d"}' % number for number in range(200)]
    replies = await asyncio.gather(*[world.post("/webhooks/crm", body) for body in bodies])
    assert {reply.status for reply in replies} == {200}
    assert len({record.message_id for record in world.log.records}) == 200
