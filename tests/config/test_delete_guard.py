"""`delete_guard` in the file and on a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from towpath.config import parse, schema
from towpath.connection import DeleteLimit

from .validator import faults

FILE = """
version: 1
sources:
  web: {type: segment, write_keys: [k]}
destinations:
  one: {type: kustomer, api_key: a}
  two: {type: kustomer, api_key: b}
connections:
  - {from: web, to: one%s}
  - {from: web, to: two}
%s
"""


def limits(own: str = "", file: str = "") -> tuple[DeleteLimit | None, DeleteLimit | None]:
    """What holds for the connection with the guard of its own, and for the other one."""
    text = FILE % (f", delete_guard: {own}" if own else "", f"delete_guard: {file}" if file else "")
    one, two = parse(text, Path("towpath.yaml"), {}).connections
    return one.delete_limit, two.delete_limit


@pytest.mark.spec("D14")
def test_it_is_on_unless_it_is_switched_off() -> None:
    default = DeleteLimit(0.2, 1000, 3600.0)
    assert limits() == (default, default)
    assert limits(own="off") == (None, default)
    assert limits(file="off") == (None, None)
    assert limits(own="false", file="{count: 5}") == (None, DeleteLimit(0.2, 5, 3600.0))


@pytest.mark.spec("D14")
def test_a_connection_has_its_own_instead_of_the_files() -> None:
    own, other = limits(own="{share: 12.5%, within: 1d}", file="{count: 7}")
    assert own == DeleteLimit(0.125, 1000, 86400.0)
    assert other == DeleteLimit(0.2, 7, 3600.0)
    assert limits(own="{}", file="off") == (DeleteLimit(), None)


@pytest.mark.parametrize(
    ("guard", "right"),
    [("off", True), (False, True), ({"share": "5%"}, True), ("on", False), ({"share": "often"}, False)],
)
def test_editors_know_it(guard: Any, right: bool) -> None:
    whole = schema()
    connections = [{"from": "web", "to": "one", "delete_guard": guard}]
    for file in ({"delete_guard": guard}, {"connections": connections}):
        assert (faults(whole, {"version": 1, **file}, whole) == []) is right
