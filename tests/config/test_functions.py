"""Functions that the file names: found without being run, and known again when their code changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towpath.config.functions import Unfound, version
from towpath.wiring import connection_named

from .conftest import Read

FILE = """\
version: 1
sources: {{web: {{type: drum, write_keys: [a]}}}}
destinations: {{one: {{type: parcel, api_key: abc}}}}
connections:
  - {{from: web, to: one, transform: {transform}}}
"""
BODY = "raise SystemExit('nobody may run this')\n"


def test_a_function_is_found_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(BODY + "def one(message): ...\nif True:\n    def two(message): ...\n")
    (tmp_path / "pack" / "inner").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text(BODY)
    (tmp_path / "pack" / "inner" / "deep.py").write_text("from shop import one\nthree = one\n")
    for target in ("shop:one", "shop:two", "pack.inner.deep:one", "pack.inner.deep:three", "json:dumps"):
        assert version(target, tmp_path)


WRONG = [
    ("shop", '"shop" names no function'),
    ("shop:", "names no function"),
    (":one", "names no function"),
    ("shop:one()", "names no function"),
    ("../shop:one", "names no function"),
    ("shp:one", 'no Python module "shp"', 'did you mean "shop"?'),
    ("shop.deep:one", '"shop" is a module, not a package'),
    ("shop:won", 'shop has no function "won"', 'did you mean "one"?'),
    ("shop:zzzzz", 'shop has no function "zzzzz"', "define  def zzzzz(message):"),
    ("shop:later", "later is async"),
    ("broken:one", "broken.py is not Python", "see line 2"),
    ("no_such:one", 'no Python module "no_such"', "put no_such.py beside this file"),
]


@pytest.mark.spec("D24")
@pytest.mark.parametrize(("target", "said"), [(target, said) for target, *said in WRONG])
def test_what_is_not_there_says_what_to_do(tmp_path: Path, target: str, said: list[str]) -> None:
    (tmp_path / "shop.py").write_text("def one(message): ...\nasync def later(message): ...\n")
    (tmp_path / "broken.py").write_text("def one(message): ...\ndef (\n")
    with pytest.raises(Unfound) as caught:
        version(target, tmp_path)
    assert said[0] in str(caught.value)
    assert all(hint in caught.value.hint for hint in said[1:])


def test_the_state_changes_with_the_code(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    for name in ("shop.py", "pack/__init__.py", "pack/other.py"):
        (tmp_path / name).write_text("def one(message): ...\n")
    before = version("pack:one", tmp_path)
    assert version("pack:one", tmp_path) == before
    os.utime(tmp_path / "pack" / "other.py", ns=(1, 1))
    assert version("pack:one", tmp_path) != before


@pytest.mark.spec("D24")
def test_a_short_form_is_the_long_one(read: Read, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def one(message): ...\n")
    short = read(FILE.format(transform="shop:one")).connections
    long = read(FILE.format(transform='{function: "shop:one", timeout: 1s}')).connections
    assert short == long
    assert short[0].transform is not None
    assert (short[0].transform.directory, short[0].transform.timeout_s) == (tmp_path, 1.0)


@pytest.mark.spec("D09", "D24")
def test_the_file_names_the_variables_that_a_function_may_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def one(message): ...\n")
    (entry,) = read(FILE.format(transform="{function: 'shop:one', env: [SHOP_URL]}")).connections
    assert entry.transform is not None
    assert entry.transform.environment == ("SHOP_URL",)


def test_a_connection_is_found_by_its_name_or_its_destinations(tmp_path: Path) -> None:
    from towpath.config import parse

    text = """\
version: 1
sources: {web: {type: segment, write_keys: [a]}}
destinations:
  one: {type: kustomer, api_key: abc}
  two: {type: kustomer, api_key: abc}
  three: {type: kustomer, api_key: abc}
connections:
  - {from: web, to: one, filter: "true"}
  - {from: web, to: two, name: first, filter: "true"}
  - {from: web, to: two, name: second}
"""
    config = parse(text, tmp_path / "towpath.yaml", {})

    def found(name: str) -> tuple[str, bool] | None:
        made = connection_named(config, name)
        return None if made is None else (made.name, made.filter is not None)

    assert found("one") == ("one", True)
    assert (found("first"), found("second")) == (("first", True), ("second", False))
    assert (found("two"), found("three"), found("four")) == (("preview", False), ("preview", False), None)
