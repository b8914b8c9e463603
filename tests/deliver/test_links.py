"""Who is who (E026, D13, D15): links join lanes by position, wherever their deliveries are."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from towpath.destination import Check
from towpath.identity import Identity, Links, Place
from towpath.message import Message, Trust
from towpath.outcome import Paused
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK, Stage


async def history(s: Stage) -> None:
    """Two anonymous events, one of the user, the link, one more."""
    await s.send("a1", "a2", person=None, anonymousId="x")
    await s.send("u1", person="ann")
    await s.identify("link", "ann", "x")
    await s.send("a3", person=None, anonymousId="x")
    await s.send("u2", person="ann")


def assert_joined(order: list[str]) -> None:
    first = {name: order.index(name) for name in ("a1", "a2", "u1", "link", "a3", "u2")}
    assert first["a1"] < first["a2"] < first["link"] < first["a3"] < first["u2"]
    assert first["u1"] < first["link"]


@pytest.mark.spec("E026", "D04")
@virtual
async def test_a_link_joins_what_is_ready(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    await history(s)
    await s.start()
    await s.drained()
    assert_joined(s.vendor.order())
    await s.stop()


@pytest.mark.spec("E026", "D04")
@virtual
async def test_a_link_joins_what_is_on_the_way(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda m: {"a1": 30.0, "u1": 10.0}.get(m.message_id, 1.0)
    await s.start()
    await history(s)
    await s.drained()
    assert_joined(s.vendor.order())
    ended = {name: at for at, name in s.vendor.ended}
    assert s.vendor.attempts("link")[0] >= max(ended["a2"], ended["u1"])
    await s.stop()


@pytest.mark.spec("E026", "D04")
@pytest.mark.parametrize("failing", ["a1", "u1"])
@pytest.mark.parametrize("pause_s", [1, 8, 100])
def test_a_link_joins_what_is_held_or_parked(stage: MakeStage, failing: str, pause_s: int) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.answer = lambda m: DOWN if m.message_id == failing and s.clock.monotonic() < 200 else OK
        await s.start()
        await s.send("a1", "a2", person=None, anonymousId="x")
        await s.send("u1", person="ann")
        await s.pass_s(pause_s)
        tried = len(s.vendor.attempts(failing))
        await s.identify("link", "ann", "x")
        await s.send("a3", person=None, anonymousId="x")
        await s.send("u2", person="ann")
        await s.pass_s(1)
        assert len(s.vendor.attempts(failing)) == tried  # a link is no reason to try earlier
        await s.drained()
        assert_joined(s.vendor.order())
        await s.stop()

    run()


@pytest.mark.spec("E026", "D04")
@virtual
async def test_a_link_joins_what_is_blocked(stage: MakeStage) -> None:
    s = stage()
    s.vendor.capability = lambda m: "events" if m.message_id == "a1" else "more"
    bad = [True]
    s.vendor.answer = lambda m: Paused("401", 401) if bad and m.message_id == "a1" else OK
    s.vendor.checks = lambda: [Check("events", ok=not bad, capability="events")]
    await s.start()
    await s.send("a1", "a2", person=None, anonymousId="x")
    await s.pass_s(5)
    await s.send("u1", person="ann")
    await s.pass_s(5)
    await s.identify("link", "ann", "x")
    await s.send("a3", person=None, anonymousId="x")
    await s.send("u2", person="ann")
    await s.pass_s(30)
    assert s.vendor.order() == ["a1", "u1"]
    bad.clear()
    await s.drained()
    assert_joined(s.vendor.order())
    await s.stop()


@pytest.mark.spec("E026")
@virtual
async def test_a_link_joins_rows_and_memory_over_a_crash(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if m.message_id == "a1" and s.clock.monotonic() < 3000 else OK
    s.vendor.delay_s = lambda m: 500.0 if m.message_id == "u1" else 0.1
    await s.start()
    await s.send("a1", "a2", person=None, anonymousId="x")
    await s.pass_s(60)
    await s.send("u1", person="ann")
    await s.identify("link", "ann", "x")
    await s.send("a3", person=None, anonymousId="x")
    await s.send("u2", person="ann")
    await s.pass_s(60)
    await s.crash()
    s.vendor.started.clear()
    await s.start()
    await s.drained()
    assert_joined(s.vendor.order())
    ended = {name: at for at, name in s.vendor.ended}
    assert s.vendor.attempts("link")[0] >= ended["u1"]
    await s.stop()


@pytest.mark.spec("E026")
@virtual
async def test_a_link_seen_by_another_source_counts_too(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 5.0
    await s.start()
    await s.send("a1", person=None, anonymousId="x")
    await s.append(
        {"type": "identify", "messageId": "elsewhere", "userId": "ann", "anonymousId": "x"}, source="app"
    )
    await s.send("u1", person="ann")
    await s.drained()
    assert s.vendor.attempts("u1")[0] >= 5
    assert s.vendor.order() == ["a1", "u1"]
    await s.stop()


@pytest.mark.spec("D13")
@virtual
async def test_a_phone_that_changes_hands_does_not_join_two_users(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if m.message_id == "ann1" else OK
    await s.start()
    await s.identify("i1", "ann", "phone")
    await s.send("ann1", person="ann")
    await s.identify("i2", "bob", "phone")
    await s.send("bob1", person="bob")
    await s.send("anonymous", person=None, anonymousId="phone")
    await s.send("ann2", person="ann")
    await s.pass_s(60)
    assert s.vendor.attempts("bob1")
    assert s.vendor.attempts("anonymous")
    assert not s.vendor.attempts("ann2")
    await s.stop()


def message(kind: str, user: str | None, anonymous: str | None = None, **more: object) -> Message:
    return Message(type=kind, user_id=user, anonymous_id=anonymous, **more)  # type: ignore[arg-type]


@pytest.mark.spec("D15")
@pytest.mark.parametrize(
    "junk",
    ["undefined", "null", "0", "Anonymous", "00000000-0000-0000-0000-000000000000", " NULL ", "nobody"],
)
def test_junk_ids_never_link(stage: MakeStage, junk: str) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        await s.open()
        identity = Identity(s.store, junk=["Nobody"])
        for position, (user, anonymous) in enumerate([(junk, "x"), ("ann", junk)], 1):
            place = await identity.place(message("identify", user, anonymous), position)
            assert place.merges == []
            assert "no link was made" in place.refused
        assert await identity.resolve("a:x", 9) == "a:x"
        await s.close()

    run()


@pytest.mark.spec("D15")
@virtual
async def test_links_per_person_are_capped_and_the_refusal_is_reported(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    identity = Identity(s.store, links_max=3)
    places = [await identity.place(message("identify", "ann", f"x{n}"), n + 1) for n in range(5)]
    assert [bool(place.merges) for place in places] == [True, True, True, False, False]
    assert "already has 3 linked ids" in places[3].refused
    assert await identity.resolve("a:x4", 10) == "a:x4"
    again = Identity(s.store, links_max=3)
    assert [await again.place(message("identify", "ann", f"x{n}"), n + 1) for n in range(5)] == places
    await s.close()


@pytest.mark.spec("D15")
@virtual
async def test_ids_of_one_person_are_capped_through_all_links(stage: MakeStage) -> None:
    s = stage()
    await s.open()

    async def places() -> list[Place]:
        identity = Identity(s.store, identifiers_max=4)
        calls = [message("identify", "old", f"x{n}") for n in range(3)]
        calls += [
            message("identify", "new", "y"),
            message("alias", "new", None, previous_id="old", trust="server"),
        ]
        calls += [message("identify", "old", "z"), message("identify", "new", "z")]
        return [await identity.place(call, n + 1) for n, call in enumerate(calls)]

    first = await places()
    assert [bool(place.merges) for place in first] == [True, True, True, True, True, False, True]
    assert first[4].merges == [("a:old", "u:new")]
    assert "would have over 4 ids" in first[4].refused
    assert "would have over 4 ids" in first[5].refused
    assert await places() == first
    await s.close()


@pytest.mark.spec("D13", "E026")
@pytest.mark.parametrize(
    ("trust", "previous", "joined"),
    [("server", "old", True), ("client", "old", False), ("client", "x", False), ("server", "x", True)],
)
def test_only_a_server_joins_two_users(stage: MakeStage, trust: Trust, previous: str, joined: bool) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        await s.open()
        identity = Identity(s.store)
        await identity.place(message("alias", "ann", "x", previous_id=previous, trust=trust), 5)
        assert (await identity.resolve(f"u:{previous}", 5) == "u:ann") is joined
        own = previous == "x" or trust == "server"
        assert (await identity.resolve(f"a:{previous}", 5) == "u:ann") is own
        await s.close()

    run()


@pytest.mark.spec("E026")
@virtual
async def test_a_slow_and_a_fast_connection_see_the_same_persons(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    log = [
        message("track", None, "x"),
        message("identify", "ann", "x"),
        message("track", None, "x"),
        message("identify", "bob", "x"),
        message("track", None, "x"),
        message("alias", "ann", previous_id="bob", trust="server"),
        message("track", "bob"),
        message("alias", "bob", previous_id="ann", trust="server"),
        message("track", None, "x"),
    ]
    fast = Identity(s.store)
    first = [await fast.place(found, position) for position, found in enumerate(log, 1)]
    assert [place.person for place in first] == [
        *("a:x", "u:ann", "u:ann", "u:bob", "u:bob"),
        *("u:ann", "u:ann", "u:ann", "u:ann"),
    ]
    for identity in (fast, Identity(s.store)):
        assert [await identity.place(found, position) for position, found in enumerate(log, 1)] == first
    await s.close()


@pytest.mark.spec("D13")
@virtual
async def test_what_a_client_may_not_do_is_skipped_as_untrusted(stage: MakeStage) -> None:
    s = stage()
    await s.start()
    base = {"userId": "ann", "anonymousId": "x"}
    await s.append({"type": "delete", "messageId": "d", **base}, trust="client")
    await s.append({"type": "alias", "messageId": "a", "previousId": "bob", **base}, trust="client")
    await s.append({"type": "alias", "messageId": "own", "previousId": "x", **base}, trust="client")
    await s.append({"type": "delete", "messageId": "ds", **base}, trust="server")
    await s.drained()
    assert (await s.balance()).skipped == {"untrusted": 2}
    assert s.vendor.order() == ["own", "ds"]
    await s.stop()


@pytest.mark.spec("E025")
@pytest.mark.parametrize(
    ("switch", "sent"),
    [
        ({"All": False, "Vendor": True}, True),
        ({"All": False, "VENDOR": {"list": 1}}, True),
        ({"All": False}, False),
        ({"vendor": False}, False),
        ({"Other": False}, True),
        (False, False),
        (True, True),
        (None, True),
    ],
)
def test_integrations_select_destinations_by_name(stage: MakeStage, switch: object, sent: bool) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        await s.start()
        await s.send("m", integrations=switch)
        await s.drained()
        assert (await s.balance()).skipped == ({} if sent else {"filtered": 1})
        assert len(s.vendor.started) == sent
        await s.stop()

    run()


@pytest.mark.spec("D05")
@virtual
async def test_what_a_connection_does_not_take_is_skipped_as_filtered(stage: MakeStage) -> None:
    s = stage(only=frozenset({"track"}), events=frozenset({"Seen"}))
    await s.start()
    await s.send("seen")
    await s.send("other", event="Other")
    await s.identify("i", "ann")
    await s.drained()
    assert (await s.balance()).skipped == {"filtered": 2}
    assert s.vendor.order() == ["seen"]
    await s.stop()


@pytest.mark.spec("E026")
@virtual
async def test_a_stretch_of_the_log_asks_for_all_its_ids_at_once(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    await s.identify("link", "p3", "x3")
    for n in range(300):
        await s.send(f"m{n}", person=f"p{n}" if n % 2 else None, anonymousId=f"x{n}")
    await s.send("linked", person=None, anonymousId="x3")
    links_of, asked = s.store.links_of, list[int]()

    async def many(identifiers: Collection[str]) -> Mapping[str, Links]:
        asked.append(len(identifiers))
        return await links_of(identifiers)

    async def one(identifier: str) -> Links:
        raise AssertionError(f"{identifier} was asked for alone")

    s.store.links_of = many  # type: ignore[method-assign]
    s.store.links = one  # type: ignore[method-assign]
    await s.start()
    await s.until(lambda: len(s.vendor.started) == 302)
    assert (sum(asked), len(asked)) == (302, 2)  # p3's and x3's with the others of their stretch
    await s.stop()


@pytest.mark.spec("E026")
@virtual
async def test_looking_up_ahead_changes_no_answer(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    log = [
        message("identify", "ann", "x"),
        message("track", None, "x"),
        message("alias", "bob", previous_id="ann", trust="server"),
        message("track", None, "x"),
        message("track", "ann"),
        *(message("track", f"other{n}") for n in range(600)),
    ]
    first = [await Identity(s.store).place(found, position) for position, found in enumerate(log, 1)]
    again = Identity(s.store)
    await again.look_up(log)
    assert [await again.place(found, position) for position, found in enumerate(log, 1)] == first
    assert first[3].person == "u:bob"
    await s.close()


@pytest.mark.spec("E026")
@virtual
async def test_a_link_made_while_ids_are_looked_up_holds(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    identity, links_of = Identity(s.store), s.store.links_of

    async def slow(identifiers: Collection[str]) -> Mapping[str, Links]:
        found = await links_of(identifiers)
        await identity.place(message("identify", "ann", "x"), 1)
        return found

    s.store.links_of = slow  # type: ignore[method-assign]
    await identity.look_up([message("track", None, "x")])
    assert await identity.resolve("a:x", 2) == "u:ann"
    await s.close()
