"""The simulated Customer.io's filters: segments and attributes joined by and, or, not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from .customerio_exchange import app_error
from .customerio_state import CustomerIoState, Person, Segment, Thing, shown

Test: TypeAlias = Callable[[Any], bool]
_OPERATORS = ("eq", "exists")
EVERYBODY = {"and": [{"attribute": {"field": "cio_id", "operator": "exists"}}]}
"""The filter that everybody meets."""


class Search:
    """Finds people and objects by the filters of the App API."""

    def __init__(self, state: CustomerIoState) -> None:
        self._state = state

    def people(self, given: Any) -> list[Person]:
        """Find people by a filter, in the order they were made. Raises `Refusal` for a bad filter."""
        if given == EVERYBODY:
            return list(self._state.people.values())
        test = self._test(given, {"segment": self._in_segment, "attribute": self._of_person})
        return [person for person in self._state.people.values() if test(person)]

    def things(self, object_type_id: str, given: Any) -> list[Thing]:
        """Find the objects of a type by a filter. Raises `Refusal` for a bad filter."""
        test = self._test(given, {"object_attribute": self._of_thing})
        kept = [thing for thing in self._state.objects.values() if thing.object_type_id == object_type_id]
        return [thing for thing in kept if test(thing)]

    def members(self, segment: Segment) -> list[Person]:
        """Return who is in a segment, in the order they were made."""
        if segment.filter is not None:
            return self.people(segment.filter)
        return [person for key, person in self._state.people.items() if key in segment.members]

    def _test(self, given: Any, leaves: Mapping[str, Callable[[Any], Test]]) -> Test:
        if not isinstance(given, dict) or len(given) != 1:
            raise _bad(f"a filter is an object with one of and, or, not, {', '.join(leaves)}")
        ((name, content),) = given.items()
        if name in ("and", "or"):
            tests = list(self._each(content, leaves))
            return _all(tests) if name == "and" else _any(tests)
        if name == "not":
            inner = self._test(content, leaves)
            return lambda record: not inner(record)
        if name not in leaves:
            raise _bad(f"unknown filter {name}")
        return leaves[name](content)

    def _each(self, content: Any, leaves: Mapping[str, Callable[[Any], Test]]) -> Iterator[Test]:
        if not isinstance(content, list) or not content:
            raise _bad("and and or take a list")
        for part in content:
            yield self._test(part, leaves)

    def _in_segment(self, content: Any) -> Test:
        number = content.get("id") if isinstance(content, dict) else None
        segment = self._state.segments.get(number) if isinstance(number, int) else None
        if segment is None:
            raise _bad("segment not found")
        members = {person.cio_id for person in self.members(segment)}
        return lambda person: person.cio_id in members

    def _of_person(self, content: Any) -> Test:
        field, wanted = _leaf(content)

        def test(person: Person) -> bool:
            value = person.cio_id if field == "cio_id" else person.attributes.get(field)
            return _meets(value, wanted, caseless=field == "email")

        return test

    def _of_thing(self, content: Any) -> Test:
        field, wanted = _leaf(content)
        return lambda thing: _meets(thing.attributes.get(field), wanted, caseless=False)


def _leaf(content: Any) -> tuple[str, str | None]:
    """Read a leaf as (field, value that it must equal; None where it must only exist)."""
    if not isinstance(content, dict) or not isinstance(content.get("field"), str):
        raise _bad("an attribute filter has a field")
    if content.get("operator") not in _OPERATORS:
        raise _bad(f"operator must be one of {', '.join(_OPERATORS)}")
    if content["operator"] == "exists":
        return content["field"], None
    if "value" not in content:
        raise _bad("the operator eq needs a value")
    return content["field"], shown(content["value"])


def _meets(value: Any, wanted: str | None, *, caseless: bool) -> bool:
    if value is None or wanted is None:
        return value is not None
    text = shown(value)
    return text.lower() == wanted.lower() if caseless else text == wanted


def _all(tests: list[Test]) -> Test:
    return lambda record: all(test(record) for test in tests)


def _any(tests: list[Test]) -> Test:
    return lambda record: any(test(record) for test in tests)


def _bad(detail: str) -> Exception:
    return app_error(400, detail)
