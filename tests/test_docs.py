"""The docs say what is so: links, commands and ids exist, configurations load, the example runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from tools import uncovered

from tests.install.account import ACCOUNT
from towpath.cli import app
from towpath.config import parse

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "towpath"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def without_code(text: str) -> str:
    """Leave out code blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page: Path) -> set[str]:
    """List the anchors a page's headings get."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / unquote(place)).resolve() if place else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_every_page_can_be_reached() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md", ROOT / "docs" / "index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)\s:#]+\.md)", without_code(page.read_text(encoding="utf-8")))
        targets = {(page.parent / link).resolve() for link in links}
        waiting += [target for target in targets - reached if target.exists()]
    assert {page.resolve() for page in PAGES} == {page.resolve() for page in reached}


def commands() -> dict[str, Any]:
    """Map every command, as it is typed after `towpath`, to its click object; groups included."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        found[name] = command
        children = getattr(command, "commands", {})
        waiting += [(f"{name} {word}".strip(), child) for word, child in children.items()]
    return found


def typed(page: Path) -> list[list[str]]:
    """List the `towpath …` command lines of a page's code, as words."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fences if language in ("", "sh", "bash", "console", "text")]
    lines = [*"\n".join(blocks).splitlines(), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]
    calls = [re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?towpath ([a-z].*)", line) for line in lines]
    return [call[1].split() for call in calls if call]


def mistake(words: Sequence[str], known: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a command line: an unknown command, subcommand or option."""
    name = ""
    for word in words:
        if not hasattr(known[name], "commands"):
            break
        if f"{name} {word}".strip() not in known:
            return f"towpath {name} has no {word}".replace("  ", " ")
        name = f"{name} {word}".strip()
    options = {option for parameter in known[name].params for option in parameter.opts} | {"--help"}
    asked = {word.split("=")[0].rstrip(",.;") for word in words if word.startswith("--")}
    return f"towpath {name} has no {sorted(asked - options)}" if asked - options else None


def test_commands_of_the_docs_exist() -> None:
    # The spec also names commands of later steps.
    pages = [page for page in PAGES if page.name != "spec.md"]
    known = commands()
    lines = [words for page in pages for words in typed(page)]
    assert lines
    assert not [found for words in lines if (found := mistake(words, known))]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("dlq list", False),
        ("dlq replay --no-such-option", True),
        ("dlq no-such-command", True),
        ("no-such-command", True),
        ("dev --demo", False),
    ],
)
def test_a_wrong_command_line_is_found(line: str, wrong: bool) -> None:
    assert bool(mistake(line.split(), commands())) is wrong


def test_every_command_explains_itself() -> None:
    assert [name for name, command in commands().items() if not command.help] == []


def configurations() -> dict[str, str]:
    """Map every whole configuration that people are shown: examples, templates, blocks of the docs."""
    files = [*sorted((ROOT / "examples").glob("*.yaml")), *sorted(SOURCE.glob("templates/*.yaml"))]
    found = {path.name: path.read_text(encoding="utf-8") for path in files}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
            if re.search(r"^version: ", block, re.MULTILINE):
                found[f"{page.name} {number}"] = block
    return found


CONFIGURATIONS = configurations()
# Functions that the configurations name: blocks of the docs that begin with their file's name.
MODULES = {
    match[1]: match[0].partition("\n")[2].removesuffix("```")
    for page in PAGES
    for match in re.finditer(r"^```python\n# (\w+\.py)\n.*?^```", page.read_text(), re.MULTILINE | re.DOTALL)
}


def stand_in(variable: str) -> str:
    """Make up a value of the right form for a variable of an example."""
    forms = {
        "URL": "https://hooks.example.com/in",
        "SECRET": "whsec_c2VjcmV0LW9mLWEtdGVzdC1zZWNyZXQtb2YtYS10ZXN0",
    }
    return forms.get(variable.rpartition("_")[2], f"value-of-{variable.lower()}")


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_a_configuration_shown_loads(name: str, tmp_path: Path) -> None:
    text = CONFIGURATIONS[name]
    env = {name: stand_in(name) for name in re.findall(r"\$\{([A-Z][A-Z0-9_]*)", text)}
    named = re.findall(r"\$\{secret:([^}]+)\}", text)
    keys = {name for name in named if name == "fcm" or "service_account" in name}
    secrets = {name: ACCOUNT if name in keys else f"secret-called-{name}" for name in named}
    for name, code in MODULES.items():
        (tmp_path / name).write_text(code)
    assert parse(text, tmp_path / "towpath.yaml", env, lambda _: secrets).connections


def test_an_id_is_defined_once() -> None:
    defined = uncovered.defined()
    assert len(defined) > 390
    assert len(defined) == len(set(defined))


def test_every_id_of_a_test_is_required_by_the_spec() -> None:
    places, required = uncovered.named(), set(uncovered.defined())
    assert places, "no test names a requirement"
    assert not {identifier: where for identifier, where in places.items() if identifier not in required}


def test_every_id_a_page_names_is_defined() -> None:
    for page in PAGES:
        named = set(re.findall(r"\b([DEFKCR]\d{3}|P\d{3}|D\d{2})\b", page.read_text(encoding="utf-8")))
        assert named <= set(uncovered.defined()), page.name


def test_marks_are_read_wherever_they_stand() -> None:
    source = (
        "pytestmark = [pytest.mark.spec('E001', 'E002')]\n"
        "@pytest.mark.spec('K001')\n"
        "class TestIt:\n"
        "    @pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.spec('P1'))])\n"
        "    def test(self, x): spec('D01')\n"
    )
    assert set(uncovered.marks(source)) == {("E001", 1), ("E002", 1), ("K001", 2), ("P1", 4)}


@pytest.mark.parametrize("name", ["promises", "D", "E", "K", "F", "C"])
def test_a_section_is_reported(name: str) -> None:
    assert re.match(rf"{name}: \d+/[1-9]\d* named by a test", uncovered.report(name))


def linted(path: str, code: str) -> str:
    """What the linter would say of a file in the tree; the order of imports depends on what is there."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--quiet",
        "--ignore",
        "I001",
        "--stdin-filename",
        path,
        "-",
    ]
    return subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True, check=False).stdout


def test_the_contributors_examples_meet_the_contracts(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^`([\w/]+\.py)`:.*?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert list(blocks) == [
        "src/towpath/destinations/helpdesk.py",
        "tests/destinations/test_helpdesk.py",
        "src/towpath/sources/shop.py",
        "tests/sources/test_shop.py",
    ]
    for path, code in blocks.items():
        (tmp_path / Path(path).name).write_text(code)
        assert linted(path, code) == ""
    packages = ("towpath.destinations", "towpath.sources")
    plugged = "".join(f"import {name}\n{name}.__path__.append({str(tmp_path)!r})\n" for name in packages)
    (tmp_path / "conftest.py").write_text(plugged)
    settings = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    (tmp_path / "pytest.ini").write_text(settings)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(re.findall(r"(\d+) passed", ran.stdout)[-1]) >= 45
