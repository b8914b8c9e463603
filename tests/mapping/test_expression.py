"""CEL over a message: what it sees, what counts as false, what is refused when the file is read."""

from __future__ import annotations

import copy
import logging
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.mapping import BadExpression, Expression, Filter
from towpath.mapping.expression import Failure, words
from towpath.mapping.paths import Draft
from towpath.message import Message

from .values import messages

ORDER = Message(
    type="track",
    message_id="m1",
    user_id="u1",
    event="Order Completed",
    properties={
        "total": 25.5, "a b": 1, "none": None, "items": [{"sku": "x", "price": 3}], "email": " Ann@B.c ",
        "event": 5,
    },
    context={"ip": "10.0.0.1", "locale": "de-DE"},
    timestamp="2026-03-01T10:00:00Z",
    source="web",
    trust="server",
    received_at=1_767_225_600.0,
)  # fmt: skip

HOLDS = [
    'type == "track" && event == "Order Completed"',
    "properties.total > 25.0",
    "properties.total > 25",
    'properties["a b"] == 1',
    "properties.event == 5",
    "properties.none == null",
    "has(properties.none)",
    "!has(properties.missing)",
    "!has(properties.missing.deeper)",
    "anonymousId == null && groupId == null",
    'userId in ["u1", "u2"]',
    '"total" in properties',
    'properties.items.exists(item, item.sku == "x")',
    "properties.items[0].price == 3",
    "properties.items.map(each, each.price).all(price, price < 5)",
    "size(properties.items) == 1",
    'properties.email.trim().lowerAscii() == "ann@b.c"',
    'event.matches("^Order")',
    'event.startsWith("Order") || properties.missing == 1',
    "properties.missing == 1 || true",
    'source == "web" && trust == "server"',
    'timestamp(timestamp) == timestamp("2026-03-01T10:00:00Z")',
    "timestamp(receivedAt).getFullYear() == 2026",
    "math.abs(-3) == 3",
    "context.locale.startsWith('de')",
    "type(properties.total) == double",
]


@pytest.mark.parametrize("text", HOLDS)
def test_it_sees_the_whole_message(text: str) -> None:
    assert Expression(text).holds(Draft(ORDER))
    assert Filter(text).verdict(ORDER) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('type == "page"', "the filter is false"),
        ("properties.plan == 'pro'", "asks for properties.plan, which is not there"),
        ("!(properties.plan == 'free')", "asks for properties.plan"),
        ("properties.items[7].sku == 'x'", "counts as false"),
        ("event > 5", "counts as false"),
        ("properties.total", "counts as false: it gives float, not true or false"),
        ("int(event) == 1", "counts as false"),
        ("event.matches(properties.email + '(')", "counts as false"),
        ("flatten(properties.total) == []", "counts as false"),
    ],
)
@pytest.mark.spec("D05")
def test_what_is_missing_or_fails_is_false_and_says_so(text: str, said: str) -> None:
    verdict = Filter(text).verdict(ORDER)
    assert verdict is not None
    assert verdict.reason == "filtered"
    assert said in verdict.detail


REFUSED = [
    ("event ==", 8, "it is not CEL"),
    ('event = "x"', 6, "it is not CEL"),
    ("", 0, "it is not CEL"),
    ("propertis.total == 1", 0, 'no message has "propertis"'),
    ('1 == 1 && user_id == "x"', 10, 'no message has "user_id"'),
    ("event.lower() == 'x'", 6, 'no function "lower"'),
    ("math.abz(1) == 1", 0, 'no function "math.abz"'),
    ("[1].map(x, [1].map(y, x + y)) == []", 15, "inside another comprehension"),
    ("[1].all(x, (([1].filter(y, y > x)))) ", 17, "inside another comprehension"),
    ("[1].exists(event, event == 1)", 11, '"event" is a field of the message'),
    ('event.matches("(")', 14, "is no regular expression"),
    ("1" * 5000, 0, "at most 4,096 characters"),
    ("lists.range(1000000000) == []", 0, "lists"),
]


@pytest.mark.parametrize(("text", "column", "said"), REFUSED)
def test_what_cannot_be_used_is_refused_at_its_column(text: str, column: int, said: str) -> None:
    with pytest.raises(BadExpression) as caught:
        Expression(text)
    assert caught.value.column == column
    assert said in str(caught.value)


def test_one_comprehension_after_another_is_not_inside_it() -> None:
    expression = Expression("properties.items.map(x, x.price).filter(y, y > 1) == [3]")
    assert expression.holds(Draft(ORDER))


@pytest.mark.spec("D08")
def test_nothing_of_a_message_is_logged_when_a_function_fails(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(Failure):
        Expression("properties.email.charAt(99) == 'x'").value(Draft(ORDER))
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("properties.items", [{"sku": "x", "price": 3}]),
        ("{'a': [properties.total, null]}", {"a": [25.5, None]}),
        ("timestamp('2026-01-01T00:00:00Z')", "2026-01-01T00:00:00.000Z"),
        ("duration('90s')", 90.0),
        ("properties.total * 2.0", 51.0),
    ],
)
def test_a_value_is_jsons(text: str, value: object) -> None:
    assert Expression(text).value(Draft(ORDER)) == value


@pytest.mark.parametrize("text", ["b'abc'", "1.0 / 0.0", "{1: 2}"])
def test_what_json_cannot_hold_is_a_failure(text: str) -> None:
    with pytest.raises(Failure):
        Expression(text).value(Draft(ORDER))


def test_the_functions_are_named() -> None:
    assert {"matches", "lowerAscii", "math.abs", "has"} <= set(words())
    assert "lists.range" not in words()


ANY = [Filter(text) for text in HOLDS] + [
    Filter(text)
    for text in (
        "properties.a > 1",
        "properties.a.b.email == traits.a",
        "traits.exists(k, k == 'a')",
        "size(properties) > size(context)",
        "string(properties.a) == 'a'",
        "properties == context",
        "double(properties.b) < 1.0 && event.contains('a')",
    )
]


@given(messages(), st.sampled_from(ANY))
def test_it_answers_for_any_message_alike_and_changes_nothing(message: Message, chosen: Filter) -> None:
    before = copy.deepcopy(message)
    first = chosen.verdict(message)
    assert chosen.verdict(message) == first
    assert msgspec.json.encode(message) == msgspec.json.encode(before)


@given(st.text(alphabet="eventproperties.()[]&|=!<>\"' 1,xhasmap{}:?+-*/%\\\n", max_size=40))
def test_any_text_is_taken_or_refused(text: str) -> None:
    column = 0
    with suppress(Failure):
        try:
            Expression(text).value(Draft(ORDER))
        except BadExpression as error:
            column = error.column
    assert 0 <= column <= len(text)
