"""What an idle server costs, what starting a command loads, and how fast a second server is told no."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from .support import KEY, YAML, process, run

HEAVY = ("apsw", "pyreqwest", "ruamel", "sqlalchemy", "structlog", "towpath.config", "uvicorn")


def idle(directory: Path) -> Path:
    """Write a configuration for Kustomer with nothing behind it."""
    file = directory / "towpath.yaml"
    file.write_text(YAML.format(key=KEY, api_key="key-of-a-test", rate=300, kustomer="http://127.0.0.1:9"))
    return file


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(shown.stdout) / 1024


def test_an_idle_server_stays_small(tmp_path: Path) -> None:
    with process(idle(tmp_path)) as running:
        assert resident_mb(running.pid) <= 110


def loaded_by(words: list[str], directory: Path) -> tuple[str, list[str]]:
    """Run a command; what it said on standard error, and which heavy modules it loaded."""
    code = (
        "import sys\nfrom towpath.cli import main\n"
        f"sys.argv[1:] = {words!r}\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=directory)
    *said, modules = done.stderr.splitlines()
    return "\n".join(said), modules.split()


def test_a_second_server_is_told_who_is_first_before_anything_is_loaded(tmp_path: Path) -> None:
    file = idle(tmp_path)
    with process(file) as running:
        said, modules = loaded_by(["run", "--config", str(file)], tmp_path)
        assert f"in use by process {running.pid}" in said
        assert "Traceback" not in said
        assert not {"apsw", "pyreqwest", "sqlalchemy", "uvicorn"} & set(modules)
        assert run("run", "--config", str(file), cwd=tmp_path).returncode == 1


@pytest.mark.parametrize("words", [("version",), ("--help",), ("dlq", "--help")])
def test_a_command_loads_only_what_it_needs(words: tuple[str, ...], tmp_path: Path) -> None:
    assert loaded_by([*words], tmp_path) == ("", [])


def test_a_stopped_server_leaves_its_directory_free(tmp_path: Path) -> None:
    file = idle(tmp_path)
    with process(file) as running:
        started = time.monotonic()
        assert running.end(15) == 0
        assert time.monotonic() - started <= 10.0
    assert not (tmp_path / "data" / "admin.sock").exists()
    assert run("status", cwd=tmp_path).returncode == 0
