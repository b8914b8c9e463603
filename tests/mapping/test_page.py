"""docs/mapping.md says what is so: its example is run, and it names every function and key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from towpath.config import load
from towpath.mapping import MapRule
from towpath.mapping.expression import words

from ..app.support import run

PAGE = (Path(__file__).parent.parent.parent / "docs" / "mapping.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SECRET = "whsec_dGhpcy1pcy1uby1zZWNyZXQtYXQtYWxsLi4u"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The files of the page, each by the name in its first line."""
    for _, text in BLOCKS:
        named = re.match(r"# (\S+\.(?:yaml|py))\n", text)
        if named:
            file = tmp_path / named[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    return tmp_path


@pytest.mark.spec("D24")
def test_the_fixtures_of_the_page_say_what_it_says(directory: Path) -> None:
    (said,) = [text for kind, text in BLOCKS if kind == "console"]
    done = run("test", "tests/orders.yaml", cwd=directory)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert f"$ towpath test\n{done.stdout.decode()}" == said


@pytest.mark.spec("K067")
def test_the_preview_of_the_page_is_what_comes(directory: Path) -> None:
    (command,) = [text for kind, text in BLOCKS if kind == "sh"]
    (shown,) = [json.loads(text) for kind, text in BLOCKS if kind == "json"]
    line = re.findall(r"'(.*)'", command)[0].encode()
    text = (directory / "towpath.yaml").read_text().replace("${secret:people}", "x" * 16)
    (directory / "towpath.yaml").write_text(text)
    done = run("preview", "hook", cwd=directory, stdin=line, HOOK_SECRET=SECRET)
    found = json.loads(done.stdout)
    for time in ("timestamp", "receivedAt"):
        found["stages"]["received"][time] = "…"
    assert found == shown


def test_the_configuration_of_the_page_loads(directory: Path) -> None:
    found = load(directory / "towpath.yaml", {"HOOK_SECRET": SECRET}, lambda _: {"people": "x" * 16})
    (entry,) = found.connections
    assert entry.transform is not None
    assert (entry.transform.function, entry.transform.timeout_s) == ("shop:per_item", 1.0)
    assert entry.consent is not None
    assert len(entry.map) == 3


def test_every_function_and_step_is_named() -> None:
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    assert set(words()) - named == set()
    assert set(MapRule.model_fields) - named == set()
