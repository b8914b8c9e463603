"""What leaves the repository: the wheel, the lock, the commands people are told to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Written in halves so that this file does not find itself.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"pypi\." + "org",
            "python" + "hosted",
            r"npm" + r"js\.(org|com)",
            r"deb\." + "debian",
            r"(?<![\w.])/wo" + "rk/",
            r"(?<![\w.])/ro" + "ot/",
            r"(?<![\w.])/ho" + "me/",
        ]
    )
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("towpath-*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"towpath"}
    packed = {name for name in names if name.startswith("towpath/")}
    package = (ROOT / "src" / "towpath").rglob("*")
    here = {
        str(path.relative_to(ROOT / "src")) for path in package if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == here
    assert "towpath/py.typed" in packed


def test_the_wheel_carries_its_licence_and_command(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        files = {
            name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name
        }
        licence = archive.read(files["licenses/LICENSE"]).decode()
        commands = archive.read(files["entry_points.txt"]).decode()
        metadata = archive.read(files["METADATA"]).decode()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert f"towpath = {PROJECT['scripts']['towpath']}" in commands
    assert "License-Expression: Apache-2.0" in metadata


def locked() -> dict[str, str]:
    """Distribution → its entry in the lock."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {canonicalize_name(Requirement(entry.split("--hash")[0].strip()).name): entry for entry in entries}


def test_the_lock_names_no_index_and_hashes_every_entry() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|\bfile:", text)
    assert all(re.search(r"==\S+.*--hash=sha256:[0-9a-f]{64}\b", entry) for entry in locked().values())


def test_the_lock_holds_every_declared_dependency_at_an_allowed_version() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in [*PROJECT["dependencies"], *extras, *groups["dev"]]:
        wanted = Requirement(line)
        entry = locked()[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(re.findall(r"==(\S+)", entry)[0], prereleases=True), line


def closure() -> set[str]:
    """Every distribution a plain `pip install towpath` brings, itself included."""
    found, waiting = {"towpath"}, [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if applies and name not in found:
            found.add(name)
            inner = [Requirement(line) for line in requires(name) or []]
            waiting += [one for one in inner if needed(one, {"", *wanted.extras})]
    return found


def needed(wanted: Requirement, extras: set[str]) -> bool:
    """Whether a requirement counts on this machine with these extras."""
    return wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras)


def test_the_base_install_stays_small() -> None:
    assert len(closure()) <= 45, sorted(closure())


def tree() -> Iterator[Path]:
    """Every file of the repository that .gitignore does not leave out."""
    ignored = {line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()} | {".git"}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ignored and not name.endswith(".egg-info")]
        yield from (Path(folder, name) for name in files if name not in ignored)


def test_no_file_names_a_registry_or_somebodys_machine() -> None:
    hits = []
    for path in tree():
        text = path.read_bytes().decode("utf-8", "replace")
        hits += [f"{path.relative_to(ROOT)}: {found[0]}" for found in FORBIDDEN.finditer(text)]
    assert not hits, "\n".join(hits)


def targets() -> set[str]:
    """The targets the Makefile offers."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def code(page: Path) -> str:
    """The code blocks and code spans of a Markdown page, a line each."""
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*fences, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_make_command_of_the_docs_exists(page: Path) -> None:
    named = set(re.findall(r"^\s*\$?\s*make ([a-z]+)", code(page), re.MULTILINE))
    assert named <= targets(), f"{page.name} names targets the Makefile lacks: {sorted(named - targets())}"


def test_the_readme_needs_two_commands() -> None:
    named = re.findall(r"^\s*\$?\s*make ([a-z]+)", code(ROOT / "README.md"), re.MULTILINE)
    assert {"demo", "test"} <= set(named)


def test_continuous_integration_runs_everything() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
