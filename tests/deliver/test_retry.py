"""When a failed delivery is tried again, and when it dies (D06, P7)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from towpath.http import Stopping
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Rejected, Retry, Skipped
from towpath.retry import SCHEDULE_S, Attempts, RetryPolicy
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DAY_S, DOWN, HOUR_S, OK, Answer

LAG_S = 0.1
"""What one attempt and its settlement may take beside the wait."""


def waits(attempts: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(attempts)]


@pytest.mark.spec("D06", "D02", "P7")
@pytest.mark.parametrize("seed", range(5))
def test_the_schedule_is_kept_within_its_jitter_and_then_it_is_a_dead_letter(
    stage: MakeStage, seed: int
) -> None:
    @virtual
    async def run() -> None:
        s = stage(seed)
        s.vendor.answer = lambda _: DOWN
        await s.start()
        await s.send("m")
        await s.drained()
        tried = s.vendor.attempts("m")
        assert len(tried) == 13
        for wait, planned in zip(waits(tried), SCHEDULE_S, strict=True):
            assert planned <= wait <= planned * 1.2 + LAG_S
        assert 76 * HOUR_S <= tried[-1] - tried[0] <= 93 * HOUR_S
        (letter,) = await s.dead()
        assert letter.attempts == 13
        assert letter.reason.startswith("gave up after 13 attempts: 503: down")
        assert letter.exchange is not None
        await s.stop()

    run()


@pytest.mark.spec("D06")
@virtual
async def test_the_schedule_goes_on_over_restarts(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda _: DOWN
    await s.start()
    await s.send("m")
    for count in (3, 5, 9):
        await s.until(lambda count=count: len(s.vendor.attempts("m")) == count)  # type: ignore[misc]
        await s.pass_s(1)
        await s.crash()
        await s.start()
    await s.drained()
    tried = s.vendor.attempts("m")
    assert len(tried) == 13
    for wait, planned in zip(waits(tried), SCHEDULE_S, strict=True):
        assert planned <= wait <= planned * 1.2 + 62
    await s.stop()


@pytest.mark.spec("D06")
@pytest.mark.parametrize("jump_s", [-365 * DAY_S, -HOUR_S, HOUR_S])
def test_a_jump_of_the_wall_clock_neither_storms_nor_stalls(stage: MakeStage, jump_s: float) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.answer = lambda _: DOWN
        await s.start()
        await s.send("m")
        await s.until(lambda: len(s.vendor.attempts("m")) == 4)
        await s.pass_s(10)
        s.clock.jump(jump_s)
        await s.until(lambda: len(s.vendor.attempts("m")) == 6, 2 * HOUR_S)
        for wait, planned in zip(waits(s.vendor.attempts("m")), SCHEDULE_S[:5], strict=True):
            assert planned <= wait <= planned * 1.2 + LAG_S
        await s.stop()

    run()


@pytest.mark.spec("D03", "D06")
@pytest.mark.parametrize(("wish_s", "waited_s"), [(40.0, 40.0), (2.0, 5.0), (1e9, DAY_S), (-5.0, 5.0)])
def test_the_vendors_wish_is_honoured_up_to_a_day(stage: MakeStage, wish_s: float, waited_s: float) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.answer = lambda _: Retry("503", wish_s, code=503)
        await s.start()
        await s.send("m")
        await s.until(lambda: len(s.vendor.attempts("m")) == 2)
        (wait,) = waits(s.vendor.attempts("m"))
        assert waited_s <= wait <= max(waited_s, 6.0) + LAG_S
        await s.stop()

    run()


@pytest.mark.spec("D03")
@virtual
async def test_a_rate_limit_stops_the_connection_and_costs_no_attempt(stage: MakeStage) -> None:
    s = stage()
    limited = [True]

    def answer(message: Message) -> Answer:
        return Retry("429", 100.0, throttled=True, code=429) if limited[0] else OK

    s.vendor.answer = answer
    await s.start()
    await s.send("a", person="ann")
    await s.pass_s(1)
    await s.send("b", person="bob")
    await s.pass_s(98)
    assert s.vendor.order() == ["a"]
    limited[0] = False
    await s.drained()
    assert s.vendor.attempts("a")[1] == pytest.approx(100, abs=1)
    assert {row.attempts for _, row in await s.store.deliveries(None, None, 10)} == {1}
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_the_longest_of_several_rate_limits_counts(stage: MakeStage) -> None:
    s = stage()
    wishes = {"a": 100.0, "b": 10.0}
    s.vendor.answer = lambda m: (
        Retry("429", wishes[m.message_id], throttled=True) if s.clock.monotonic() < 50 else OK
    )
    await s.start()
    await s.send("a", person="ann")
    await s.send("b", person="bob")
    await s.drained()
    assert min(at for at, _ in s.vendor.started[2:]) >= 100
    await s.stop()


@pytest.mark.spec("D06")
@virtual
async def test_what_alone_fails_while_others_succeed_dies_after_ten_attempts_in_six_hours(
    stage: MakeStage,
) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if m.message_id == "poison" else OK
    await s.start()
    await s.send("healthy", person="bob")
    await s.drained()
    await s.send("poison", "after", person="bad")
    for n in range(700):
        await s.send(f"ok{n}", person=f"p{n}")
        await s.pass_s(30)
    tried = s.vendor.attempts("poison")
    assert len(tried) == 10
    assert tried[-1] - tried[0] <= 6 * HOUR_S
    assert s.vendor.attempts("after")[0] == pytest.approx(tried[-1], abs=1)
    (letter,) = await s.dead()
    assert letter.record.message_id == "poison"
    await s.stop()


@pytest.mark.spec("D06")
@virtual
async def test_without_others_who_succeed_the_long_schedule_holds(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if m.user_id == "ann" else OK
    await s.start()
    await s.send("healthy", person="bob")
    await s.pass_s(600)
    await s.send("m")
    await s.drained()
    assert len(s.vendor.attempts("m")) == 13
    await s.stop()


@pytest.mark.spec("D06")
@virtual
async def test_a_follower_of_one_that_died_gets_one_attempt_once_it_is_as_old(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN
    await s.start()
    await s.send(*(f"old{n}" for n in range(40)))
    await s.until(lambda: len(s.vendor.attempts("old0")) == 12)
    await s.send("young")
    await s.until(lambda: len(s.vendor.attempts("young")) == 3)
    assert [len(s.vendor.attempts(f"old{n}")) for n in range(40)] == [13] + [1] * 39
    assert len(await s.dead()) == 40
    await s.drained()
    assert len(s.vendor.attempts("young")) > 3
    await s.stop()


@pytest.mark.spec("D06")
@virtual
async def test_a_follower_that_works_is_delivered_and_frees_the_next(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if m.message_id in ("a", "c") else OK
    await s.start()
    await s.send("a", "b", "c")
    await s.until(lambda: len(s.vendor.attempts("c")) >= 2)
    assert len(await s.dead()) == 1
    assert len(s.vendor.attempts("b")) == 1
    await s.stop()


@pytest.mark.spec("D02")
@virtual
async def test_a_refusal_is_a_dead_letter_at_once_and_the_next_goes_on(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: Rejected("400: no such field", 400) if m.message_id == "a" else OK
    await s.start()
    await s.send("a", "b")
    await s.drained()
    (letter,) = await s.dead()
    assert (letter.code, letter.reason, letter.attempts) == (400, "400: no such field", 1)
    assert letter.exchange is not None
    assert letter.exchange.status == 400
    assert s.vendor.order() == ["a", "b"]
    await s.stop()


@pytest.mark.spec("D05")
@virtual
async def test_a_replayed_letter_is_delivered_and_a_dead_one_stays_dead(stage: MakeStage) -> None:
    from towpath.log import DeadFilter

    s = stage()
    s.vendor.answer = lambda m: Rejected("400", 400)
    await s.start()
    await s.send("a", "b")
    await s.drained()
    s.vendor.answer = lambda m: OK
    await s.pass_s(10 * DAY_S)
    assert s.vendor.order() == ["a", "b"]
    (letter,) = [letter for letter in await s.dead() if letter.record.message_id == "b"]
    await s.store.replay(DeadFilter(ids=[letter.id]), s.clock.now())
    await s.loop.refresh()
    await s.drained()
    assert s.vendor.order() == ["a", "b", "b"]
    assert (await s.balance()).dead == 1
    await s.stop()


@pytest.mark.spec("D02")
@pytest.mark.parametrize("part", ["prepare", "deliver"])
def test_an_unforeseen_exception_is_a_retry_with_its_traceback_and_dies_at_last(
    stage: MakeStage, part: str
) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        if part == "prepare":
            s.vendor.prepare_fails = {"a"}
        else:
            s.vendor.answer = lambda m: ZeroDivisionError("a bug") if m.message_id == "a" else OK
        await s.start()
        await s.send("a", "b")
        await s.pass_s(1)
        (name, told), *_ = s.told
        assert name == "a"
        assert isinstance(told, Retry)
        assert "Traceback" in told.reason
        assert "ZeroDivisionError: a bug" in told.reason
        await s.drained()
        (letter,) = await s.dead()
        assert "ZeroDivisionError" in letter.reason
        assert letter.attempts == 13
        assert len(s.vendor.attempts("b")) == 1
        await s.stop()

    run()


@pytest.mark.spec("D06")
@virtual
async def test_what_is_older_than_its_max_age_is_skipped_as_stale(stage: MakeStage) -> None:
    s = stage(max_age_s={"Cart Abandoned": HOUR_S, "*": 10 * DAY_S})
    s.vendor.answer = lambda m: DOWN if s.clock.monotonic() < 3 * HOUR_S else OK
    await s.start()
    await s.send("cart", event="Cart Abandoned")
    await s.send("order", event="Order Completed")
    await s.drained()
    balance = await s.balance()
    assert balance.skipped == {"stale": 1}
    assert balance.delivered == 1
    assert s.vendor.ended[-1][1] == "order"
    await s.stop()


@pytest.mark.spec("E027")
@virtual
async def test_a_suppressed_person_is_skipped_also_when_suppressed_while_waiting(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN
    await s.start()
    await s.send("a", "b")
    await s.pass_s(1)
    s.suppressed.add("ann")
    await s.send("c")
    await s.drained()
    assert (await s.balance()).skipped == {"suppressed": 3}
    assert s.vendor.order() == ["a"]
    await s.stop()


@pytest.mark.spec("D02", "D05")
@virtual
async def test_every_delivery_ends_as_one_of_the_outcomes_and_is_counted(stage: MakeStage) -> None:
    s = stage()
    outcomes: dict[str, Outcome] = {"ok": OK, "no": Rejected("400", 400), "later": DOWN}
    s.vendor.answer = lambda m: outcomes[m.message_id]
    await s.start()
    for name in outcomes:
        await s.send(name, person=name)
    await s.send("unsupported", event="unsupported", person="x")
    await s.pass_s(1)
    balance = await s.balance()
    assert (balance.accepted, balance.delivered, balance.dead, balance.waiting) == (4, 1, 1, 1)
    assert balance.skipped == {"unsupported": 1}
    kinds = {name: type(outcome) for name, outcome in s.told}
    assert kinds == {"ok": Delivered, "no": Rejected, "later": Retry, "unsupported": Skipped}
    await s.stop()


@virtual
async def test_an_unreadable_record_is_a_dead_letter(stage: MakeStage) -> None:
    from towpath.log import Entry, Group
    from towpath.message import Envelope

    s = stage()
    await s.start()
    await s.store.append([Group(Envelope("web", s.clock.now()), [Entry("broken", b"{nonsense")])])
    await s.send("fine")
    await s.drained()
    (letter,) = await s.dead()
    assert "cannot be read" in letter.reason
    assert s.vendor.order() == ["fine"]
    await s.stop()


def test_a_stop_is_no_outcome() -> None:
    assert not issubclass(Stopping, Rejected | Retry)


@pytest.mark.spec("D06")
def test_a_policy_without_a_schedule_never_retries() -> None:
    policy = RetryPolicy(schedule_s=())
    assert policy.delay_s(Attempts(1, 0.0, 0.0), 0.0, alone=False, chance=0.5) is None
