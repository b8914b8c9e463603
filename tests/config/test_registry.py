"""Kinds: found by listing the package and by entry points; a broken plug-in is an error with a name."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from towpath import registry
from towpath.config import ConfigError, load
from towpath.destination import Destination
from towpath.errors import TowpathError
from towpath.registry import Kinds
from towpath.scaffold import destination
from towpath.wiring import destination_of

from .conftest import Refuse


def plugin(name: str, value: str) -> tuple[EntryPoint, ...]:
    return (EntryPoint(name, value, "towpath.destinations"),)


def test_built_in_kinds_are_found_by_listing_the_package() -> None:
    kinds = registry.destinations()
    assert {"kustomer", "webhook"} <= set(kinds)
    assert all(issubclass(kinds[name], Destination) and kinds[name].name == name for name in kinds.built_in())
    assert registry.settings_of(registry.sources()["segment"]).model_fields.keys() >= {"write_keys", "trust"}


def test_every_setting_has_a_description() -> None:
    for kinds in (registry.destinations(), registry.sources()):
        for kind in kinds.values():
            fields = registry.settings_of(kind).model_fields
            assert [name for name, field in fields.items() if not field.description] == []


def test_listing_kinds_imports_none_of_them() -> None:
    code = (
        "from towpath import registry; list(registry.destinations()); 'webhook' in registry.destinations();"
        "print([name for name in sys.modules if name.startswith('towpath.destinations.')])"
    )
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"],
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"[]"


def test_a_third_party_kind_is_found_by_its_entry_point() -> None:
    kinds = Kinds("towpath.destinations", {"parcel": plugin("parcel", "tests.config.kinds:Parcel")})
    assert kinds["parcel"].name == "parcel"
    assert "parcel" in kinds
    assert "parcel" not in kinds.built_in()
    assert len(kinds) == len(list(kinds)) == len(kinds.built_in()) + 1


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no.such.module:X", "ModuleNotFoundError"),
        ("tests.config.kinds:NoSuch", "AttributeError"),
        ("tests.config.kinds:DESTINATIONS", "is no class"),
        ("tests.config.kinds:Pigeon", "is no class with name 'parcel'"),
    ],
)
def test_a_broken_plug_in_is_an_error_that_names_it(value: str, why: str) -> None:
    kinds = Kinds("towpath.destinations", {"parcel": plugin("parcel", value)})
    with pytest.raises(TowpathError, match=why) as caught:
        kinds["parcel"]
    assert caught.value.code == "E2113"
    assert value in caught.value.title


def test_one_name_for_two_kinds_is_an_error() -> None:
    with pytest.raises(TowpathError, match="is defined by towpath and tests"):
        Kinds("towpath.destinations", {"webhook": plugin("webhook", "tests.config.kinds:Parcel")})["webhook"]
    two = plugin("parcel", "a:B") + plugin("parcel", "c:D")
    with pytest.raises(TowpathError, match="is defined by a:B and c:D"):
        Kinds("towpath.destinations", {"parcel": two})["parcel"]


def test_a_built_in_file_without_its_class_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "odd_kinds"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "stray.py").write_text("class Stray:\n    name = 'other'\n    Settings = None\n")
    (package / "_inner.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    kinds = Kinds("odd_kinds", {})
    assert list(kinds) == ["stray"]
    with pytest.raises(TowpathError, match="has no class with name 'stray'"):
        kinds["stray"]


def test_a_broken_plug_in_is_a_problem_at_its_line(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Kinds("towpath.destinations", {"parcel": plugin("parcel", "no.such:X")})
    monkeypatch.setattr("towpath.config.loading.destinations_beside", lambda _: broken)
    problem = refused("version: 1\ndestinations:\n  tool: {type: parcel}\n").problems[0]
    assert (problem.code, problem.line) == ("E2113", 3)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A configuration with a destination of its own."""
    destination(tmp_path, "helpdesk")
    (tmp_path / "towpath.yaml").write_text(
        "version: 1\n"
        "sources: {web: {type: segment, write_keys: [wk]}}\n"
        "destinations: {desk: {type: helpdesk, token: abc}}\n"
        "connections: [{from: web, to: [desk]}]\n"
    )
    return tmp_path / "towpath.yaml"


def test_a_destination_beside_the_configuration_is_found(beside: Path) -> None:
    entry = load(beside).destinations["desk"]
    assert (entry.type, entry.settings.token.get_secret_value()) == ("helpdesk", "abc")
    assert destination_of(entry).name == "helpdesk"
    assert load(beside).destinations["desk"] == entry


def test_of_one_that_changed_nothing_older_is_kept(beside: Path) -> None:
    file = beside.parent / "destinations" / "helpdesk.py"
    for changed_ns in range(1, 6):
        os.utime(file, ns=(changed_ns, changed_ns))
        load(beside, env={})
    kept = [name for name, module in sys.modules.items() if getattr(module, "__file__", "") == str(file)]
    assert kept == ["towpath_destinations_helpdesk_5"]


def test_one_whose_file_changed_is_loaded_anew(beside: Path) -> None:
    before = load(beside).destinations["desk"]
    file = beside.parent / "destinations" / "helpdesk.py"
    file.write_text(file.read_text().replace('"/events"', '"/notes"'))
    os.utime(file, ns=(1, 1))
    after = load(beside).destinations["desk"]
    assert after != before
    assert after.kind is not before.kind


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (", "SyntaxError"),
        ("NAME = 1", "has no class with name 'helpdesk' and Settings"),
    ],
)
def test_a_broken_one_is_an_error_of_the_file(beside: Path, text: str, why: str) -> None:
    file = beside.parent / "destinations" / "helpdesk.py"
    file.write_text(text)
    os.utime(file, ns=(len(text), len(text)))
    with pytest.raises(ConfigError) as caught:
        load(beside)
    (problem,) = caught.value.problems
    assert str(file) in problem.title
    assert why in problem.title


def test_one_named_like_a_built_in_is_refused(beside: Path) -> None:
    (beside.parent / "destinations" / "webhook.py").write_text("")
    beside.write_text(
        beside.read_text().replace("type: helpdesk, token: abc", "type: webhook, url: http://a.example")
    )
    with pytest.raises(ConfigError, match="is there already"):
        load(beside)
