"""Calls are filled while more is at hand (C087–C089), and nothing that need not wait waits for that."""

from __future__ import annotations

import msgspec
import pytest

from towpath import intake
from towpath.destination import Check, Limits
from towpath.log import Entry, Group, Pause
from towpath.message import Envelope
from towpath.outcome import Rejected, Retry
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import OK, Stage


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "CHUNK", 4)


def small(s: Stage, *, in_flight: int = 2) -> Stage:
    """Calls of ten, and room for twenty-four deliveries."""
    s.vendor.bounds = Limits(batch=10, in_flight=in_flight, ordered_batch=True)
    s.window = 24
    return s


async def write(s: Stage, count: int, *, source: str = "web", first: int = 0, kind: str = "track") -> None:
    """Append messages m0, m1 … of persons p0, p1 … in one go."""
    fields = ({"type": kind, "event": "Seen", "userId": f"p{n}"} for n in range(first, first + count))
    entries = [Entry(f"m{n}", msgspec.json.encode(each)) for n, each in enumerate(fields, first)]
    await s.store.append([Group(Envelope(source, s.clock.now(), "server"), entries)])


@pytest.mark.spec("C087", "C088", "C089")
@pytest.mark.parametrize("count", [205, 230])
@pytest.mark.parametrize("in_flight", [1, 2, 8])
def test_a_backlog_takes_no_more_calls_than_it_must(stage: MakeStage, count: int, in_flight: int) -> None:
    @virtual
    async def run() -> None:
        s = small(stage(), in_flight=in_flight)
        s.vendor.delay_s = lambda message: 0.1 + int(message.message_id[1:]) % 7 / 10
        await s.open()
        await write(s, count)
        await s.start()
        await s.drained()
        assert sorted(map(len, s.vendor.calls), reverse=True) == [10] * (count // 10) + [5] * (count % 10 > 0)
        await s.stop()

    run()


@pytest.mark.parametrize("batch", [10, 100])
def test_calls_that_are_full_by_their_bytes_go_side_by_side(stage: MakeStage, batch: int) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.bounds = Limits(batch=batch, batch_bytes=50, in_flight=4)
        s.vendor.delay_s = lambda _: 1.0
        s.window = 24
        await s.open()
        await write(s, 90, first=10)
        await s.start()
        await s.drained()
        assert len(s.vendor.calls) <= 36  # of three at most, thirty would do
        assert s.vendor.ended[-1][0] < 12  # one by one it would be 31
        await s.stop()

    run()


@virtual
async def test_the_last_ones_wait_for_nothing_also_when_others_records_follow(stage: MakeStage) -> None:
    s = small(stage())
    await s.open()
    await write(s, 3)
    await write(s, 300, source="another", first=10)
    await s.start()
    await s.pass_s(0.5)
    assert s.vendor.calls == [["m0", "m1", "m2"]]
    await s.stop()


@virtual
async def test_what_comes_one_by_one_goes_one_by_one(stage: MakeStage) -> None:
    s = small(stage())
    await s.start()
    for n in range(5):
        await s.send(f"e{n}", person=f"q{n}")
        await s.pass_s(0.2)
        assert s.vendor.attempts(f"e{n}")
    assert len(s.vendor.calls) == 5
    await s.stop()


@virtual
async def test_what_was_tried_before_does_not_wait_for_others(stage: MakeStage) -> None:
    s = small(stage())
    failing = ["m0"]
    s.vendor.answer = lambda m: (
        Retry("503", code=503) if failing and m.message_id == failing[0] and failing.pop() else OK
    )
    s.vendor.delay_s = lambda message: 600.0 if message.message_id == "m15" else 0.01
    await s.open()
    await write(s, 100)
    await s.start()
    await s.pass_s(2)
    assert [len(call) for call in s.vendor.calls] == [10, 10]  # others wait for room, and so for these
    await s.pass_s(30)
    assert len(s.vendor.attempts("m0")) == 2
    await s.crash()


@virtual
async def test_memory_full_of_one_persons_run_goes_though_no_call_is_full(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=100, in_flight=2, ordered_batch=True)
    s.window = 8
    await s.open()
    await s.send(*(f"e{n}" for n in range(60)))
    await s.start()
    await s.drained()
    assert s.vendor.order() == [f"e{n}" for n in range(60)]
    await s.stop()


@pytest.mark.spec("D03", "P6")
@virtual
async def test_others_pass_a_paused_capability_that_fills_memory_in_part(stage: MakeStage) -> None:
    s = small(stage())
    s.vendor.capability = lambda m: "people" if m.type == "identify" else ""
    s.vendor.checks = lambda: [Check("people", ok=False, capability="people")]
    await s.open()
    await s.store.pause(Pause(s.connection.name, "people", "403", s.clock.now()))
    for n in range(0, 400, 20):
        await write(s, 15, first=n, kind="identify")
        await write(s, 5, first=n + 15)
    await s.start()
    await s.pass_s(30)
    assert sum(map(len, s.vendor.calls)) == 100
    assert len(s.vendor.calls) <= 50  # not one by one
    await s.stop()


@virtual
async def test_an_outage_is_probed_though_a_call_could_be_fuller(stage: MakeStage) -> None:
    s = small(stage(), in_flight=1)
    down = [True]
    s.vendor.batch_answer = lambda _: Retry("503", code=503) if down else None
    s.vendor.answer = lambda _: Retry("503", code=503) if down else OK
    await s.open()
    await write(s, 100)
    await s.start()
    await s.pass_s(20)
    assert s.loop.health.stalled
    assert len(s.vendor.calls) >= 4
    down.clear()
    await s.drained()
    await s.stop()


@pytest.mark.spec("D22")
@virtual
async def test_a_long_log_lets_others_have_their_turn(stage: MakeStage) -> None:
    s = stage()
    s.connection = msgspec.structs.replace(s.connection, sources=frozenset({"nobody"}))
    await s.open()
    await write(s, 400)
    read, turns = s.store.read, list[int]()

    async def reading(after: int, limit: int, partition: int = 0) -> object:
        turns.append(after)
        return await read(after, limit, partition)

    s.store.read = reading  # type: ignore[method-assign,assignment]
    await s.start()
    for _ in range(20):
        await s.pass_s(0)
    assert 0 < len(turns) < 40
    await s.until(lambda: s.loop.cursor == 400)
    await s.stop()


@pytest.mark.spec("D05")
@virtual
async def test_a_refused_batch_is_not_halved_once_another_owner_may_have_taken_over(stage: MakeStage) -> None:
    s = small(stage(), in_flight=1)
    s.vendor.batch_answer = lambda messages: Rejected("413", 413) if len(messages) > 1 else None
    s.vendor.delay_s = lambda _: 40.0
    await s.open()
    await write(s, 4)
    await s.start()
    await s.pass_s(1)

    async def fail(*_: object) -> object:
        raise OSError("the ledger is away")

    s.store.lease = fail  # type: ignore[method-assign,assignment]
    await s.pass_s(300)
    assert [len(call) for call in s.vendor.calls] == [4]
    await s.crash()


@pytest.mark.spec("D10", "D03")
@virtual
async def test_who_is_erased_while_the_first_half_is_sent_is_not_in_the_second(stage: MakeStage) -> None:
    s = small(stage(), in_flight=1)
    s.vendor.batch_answer = lambda messages: Rejected("413", 413) if len(messages) == 4 else None
    s.vendor.delay_s = lambda _: 10.0
    await s.open()
    await write(s, 4)
    await s.start()
    await s.pass_s(15)
    assert s.vendor.calls[1:] == [["m0", "m1"]]
    s.loop.forget(frozenset({"p2"}), await s.store.erase({"p2"}))
    await s.drained()
    assert s.vendor.calls[2:] == [["m3"]]
    await s.stop()


@pytest.mark.spec("D10", "D03")
@virtual
async def test_who_is_suppressed_while_the_first_half_is_sent_is_not_in_the_second(stage: MakeStage) -> None:
    s = small(stage(), in_flight=1)
    s.vendor.batch_answer = lambda messages: Rejected("413", 413) if len(messages) == 4 else None
    s.vendor.delay_s = lambda _: 10.0
    await s.open()
    await write(s, 4)
    await s.start()
    await s.pass_s(15)
    s.suppressed.add("p2")
    await s.drained()
    assert s.vendor.calls[1:] == [["m0", "m1"], ["m3"]]
    assert (await s.balance()).skipped == {"suppressed": 1}
    await s.stop()
