"""Templates: what stands where a message has nothing, and what messages bring is never a template."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.mapping.paths import BadPath, Draft, Unusable
from towpath.mapping.template import Template
from towpath.message import Message


def filled(template: Any, **traits: Any) -> Any:
    return Template(template).fill(Draft(Message(type="identify", traits=traits)))


@pytest.mark.parametrize(
    ("template", "traits", "expected"),
    [
        ("Hi {traits.name|there}!", {"name": "Ann"}, "Hi Ann!"),
        ("Hi {traits.name|there}!", {}, "Hi there!"),
        ("Hi {traits.name|there}!", {"name": None}, "Hi there!"),
        ("Hi {traits.name|there}!", {"name": ""}, "Hi there!"),
        ("Hi{traits.name|}!", {}, "Hi!"),
        ("{traits.name|}", {}, ""),
        ("{ traits.name | you }", {}, " you "),
        ("{traits.name|a|b}", {}, "a|b"),
        ('{traits.name|it\'s "you"}', {}, 'it\'s "you"'),
        ('{traits["a|b"]|none}', {"a|b": 1}, 1),
        ('{traits["a|b"]|none}', {}, "none"),
        ("{traits['a|b']}", {"a|b": "c"}, "c"),
        ("{{{traits.name|there}}}", {}, "{there}"),
        ("{traits.n|0}", {"n": 5}, 5),
        ("{traits.n|0}", {"n": False}, False),
        ("{traits.n|0}", {"n": [1]}, [1]),
        ("{traits.n|0}", {}, "0"),
        ("{traits.n|0} in all", {"n": 0}, "0 in all"),
        (["{traits.a|x}", {"k": "{traits.b|y}"}], {"b": 2}, ["x", {"k": 2}]),
    ],
)
@pytest.mark.spec("P051")
def test_a_default_stands_where_there_is_nothing(template: Any, traits: Any, expected: Any) -> None:
    found = filled(template, **traits)
    assert found == expected
    assert type(found) is type(expected)


def test_without_a_default_empty_text_is_what_is_there() -> None:
    assert filled("[{traits.name}]", name="") == "[]"
    with pytest.raises(Unusable, match=r"there is no traits\.name"):
        filled("[{traits.name}]")


@pytest.mark.parametrize(
    "wrong", ["{|there}", "{traits.|x}", "{nothing.a|x}", '{traits["a|b}', "{traits.a|{}"]
)
def test_a_default_makes_no_path_of_what_is_none(wrong: str) -> None:
    with pytest.raises(BadPath):
        Template(wrong)


@pytest.mark.parametrize("value", ["{traits.secret}", "{{", "}", "{traits.a|b}", "\ud800", "\x00"])
@pytest.mark.spec("P051")
def test_what_a_message_brings_is_never_read_as_a_template(value: str) -> None:
    assert filled("<{traits.name|x}>", name=value, secret="s3cret") == f"<{value}>"
    assert filled("{traits.name|x}", name=value, secret="s3cret") == value


def test_paths_are_listed_wherever_they_stand() -> None:
    made = Template({"a": ["{traits.x|1} {event}"], "b": {"c": "{properties.y}"}, "d": 5, "e": "{{f}}"})
    assert [path.text for path in made.paths] == ["traits.x", "event", "properties.y"]
    assert Template("plain {{braces}}").paths == ()


def test_values_among_text_are_written_as_told() -> None:
    draft = Draft(Message(type="track", traits={"a": "b c"}))
    made = Template(["{traits.a}", "x={traits.a}"], written=lambda value: value.replace(" ", "+"))
    assert made.fill(draft) == ["b c", "x=b+c"]
