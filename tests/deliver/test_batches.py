"""Batches (D03), runs of one person in them (decision 3), and coalescing (D20)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

import pytest

from towpath.destination import Call, Ended, Limits, Payload
from towpath.http import Stopping
from towpath.log import DeadFilter
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Paused, Rejected, Retry
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK, Answer, Stage


def person(call: Sequence[str]) -> list[str]:
    return [name.partition("-")[0] for name in call]


@pytest.mark.spec("D04")
@virtual
async def test_a_batch_holds_one_delivery_of_each_person(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=2)
    await s.open()
    for n in range(20):
        await s.send(*(f"{n}-{k}" for k in range(3)), person=f"p{n}")
    await s.start()
    await s.drained()
    assert all(len(set(person(call))) == len(call) for call in s.vendor.calls)
    assert max(map(len, s.vendor.calls)) == 10
    for n in range(20):
        assert [name for name in s.vendor.order() if name.startswith(f"{n}-")] == [
            f"{n}-{k}" for k in range(3)
        ]
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_an_ordered_batch_keeps_a_persons_run_together(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=2, ordered_batch=True)
    await s.open()
    await s.send(*(f"m{n}" for n in range(25)))
    await s.start()
    await s.drained()
    assert [len(call) for call in s.vendor.calls] == [10, 10, 5]
    assert s.vendor.order() == [f"m{n}" for n in range(25)]
    await s.stop()


@pytest.mark.spec("D03", "P6")
@virtual
async def test_a_batch_refused_like_a_credential_that_works_dies_for_nobody_else(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1, ordered_batch=True)
    s.vendor.batch_answer = lambda _: Paused("403: firewall", 403)
    s.vendor.answer = lambda m: Paused("403: firewall", 403) if m.message_id == "bad" else OK
    await s.open()
    await s.send("a1", "a2", "a3", person="a")
    await s.send("bad", "b2", person="b")
    await s.send("c1", person="c")
    await s.start()
    await s.drained()
    assert [letter.record.message_id for letter in await s.store.dead(DeadFilter())] == ["bad"]
    assert [name for name in s.vendor.order() if name in ("a1", "a2", "a3")][-3:] == ["a1", "a2", "a3"]
    assert (await s.store.balance())[0].delivered == 5
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_a_batch_is_told_whose_its_payloads_are(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1, ordered_batch=True)
    await s.open()
    await s.send("before", person=None, anonymousId="an")
    await s.identify("linked", "u1", "an")
    await s.send("after", person="u1")
    await s.send("other", person="u2")
    await s.start()
    await s.drained()
    assert len({s.vendor.persons[name] for name in ("before", "linked", "after")}) == 1
    assert s.vendor.persons["other"] not in ("", s.vendor.persons["after"])
    await s.stop()


@virtual
async def test_a_batch_stays_below_its_bytes(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=100, batch_bytes=60, in_flight=1)
    await s.open()
    for n in range(20):
        await s.send(f"m{n:02}", person=f"p{n}")
    await s.start()
    await s.drained()
    assert len(s.vendor.calls) == 5
    assert all(len(call) == 4 for call in s.vendor.calls)
    await s.stop()


@pytest.mark.spec("D03")
@pytest.mark.parametrize("size", [2, 7, 100])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_refused_as_a_whole_is_halved_until_the_one_at_fault_is_found(
    stage: MakeStage, size: int, status: int
) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.bounds = Limits(batch=size, in_flight=1)
        refusal = Rejected(f"{status}: bad item", status)
        s.vendor.batch_answer = lambda messages: (
            refusal if any(m.message_id == "m1" for m in messages) else None
        )
        s.vendor.answer = lambda m: refusal if m.message_id == "m1" else OK
        await s.open()
        for n in range(size):
            await s.send(f"m{n}", person=f"p{n}")
        await s.start()
        await s.drained()
        (letter,) = await s.dead()
        assert letter.record.message_id == "m1"
        assert letter.exchange is not None
        assert (await s.balance()).delivered == size - 1
        assert len(s.vendor.calls) <= 1 + 2 * ceil(log2(size))
        await s.stop()

    run()


@virtual
async def test_other_refusals_of_a_batch_hold_for_each_item(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1)
    s.vendor.batch_answer = lambda _: DOWN if s.clock.monotonic() < 5 else None
    await s.open()
    for n in range(4):
        await s.send(f"m{n}", person=f"p{n}")
    await s.start()
    await s.drained()
    assert len(s.vendor.calls[0]) == 4
    assert (await s.balance()).delivered == 4
    await s.stop()


@virtual
async def test_each_item_of_a_batch_has_its_own_end(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1)
    outcomes: dict[str, Outcome] = {"ok": OK, "no": Rejected("422", 422), "later": DOWN}
    s.vendor.answer = lambda m: outcomes.pop(m.message_id, OK)
    await s.open()
    for name in list(outcomes):
        await s.send(name, person=name)
    await s.start()
    await s.drained()
    assert [letter.record.message_id for letter in await s.dead()] == ["no"]
    assert s.vendor.attempts("later")[1] - s.vendor.attempts("later")[0] >= 5
    assert len(s.vendor.attempts("ok")) == 1
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_a_run_whose_first_item_fails_waits_as_a_whole(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1, ordered_batch=True)
    s.vendor.batch_answer = lambda _: DOWN if s.clock.monotonic() < 1 else None
    s.vendor.answer = lambda _: DOWN if s.clock.monotonic() < 1 else OK
    await s.open()
    await s.send("a", "b", "c")
    await s.start()
    await s.drained()
    assert s.vendor.calls == [["a", "b", "c"], ["a", "b", "c"]]
    assert s.vendor.attempts("a")[1] >= 5
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_a_run_cut_by_bisection_does_not_overtake_its_own_failing_half(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=4, in_flight=1, ordered_batch=True)

    def batch(messages: Sequence[Message]) -> Outcome | None:
        if s.clock.monotonic() >= 1:
            return None
        return Rejected("413", 413) if len(messages) == 4 else DOWN

    s.vendor.batch_answer = batch
    await s.open()
    await s.send("a", "b", "c", "d")
    await s.start()
    await s.drained()
    assert s.vendor.calls == [["a", "b", "c", "d"], ["a", "b"], ["a", "b", "c", "d"]]
    await s.stop()


@virtual
async def test_a_wrong_number_of_verdicts_is_a_retry(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1)

    async def short(payloads: Sequence[Payload], scope: object) -> Sequence[Ended]:
        return [OK]

    s.vendor.deliver_batch = short  # type: ignore[method-assign]
    await s.open()
    for n in range(3):
        await s.send(f"m{n}", person=f"p{n}")
    await s.start()
    await s.pass_s(1)
    assert {type(outcome) for _, outcome in s.told} == {Retry}
    assert "1 outcomes for 3 payloads" in s.told[0][1].reason  # type: ignore[union-attr]
    await s.stop()


@pytest.mark.spec("D10")
@virtual
async def test_a_letter_of_a_refused_batch_holds_its_own_part_of_the_request_only(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1)
    s.vendor.batch_answer = lambda messages: Rejected("404: gone", 404) if len(messages) > 1 else None
    await s.open()
    for name in ("a", "b", "c"):
        await s.send(name, person=name)
    await s.start()
    await s.drained()
    letters = {letter.record.message_id: letter.exchange for letter in await s.store.dead(DeadFilter())}
    assert {name: exchange and exchange.body for name, exchange in letters.items()} == {
        name: f'{{"id":"{name}"}}' for name in ("a", "b", "c")
    }
    await s.stop()


@virtual
async def test_each_item_of_a_batch_ends_as_it_says(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=10, in_flight=1)
    answers: dict[str, Answer] = {
        "refused": Rejected("400: no such field", 400),
        "broken": ZeroDivisionError("a bug of the destination"),
        "unsent": Stopping(),
        "told": Delivered(200, ("e-mail left out", "phone left out")),
    }
    s.vendor.answer = lambda message: answers.pop(message.message_id, None)
    await s.open()
    for name in [*answers, "good"]:
        await s.send(name, person=name)
    await s.start()
    await s.drained()
    tries = {"refused": 1, "broken": 2, "unsent": 2, "told": 1, "good": 1}
    assert {name: len(s.vendor.attempts(name)) for name in tries} == tries
    (letter,) = await s.store.dead(DeadFilter())
    assert letter.exchange is not None
    assert (letter.record.message_id, letter.exchange.status) == ("refused", 400)
    (told,) = [
        done for _, done in await s.store.deliveries(None, None, 9) if done.reason and done.code == 200
    ]
    assert (told.state, told.reason) == ("delivered", "e-mail left out; phone left out")
    await s.stop()


@virtual
async def test_a_stop_in_the_middle_of_a_bisection_keeps_what_was_delivered(stage: MakeStage) -> None:
    s = stage()
    s.vendor.bounds = Limits(batch=4, in_flight=1)
    s.vendor.batch_answer = lambda messages: Rejected("413", 413) if len(messages) == 4 else None
    stopping = [False]
    sent = s.vendor._send

    async def send(messages: Sequence[Message]) -> None:
        if stopping[0]:
            raise Stopping
        await sent(messages)
        stopping[0] = len(messages) == 2

    s.vendor._send = send  # type: ignore[method-assign]
    await s.open()
    for n in range(4):
        await s.send(f"m{n}", person=f"p{n}")
    await s.start()
    await s.until(lambda: stopping[0])
    await s.stop()
    await s.open()
    balance = await s.balance()
    assert (balance.delivered, balance.waiting) == (2, 2)
    await s.close()


def coalescing(s: Stage) -> None:
    s.vendor.bounds = Limits(coalesce=True, in_flight=1)


@pytest.mark.spec("D20")
@virtual
async def test_waiting_profile_updates_are_merged_but_never_across_an_event(stage: MakeStage) -> None:
    s = stage()
    coalescing(s)
    await s.open()
    for name in ("i1", "i2", "i3"):
        await s.identify(name, "ann")
    await s.send("t1")
    await s.identify("i4", "ann")
    await s.identify("i5", "ann")
    await s.identify("other", "bob")
    await s.start()
    await s.drained()
    mine = [call for call in s.vendor.calls if call != ["other"]]
    assert mine == [["i1", "i2", "i3"], ["t1"], ["i4", "i5"]]
    assert (await s.balance()).delivered == 7
    await s.stop()


@pytest.mark.spec("D20")
@virtual
async def test_a_refused_merged_call_falls_apart_before_anything_is_rejected(stage: MakeStage) -> None:
    s = stage()
    coalescing(s)

    async def deliver(payload: Payload, scope: object) -> None:
        await s.vendor._send(payload.data)
        if any(message.message_id == "i2" for message in payload.data):
            s.vendor._raise(Rejected("422: i2 is bad", 422))

    s.vendor.deliver = deliver  # type: ignore[method-assign]
    await s.open()
    for name in ("i1", "i2", "i3"):
        await s.identify(name, "ann")
    await s.start()
    await s.drained()
    assert s.vendor.calls == [["i1", "i2", "i3"], ["i1"], ["i2"], ["i3"]]
    assert [letter.record.message_id for letter in await s.dead()] == ["i2"]
    await s.stop()


@pytest.mark.spec("D20")
@virtual
async def test_nothing_is_merged_unless_the_destination_asks_for_it(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    await s.identify("i1", "ann")
    await s.identify("i2", "ann")
    await s.start()
    await s.drained()
    assert s.vendor.calls == [["i1"], ["i2"]]
    await s.stop()


@pytest.mark.spec("D20")
@virtual
async def test_updates_of_different_capabilities_are_not_merged(stage: MakeStage) -> None:
    s = stage()
    coalescing(s)
    s.vendor.capability = lambda m: m.message_id
    await s.open()
    await s.identify("i1", "ann")
    await s.identify("i2", "ann")
    await s.start()
    await s.drained()
    assert s.vendor.calls == [["i1"], ["i2"]]
    await s.stop()


def test_a_payload_without_requests_weighs_nothing() -> None:
    from towpath.dispatch import Load

    load = Load(2, 10)
    assert load.fits(Payload([Call("POST", "/", "x" * 100)]))
