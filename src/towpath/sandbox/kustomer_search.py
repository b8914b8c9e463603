"""Customer search of the simulated Kustomer: a small part of its query language, refused beyond that."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .kustomer_documents import Refusal
from .kustomer_schema import Invalid, Rule, choice, closed, listing, text
from .kustomer_state import Customer, stamp

PAGES_LIMIT = 100


def _items(kind: str, key: str) -> Callable[[Customer], list[str]]:
    return lambda customer: [item[key] for item in customer.attributes.get(kind, ())]


_FIELDS: Mapping[str, Callable[[Customer], list[str]]] = {
    "customer_id": lambda customer: [customer.id],
    "customer_name": lambda customer: [customer.attributes.get("name") or ""],
    "customer_created_at": lambda customer: [stamp(customer.created_at)],
    "customer_updated_at": lambda customer: [stamp(customer.updated_at)],
    "customer_email": _items("emails", "email"),
    "customer_phone": _items("phones", "phone"),
    "customer_external_id": _items("externalIds", "externalId"),
}
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "equals": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def _object_of(rule: Rule) -> Rule:
    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Invalid("Invalid type (expected object)", "/type")
        for inner in value.values():
            rule(inner)

    return check


def _anything(_: Any) -> None:
    """Accept what is checked where it is used."""


_CONDITIONS = listing(_object_of(_object_of(text())), 100)
_check = closed(
    {
        **dict.fromkeys(("and", "or", "not"), _CONDITIONS),
        "sort": listing(_object_of(choice("asc", "desc"))),
        "queryContext": _anything,
        "timeZone": _anything,
    }
)


def found(customers: Iterable[Customer], query: Any) -> list[Customer]:
    """Return the customers of a query, sorted. Raises `Refusal` or `Invalid` for what it does not know."""
    _check(query)
    every, some, none = (_conditions(query, key) for key in ("and", "or", "not"))
    kept = [
        customer
        for customer in customers
        if all(test(customer) for test in every)
        and (not some or any(test(customer) for test in some))
        and not any(test(customer) for test in none)
    ]
    for key, direction in reversed(_sorting(query)):
        kept.sort(key=_field(key), reverse=direction == "desc")
    return kept


def _conditions(query: Mapping[str, Any], key: str) -> list[Callable[[Customer], bool]]:
    return [
        _condition(field, name, wanted)
        for entry in query.get(key, ())
        for field, tests in entry.items()
        for name, wanted in tests.items()
    ]


def _condition(field: str, name: str, wanted: Any) -> Callable[[Customer], bool]:
    read, compare = _field(field), _OPERATORS.get(name)
    if compare is None:
        raise Refusal(400, "badparam", f"the sandbox does not search {field} by {name}", field)
    return lambda customer: any(compare(value, wanted) for value in read(customer))


def _field(name: str) -> Callable[[Customer], list[str]]:
    if name not in _FIELDS:
        raise Invalid("Additional properties not allowed", "/additionalProperties", name)
    return _FIELDS[name]


def _sorting(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [pair for entry in query.get("sort", ()) for pair in entry.items()]
