"""The JSON Schema, the reference page, the examples and the templates say what the loader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from towpath.config import ConfigError, load, reference, schema
from towpath.errors import TowpathError
from towpath.scaffold import init, templates

from .validator import faults

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENV = {
    "KUSTOMER_KEY": "k",
    "KUSTOMER_API_KEY": "k",
    "WEB_KEY": "w",
    "WEB_WRITE_KEY": "w",
    "BACKEND_WRITE_KEY": "b",
    "HOOK_URL": "https://hooks.example.com/in",
    "HOOK_SECRET": KEY,
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return schema()


def plain(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_load_and_fit_the_schema(path: Path, whole: dict[str, Any]) -> None:
    config = load(path, ENV, lambda storage: {"kustomer": "k"})
    assert config.connections
    assert faults(whole, plain(path), whole) == []


def test_there_are_examples() -> None:
    assert {"smallest.yaml", "accounts.yaml"} <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("template", templates())
def test_templates_load_and_fit_the_schema_they_name(template: str, tmp_path: Path) -> None:
    written = init(tmp_path / "new", template)
    names = ["towpath.yaml", "towpath.schema.json", ".env.example", "example.yaml"]
    assert [path.name for path in written] == names
    file, shipped, variables, _ = written
    assert file.read_text().startswith(f"# yaml-language-server: $schema=./{shipped.name}\n")
    assert load(file, ENV).connections
    own = json.loads(shipped.read_text())
    assert faults(own, plain(file), own) == []
    named = {line.removesuffix("=") for line in variables.read_text().splitlines() if line.endswith("=")}
    assert named
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert {problem.title.split()[3] for problem in caught.value.problems} == named


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text("mine")
    with pytest.raises(TowpathError, match="exists already"):
        init(tmp_path, "kustomer")
    assert [path.name for path in tmp_path.iterdir()] == [".env.example"]
    assert (tmp_path / ".env.example").read_text() == "mine"


def test_init_names_its_templates_and_its_troubles(tmp_path: Path) -> None:
    with pytest.raises(TowpathError, match='no template "nope"') as caught:
        init(tmp_path, "nope")
    assert "kustomer" in caught.value.fix
    (tmp_path / "file").touch()
    with pytest.raises(TowpathError, match="cannot be written"):
        init(tmp_path / "file", "kustomer")


WRONG = [
    ("sources", {"web": {"type": "segmnt", "write_keys": ["a"]}}),
    ("sources", {"web": {"type": "segment"}}),
    ("sources", {"web": {"type": "segment", "write_keys": ["a"], "typo": 1}}),
    ("destinations", {"k": {"type": "kustomer"}}),
    ("destinations", {"k": {"type": "kustomer", "api_key": "x", "retry": {"timeout": "soon"}}}),
    ("destinations", {"a b": {"type": "kustomer", "api_key": "x"}}),
    ("accounts", {"k": {"type": "kustomer", "typo": 1}}),
    ("durability", "stric"),
    ("version", 2),
    ("connectors", {"customerio": {}}),
    ("connections", [{"from": "web"}]),
    ("connections", [{"from": "web", "to": "k", "max_age": "2 weeks"}]),
    ("connections", [{"from": "web", "to": "k", "consent": {"need": ["a"]}}]),
    ("connections", [{"from": "web", "to": "k", "transform": {"function": "a:b", "timeout": "soon"}}]),
    ("connections", [{"from": "web", "to": "k", "map": [{"renam": {}}]}]),
    ("connections", [{"from": "web", "to": "k", "map": [{"hash": {"fields": "userId"}}]}]),
    ("server", {"limits": {"event": "64 potatoes"}}),
    ("conections", []),
]
RIGHT = [
    ("destinations", {"k": {"type": "kustomer", "apiKey": "x"}}),
    ("destinations", {"k": {"type": "kustomer", "account": "a"}}),
    ("destinations", {"k": {"type": "kustomer", "api_key": "x", "advanced_transform": "${ADVANCED}"}}),
    ("durability", "${DURABILITY:-strict}"),
    ("connections", [{"from": ["web"], "to": "k", "max_age": {"Sale": "2h", "*": "1d"}}]),
    ("connections", [{"from": "web", "to": "k", "consent": "ads", "filter": "true", "transform": "a:b"}]),
    ("connections", [{"from": "web", "to": "k", "consent": ["ads"], "map": [{"drop": "traits.x"}]}]),
    ("connections", [{"from": "web", "to": "k", "consent": {"needs": ["ads"], "missing": "allow"}}]),
    ("connectors", None),
    ("retention", {"log": "36h"}),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_the_schema_refuses_what_the_loader_refuses(key: str, value: Any, whole: dict[str, Any]) -> None:
    assert faults(whole, {"version": 1, key: value}, whole)


@pytest.mark.parametrize(("key", "value"), RIGHT)
def test_the_schema_takes_what_the_loader_takes(key: str, value: Any, whole: dict[str, Any]) -> None:
    assert faults(whole, {"version": 1, key: value}, whole) == []


def test_every_reference_leads_somewhere(whole: dict[str, Any]) -> None:
    text = json.dumps(whole)
    named = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert named <= whole["$defs"].keys()


def test_the_reference_page_is_in_step() -> None:
    fix = "make it anew: python -m towpath.config > docs/config.md"
    assert (ROOT / "docs" / "config.md").read_text("utf-8") == reference(), fix


def test_the_reference_page_names_every_key() -> None:
    page = reference()
    for word in (
        "`listen`",
        "`schedule`",
        "`5s, 30s, 2m",
        "`64KB`",
        "`write_keys`",
        "Also written `apiKey`",
        "| required |",
    ):
        assert word in page
