"""Field mapping: each step, what cannot be done, keyed hashing, and that it is pure, total and bounded."""

from __future__ import annotations

import copy
import hashlib
import hmac
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.mapping import FieldMap, Mapped, MapRule
from towpath.mapping.hashing import Hashing
from towpath.mapping.paths import FIXED
from towpath.message import Message
from towpath.outcome import Rejected, Skipped

from .values import messages

KEY = "a key of the tests, 32 characters"


def mapping(*rules: dict[str, Any]) -> FieldMap:
    made = FieldMap([MapRule.model_validate(rule) for rule in rules])
    assert list(made.mistakes) == []
    return made


def track(**properties: Any) -> Message:
    return Message(type="track", message_id="m", user_id="u1", event="Order", properties=properties)


def mapped(message: Message, *rules: dict[str, Any]) -> Mapped:
    found = mapping(*rules).apply(message)
    assert isinstance(found, Mapped)
    return found


def properties(message: Message, *rules: dict[str, Any]) -> Any:
    found = mapped(message, *rules)
    assert found.reports == []
    return found.message.properties


def test_fields_are_renamed_and_moved() -> None:
    rule = {"rename": {"properties.total": "properties.order.value", "properties.who": "traits.name"}}
    found = mapped(track(total=5, who="Ann", other=1), rule).message
    assert found.properties == {"other": 1, "order": {"value": 5}}
    assert found.traits == {"name": "Ann"}
    assert properties(track(other=1), rule) == {"other": 1}


def test_events_are_renamed() -> None:
    rule = {"rename_event": {"Order": "Purchase", "Seen": "View"}}
    assert mapped(track(), rule).message.event == "Purchase"
    assert mapped(Message(type="track", event=["Order"]), rule).message.event == ["Order"]


def test_constants_templates_and_defaults() -> None:
    rule = {
        "set": {
            "properties.kind": "shop",
            "properties.label": "{event} of {userId}: {properties.total} {{x}}",
            "properties.copy": "{properties.total}",
            "context.tags": ["{event}", {"n": 1}],
        },
        "default": {"properties.currency": "EUR", "properties.total": 0, "properties.note": "none"},
    }
    found = mapped(track(total=25.5, note=None), rule).message
    assert found.properties == {
        "total": 25.5, "note": "none", "kind": "shop", "label": "Order of u1: 25.5 {x}", "copy": 25.5,
        "currency": "EUR",
    }  # fmt: skip
    assert found.context == {"tags": ["Order", {"n": 1}]}


def test_values_are_computed() -> None:
    cents = "int(properties.total * 100.0)"
    rule = {"compute": {"properties.big": "properties.total > 100.0", "properties.cents": cents}}

    assert properties(track(total=25.5), rule) == {"total": 25.5, "big": False, "cents": 2550}


def test_fields_are_dropped_and_kept() -> None:
    message = track(a=1, b={"c": 2, "d": 3}, e=[{"f": 1, "g": 2}, 5])
    assert properties(message, {"drop": ["properties.b.c", "properties.e.*.f"]}) == {
        "a": 1, "b": {"d": 3}, "e": [{"g": 2}, 5],
    }  # fmt: skip
    assert properties(message, {"drop": "properties.*"}) == {}
    assert properties(message, {"drop": "properties"}) is None
    assert properties(message, {"keep": ["properties.b.d", "properties.a"]}) == {"a": 1, "b": {"d": 3}}
    ann = Message(type="identify", traits={"x": 1, "y": 2})
    assert mapped(ann, {"keep": "traits.x"}).message.traits == {"x": 1}


def test_keys_with_dots_are_reached() -> None:
    message = track(**{"a.b": 1})
    assert properties(message, {"rename": {'properties["a.b"]': "properties.c"}}) == {"c": 1}
    assert properties(message, {"set": {"properties['d e']": '{properties["a.b"]}'}}) == {"a.b": 1, "d e": 1}


@pytest.mark.parametrize(
    ("only", "applies"),
    [
        ({"type": "track"}, True),
        ({"type": ["page", "identify"]}, False),
        ({"event": "Order"}, True),
        ({"event": ["Seen"]}, False),
        ({"when": "properties.total > 3"}, True),
        ({"when": "properties.total > 30"}, False),
        ({"when": "properties.missing > 30"}, False),
        ({"type": "track", "event": "Order", "when": "false"}, False),
    ],
)
def test_a_rule_is_for_the_messages_it_names(only: dict[str, Any], applies: bool) -> None:
    found = properties(track(total=5), {**only, "set": {"properties.x": 1}})
    assert found == ({"total": 5, "x": 1} if applies else {"total": 5})


def test_rules_follow_one_another() -> None:
    first, second = {"rename_event": {"Order": "Purchase"}}, {"event": "Purchase", "set": {"properties.x": 1}}
    assert properties(track(), first, second) == {"x": 1}
    assert properties(track(), second, first) == {}


# -- what cannot be done -------------------------------------------------------------------------------

IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"set": {"properties.x": "{traits.name}"}}, "there is no traits.name"),
    ({"set": {"properties.total.deep": 1}}, "total in properties.total.deep is no object"),
    ({"set": {"traits": "text"}}, "traits must be an object"),
    ({"compute": {"properties.x": "properties.total + 'a'"}}, "compute properties.x"),
    ({"compute": {"properties.x": "properties.missing"}}, "properties.missing"),
    ({"hash": {"fields": "properties.o", "key": KEY}}, "a dict has no hash"),
]


@pytest.mark.parametrize(("rule", "said"), IMPOSSIBLE)
def test_what_cannot_be_done_is_left_and_reported(rule: dict[str, Any], said: str) -> None:
    found = mapped(track(total=5, o={}), rule, {"set": {"properties.after": 1}})
    assert len(found.reports) == 1
    assert found.reports[0].startswith("mapping rule 1, ")
    assert said in found.reports[0]
    assert found.message.properties["after"] == 1


@pytest.mark.parametrize(("rule", "said"), IMPOSSIBLE)
def test_or_the_message_is_skipped_or_rejected(rule: dict[str, Any], said: str) -> None:
    skipped = mapping({**rule, "on_error": "skip"}).apply(track(total=5, o={}))
    assert isinstance(skipped, Skipped)
    assert (skipped.reason, said in skipped.detail) == ("mapping", True)
    rejected = mapping({**rule, "on_error": "reject"}).apply(track(total=5, o={}))
    assert isinstance(rejected, Rejected)
    assert said in rejected.reason


@pytest.mark.parametrize("word", sorted(FIXED))
@pytest.mark.spec("D04", "D13")
def test_no_rule_says_whose_message_it_is_or_where_it_came_from(word: str) -> None:
    moved = {"rename": {"properties.a": word}}
    for rule in (moved, {"set": {word: "x"}}, {"drop": [word]}, {"compute": {word: "1"}}):
        made = FieldMap([MapRule.model_validate(rule)])

        assert [mistake.title for _, mistake in made.mistakes] == [f"no rule changes {word}"]


# -- hashing -------------------------------------------------------------------------------------------


def expected(text: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def test_hashes_are_stable() -> None:
    """Test case 2 of RFC 4231, and `printf ann@example.com | openssl dgst -sha256 -hmac "$KEY"`."""
    published = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert Hashing("Jefe", normalize=False).of("what do ya want for nothing?") == published
    made = properties(track(a=" Ann@Example.COM "), {"hash": {"fields": "properties.a", "key": KEY}})
    assert made == {"a": "7b5e4f5d3c77320b7e2a6ea6d6769b2794def70023d039db3bedb15f961ca9f0"}


def test_hashes_are_of_the_normalised_value_and_of_each_item() -> None:
    rule = {"hash": {"fields": ["properties.email", "traits.*", "userId"], "key": KEY}}
    message = Message(
        type="identify",
        user_id="U1",
        properties={"email": [" A@B.c", "d"]},
        traits={"n": 5, "b": True, "z": None, "e": ""},
    )
    found = mapped(message, rule).message
    assert found.properties == {"email": [expected("a@b.c"), expected("d")]}
    assert found.traits == {"n": expected("5"), "b": expected("true"), "z": None, "e": ""}
    assert found.user_id == expected("u1")


@pytest.mark.spec("D08")
def test_what_has_no_hash_is_never_sent_as_it_is() -> None:
    rule = {"hash": {"fields": ["properties.p", "properties.l"], "key": KEY}}
    found = mapped(track(p={"email": "a@b.c"}, l=[["x"]]), rule)

    assert found.message.properties == {}
    assert len(found.reports) == 2


@pytest.mark.spec("D08")
@pytest.mark.parametrize("address", ["Main St 5", ["Main St 5"], 5])
def test_of_what_has_no_fields_nothing_is_kept(address: Any) -> None:
    found = mapped(track(address=address, n=1), {"keep": ["properties.address.city"]})
    assert found.message.properties == {"n": 1}
    assert "has no fields; it is taken away" in found.reports[0]
    whole = msgspec.structs.replace(track(), properties=address)
    assert mapped(whole, {"keep": ["properties.city"]}).message.properties is None
    assert properties(track(address=None), {"keep": ["properties.address.city"]}) == {"address": None}


@pytest.mark.spec("D08")
def test_the_key_is_in_no_repr() -> None:
    rule = MapRule.model_validate({"hash": {"fields": "userId", "key": KEY}})
    assert KEY not in repr(rule) + str(rule)


# -- pure, total, bounded ------------------------------------------------------------------------------

STEPS: list[dict[str, Any]] = [
    {"rename": {"properties.a": "properties.b", "properties.email": "traits.email", "traits.a": "context.x"}},
    {"rename": {"name": "event", "event": "properties.event", "category": "properties"}},
    {"rename_event": {"Order": "Purchase"}},
    {"set": {"properties.t": "{userId} {properties.a} {event}", "context": "{properties}"}},
    {"set": {"properties.a.b": "{traits}", "groupId": "{properties.b}", "name": {"a": "{name}"}}},
    {"set": {"properties": "{context}", "integrations": "{properties.a}"}},
    {"default": {"properties.a": {"n": ["{event}"]}, "timestamp": "{properties.a}", "groupId": 5}},
    {"compute": {"properties.c": "properties.a", "traits.d": "size(properties.email)"}},
    {"compute": {"context.x": "properties", "properties.m": "traits.map(k, k)"}},
    {"compute": {"event": "event + string(properties.a)"}},
    {"hash": {"fields": ["properties.email", "traits.*", "userId", "properties.*.*", "event"], "key": KEY}},
    {"drop": ["properties.a", "traits.*", "context.*.a", "event", "integrations"]},
    {"keep": ["properties.a", "properties.b.c", "traits.email", "context.a.b.c"]},
    {"when": "properties.a == traits.a", "type": ["track", "identify"], "set": {"properties.x": 1}},
]
ACTIONS = st.sampled_from(["keep", "skip", "reject"])


@given(messages(), st.lists(st.tuples(st.sampled_from(STEPS), ACTIONS), max_size=6))
def test_it_never_raises_never_changes_what_it_is_given_and_repeats_itself(
    message: Message, chosen: list[tuple[dict[str, Any], str]]
) -> None:
    made = mapping(*({**rule, "on_error": action} for rule, action in chosen))
    before = copy.deepcopy(message)
    first = made.apply(message)
    assert msgspec.json.encode(message) == msgspec.json.encode(before)
    assert made.apply(before) == first
    if isinstance(first, Mapped):
        sent = first.message
        assert (sent.type, sent.message_id) == (message.type, message.message_id)
        assert sent.received_at == message.received_at

        assert type(sent.traits) is dict
        assert type(sent.context) is dict
        assert sent.group_id is None or type(sent.group_id) is str
        msgspec.json.encode(sent)  # no object is inside itself


def test_what_rules_add_is_bounded() -> None:
    doubling = {"set": {f"properties.x{number}": "{properties}" for number in range(100)}}
    found = mapped(track(a=1), *[doubling] * 20)
    assert len(msgspec.json.encode(found.message)) < 4 * 1024 * 1024
    assert any("too large" in report for report in found.reports)
    assert len(found.reports) <= 20
    longer = mapped(track(a="x" * 60_000), {"set": {"properties.b": "{properties.a}{properties.a}"}})
    assert "longer than" in longer.reports[0]


FULL: dict[str, Any] = {"set": {"properties.big": "{context}", "properties.more": "{context}"}}
"""Its second step has no room in a message of `full()`."""


def full(**properties: Any) -> Message:
    held = msgspec.structs.replace(track(**properties), context={"l": list(range(70_000))})
    (report,) = mapped(held, FULL).reports
    assert "set properties.more: the message would become too large" in report
    return held


@pytest.mark.spec("D08")
@pytest.mark.parametrize("on_error", ["keep", "skip"])
def test_what_takes_personal_data_away_needs_no_room(on_error: str) -> None:
    """It was passed over once a step before had filled the message, and the e-mail left as it was."""
    message = full(email="a@b.c", ip="10.0.0.1", inner={"phone": "1", "n": 2}, s=["p"])
    hashing = {"hash": {"fields": ["properties.email", "properties.s", "userId"], "key": KEY}}
    keeping = {"keep": ["properties.inner.n", "properties.email", "properties.s"]}
    found = mapped(message, FULL, {"on_error": on_error, **hashing, **keeping})
    assert found.message.properties == {
        "email": expected("a@b.c"), "s": [expected("p")], "inner": {"n": 2},
    }  # fmt: skip
    assert found.message.user_id == expected("u1")
    found = mapped(message, FULL, {"on_error": on_error, "drop": ["properties.ip", "properties.inner.phone"]})
    assert {"email", "inner", "big", "s"} == set(found.message.properties)
    assert found.message.properties["inner"] == {"n": 2}
    assert len(found.reports) == 1


def test_a_step_that_fails_takes_up_no_room() -> None:
    texts = {f"properties.t{number}": "x" * 60_000 for number in range(10)}
    found = mapped(full(), FULL, {"set": texts})
    assert sum(key.startswith("t") for key in found.message.properties) == 8  # 1 MiB - 8 × 70,000, by 60,008
    assert len(found.reports) == 1 + 2
    fails = {"set": {f"properties.n.{number}": "x" * 60_000 for number in range(30)}}
    assert mapped(track(n=1), fails, {"set": texts}).message.properties["t9"] == "x" * 60_000


@pytest.mark.spec("D08")
@pytest.mark.parametrize("on_error", ["keep", "skip", "reject"])
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"hash": {"fields": "integrations", "key": KEY}}, "hash integrations: integrations must be"),
        ({"when": "properties.email > 5", "drop": "properties.email"}, "when failed"),
        (
            {"when": "properties.vip || properties.l.exists(x, x > 0)", "drop": "properties.email"},
            "longer than 5,000 items",
        ),
        ({"when": "properties.l.exists(x, x > 0)", "keep": "properties.l"}, "longer than 5,000 items"),
    ],
)
def test_what_would_leave_unprotected_is_rejected(rule: dict[str, Any], said: str, on_error: str) -> None:
    message = msgspec.structs.replace(track(email="a@b.c", l=[0] * 6_000), integrations=True)
    found = mapping({**rule, "on_error": on_error}).apply(message)
    assert isinstance(found, Rejected)
    assert said in found.reason
    assert "a@b.c" not in found.reason


@pytest.mark.parametrize(
    ("rename", "made"),
    [
        ({"properties.n": "properties.n"}, {"n": {"b": 1, "c": 2}}),
        ({"properties.n.b": "properties['n']['b']"}, {"n": {"b": 1, "c": 2}}),
        ({"properties.n": "properties.n.b"}, {"n": {"b": {"b": 1, "c": 2}}}),
        ({"properties.n": "properties.n.old.whole"}, {"n": {"old": {"whole": {"b": 1, "c": 2}}}}),
        ({"properties": "properties.all"}, {"all": {"n": {"b": 1, "c": 2}}}),
        ({"properties.n.c": "properties.n"}, {"n": 2}),
        ({"properties.n": "properties"}, {"b": 1, "c": 2}),
        ({"properties.n": "properties.m", "properties.m.b": "properties.n"}, {"m": {"c": 2}, "n": 1}),
    ],
)
def test_a_value_may_move_into_itself_and_out_of_what_holds_it(rename: dict[str, str], made: Any) -> None:
    message = track(n={"b": 1, "c": 2})
    assert properties(message, {"rename": rename}) == made
    assert message.properties == {"n": {"b": 1, "c": 2}}


def test_a_value_that_holds_a_key_of_its_own_name_keeps_it() -> None:
    outward = {"rename": {"properties.n.n": "properties.n"}}
    assert properties(track(n={"n": {"n": 1, "m": 2}}), outward) == {"n": {"n": 1, "m": 2}}
    found = mapped(Message(type="identify", traits={"a": 1}), {"rename": {"traits.a": "traits"}})
    assert (found.message.traits, len(found.reports)) == ({"a": 1}, 1)


def test_a_copy_shares_nothing_that_a_later_rule_changes() -> None:
    message = track(a={"b": 1})
    copied = {"set": {"properties.c": "{properties.a}"}}
    assert properties(message, copied, {"set": {"properties.c.b": 2}}) == {"a": {"b": 1}, "c": {"b": 2}}
    first = {"set": {"properties.a.x": 1}}
    assert properties(message, first, copied, {"set": {"properties.a.x": 2}})["c"] == {"b": 1, "x": 1}
    assert message.properties == {"a": {"b": 1}}


@pytest.mark.spec("D10")
def test_no_rule_skips_the_deletion_of_a_person() -> None:
    gone = Message(type="delete", message_id="m", user_id="u1", trust="server")
    rule = {"set": {"properties.user": "{traits.id}"}, "on_error": "skip"}
    found = mapped(gone, rule)
    assert found.message.user_id == "u1"
    assert "there is no traits.id" in found.reports[0]
    assert isinstance(mapping(rule).apply(track()), Skipped)
    assert isinstance(mapping({**rule, "on_error": "reject"}).apply(gone), Rejected)
