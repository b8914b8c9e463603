"""Whatever is wrong: a sentence, a reason, a fix, what became of the data, and the right exit code."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from towpath.cli import output
from towpath.cli.client import Client
from towpath.cli.traffic import outcome_line

from ..app.support import HOOK, TOWPATH, offline, process, run
from .support import Shell, served


def test_a_missing_file_says_how_to_make_one(shell: Shell) -> None:
    for words in (
        ("status",),
        ("validate",),
        ("run",),
        ("send", "track"),
        ("preview", "x"),
        ("events", "list"),
    ):
        said = shell(*words)
        assert said.code == 2
        assert "towpath.yaml" in said.err
        assert "towpath init" in said.err
        assert said.err.endswith("Nothing was changed.\n")


GOLDEN_INVALID = """\
error E2104: unknown key "sorces"
     ┌ towpath.yaml:2:1
   2 │ sorces: {}
     │ ^^^^^^ did you mean "sources"?

error E2106: server.listen is not an address; write host:port, like 127.0.0.1:8080
     ┌ towpath.yaml:3:18
   3 │ server: {listen: nowhere}
     │                  ^^^^^^^

2 problems. Nothing was changed.
"""


def test_a_configuration_is_told_every_error_at_once(shell: Shell) -> None:
    Path("towpath.yaml").write_text("version: 1\nsorces: {}\nserver: {listen: nowhere}\n")
    said = shell("validate")
    assert (said.code, said.err) == (2, GOLDEN_INVALID)
    found = shell("validate", "--json")
    assert [(row["line"], row["code"]) for row in found.json()] == [(2, "E2104"), (3, "E2106")]


GOLDEN_NO_SERVER = """\
error E5021: no server of towpath.yaml runs here
   Why: nothing answers at {directory}/data/admin.sock
   Fix: towpath run --config towpath.yaml
   Your data: Nothing was changed.
"""


def test_no_server(shell: Shell, tmp_path: Path) -> None:
    offline(tmp_path)
    said = shell("reload")
    assert (said.code, said.err) == (5, GOLDEN_NO_SERVER.format(directory=tmp_path))
    assert shell("reload", "--json").json()["code"] == "E5021"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("destinations", "test", "nope"), 1, "known: hook"),
        (("destinations", "pause", "[red]"), 1, "there is no destination '[red]'"),
        (("connectors", "show", "a/b"), 1, "E5016"),
        (("connectors", "show", "nope"), 1, "towpath connectors list"),
        (("deliveries", "list", "--connection", "nope"), 1, "known: hook"),
        (("deliveries", "retry", "--connection", "nope"), 1, "known: hook"),
        (("deliveries", "show", "9" * 30), 1, "E5012"),
        (("dlq", "show", "9" * 30), 1, "E4402"),
        (("dlq", "show", "7"), 1, "there is no dead letter 7"),
        (("dlq", "show", "seven"), 2, "no number of a dead letter"),
        (("dlq", "replay"), 2, "--all"),
        (("dlq", "list", "--limit", "100000"), 2, "10000"),
        (("events", "show", "nope"), 1, "towpath events list"),
        (("events", "show", "../../etc/passwd"), 1, "E4401"),
        (("events", "show", "9" * 30), 1, "E4401"),
        (("people", "erase", "\udcff", "--yes"), 1, "E5011"),
        (("people", "erase", "", "--yes"), 1, "exactly as it was sent"),
        (("secrets", "set", "a/b"), 1, "cannot be a name"),
        (("preview", "nope"), 2, "known: hook"),
        (("send", "nonsense"), 2, "identify, track"),
        (("send", "track", "--properties", "[1]"), 2, "must be a JSON object"),
        (("send", "track", "--properties", "{"), 2, "is not JSON"),
        (("trigger", "nonsense"), 2, "signup"),
        (("init", "--template", "nonsense"), 1, "choose one of"),
        (("init", "/proc/nowhere"), 1, "cannot be written"),
        (("no-such-command",), 2, "no-such-command"),
    ],
)
def test_wrong_words(shell: Shell, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    offline(tmp_path)
    found = shell(*words, stdin="value")
    assert found.code == code
    assert said in " ".join(found.err.split())


def test_every_error_of_these_says_what_and_how_to_fix_it(shell: Shell, tmp_path: Path) -> None:
    offline(tmp_path)
    for words in (("reload",), ("dlq", "replay"), ("events", "show", "x"), ("destinations", "test", "x")):
        told = shell(*words, "--json").json()
        assert told["code"].startswith("E")
        assert told["title"]
        assert told["fix"]


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offline(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
        said = run("run", cwd=tmp_path)
    assert said.returncode == 1
    assert b"cannot listen on 127.0.0.1:" in said.stderr
    assert b"set server.listen to another address" in said.stderr
    assert b"Traceback" not in said.stderr


def test_a_directory_that_cannot_be_used(shell: Shell, tmp_path: Path) -> None:
    file = offline(tmp_path)
    (tmp_path / "data").write_text("in the way")
    said = shell("events", "list")
    assert said.code == 1
    assert "data" in said.err
    file.write_text(file.read_text().replace("./data", "/proc/nowhere"))
    said = shell("events", "list")
    assert (said.code, "/proc/nowhere" in said.err) == (1, True)


def test_a_socket_path_that_is_too_long(shell: Shell, tmp_path: Path) -> None:
    file = offline(tmp_path)
    file.write_text(file.read_text() + f"admin: {{socket: ./{'long/' * 30}admin.sock}}\n")
    said = shell("run")
    assert (said.code, "set admin.socket to a short path" in said.err) == (2, True)
    assert shell("status").code in (2, 5)


def test_a_socket_of_another_user(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    offline(tmp_path)
    monkeypatch.setattr(Client, "_over_socket", refuse)
    said = shell("status")
    assert (said.code, "run the command as that user" in said.err) == (4, True)


def test_a_mistake_inside_is_a_sentence(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unforeseen")

    offline(tmp_path)
    monkeypatch.setattr(Client, "call", fail)
    said = shell("status")
    assert (said.code, "TOWPATH_DEBUG=1" in said.err, "unforeseen" in said.err) == (1, True, True)


def test_control_characters_do_not_reach_the_terminal(shell: Shell, tmp_path: Path) -> None:
    name = "A\x1b[31mB\x9b2JC\r\nD"
    with served(tmp_path, HOOK):
        shell("send", "track", "--user-id", "u\x1b]0;owned\x07", "--event", name)
        for words in (
            ("events", "list"),
            ("events", "trace", "1"),
            ("events", "show", "1"),
            ("events", "list", "--json"),
        ):
            out = shell(*words).out
            assert "\x1b" not in out
            assert "\x9b" not in out
    line = {
        "type": "track",
        "event": name,
        "person": "u\x1b",
        "connection": "c",
        "outcome": "retry",
        "code": 0,
    }
    assert outcome_line({**line, "reason": "a\x1b\nb", "ms": 1}).isprintable()


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    offline(tmp_path)
    for words in (("schema",), ("events", "list"), ("--help",)):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*TOWPATH, *words], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False
        )
        os.close(writing)
        assert b"Traceback" not in done.stderr
        assert b"BrokenPipe" not in done.stderr
        assert done.returncode in (0, 1)


def test_an_output_that_lacks_characters(tmp_path: Path) -> None:
    offline(tmp_path)
    said = run("destinations", "test", "hook", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (said.returncode, b"Traceback" not in said.stderr) == (1, True)
    assert b"webhook  no connection" in said.stdout


@contextmanager
def command(*words: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that goes on until it is told to end; it is gone when the block ends."""
    piped = subprocess.PIPE
    with subprocess.Popen([*TOWPATH, *words], cwd=cwd, stdout=piped, stderr=piped) as running:
        try:
            yield running
        finally:
            running.kill()


def first_line(running: subprocess.Popen[bytes]) -> bytes:
    assert running.stdout is not None
    return running.stdout.readline()


def test_interrupted(tmp_path: Path) -> None:
    with process(offline(tmp_path)), command("listen", cwd=tmp_path) as listening:
        assert first_line(listening) == b"listening; press Ctrl-C to end\n"
        listening.send_signal(signal.SIGINT)
        _, err = listening.communicate(timeout=30)
        assert (listening.returncode, err) == (130, b"")


def test_a_listener_ends_with_the_server(tmp_path: Path) -> None:
    with process(offline(tmp_path)) as server, command("listen", cwd=tmp_path) as listening:
        first_line(listening)
        started = time.monotonic()
        assert server.end(signal.SIGTERM) == 0
        assert time.monotonic() - started < 8.0  # an open stream does not delay the end
        _, err = listening.communicate(timeout=30)
        assert (listening.returncode, err) == (0, b"")


def test_a_question_is_asked_only_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    output.confirm("Sure?", yes=True)
    for answer, leaves in (("y\n", False), ("n\n", True)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        if leaves:
            with pytest.raises(typer.Exit):
                output.confirm("Sure?", yes=False)
        else:
            output.confirm("Sure?", yes=False)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    file = offline(tmp_path)
    (tmp_path / "tls.pem").write_text("not a certificate")
    tls = "server: {tls: {certificate: tls.pem, key: tls.pem}, "
    file.write_text(file.read_text().replace("server: {", tls))
    said = run("run", cwd=tmp_path)
    assert said.returncode == 1
    assert b"E5007" in said.stderr
    assert b"Traceback" not in said.stderr
    assert not (tmp_path / "data" / "admin.sock").exists()


def test_a_second_dev_leaves_the_first_alone(tmp_path: Path) -> None:
    with command("dev", "--listen", "127.0.0.1:0", "--json", cwd=tmp_path) as dev:
        assert b"ready" in first_line(dev)
        before = (tmp_path / ".towpath" / "dev" / "towpath.yaml").read_text()
        second = run("dev", "--listen", "127.0.0.1:0", cwd=tmp_path)
        assert (second.returncode, b"in use by process" in second.stderr) == (1, True)
        assert (tmp_path / ".towpath" / "dev" / "towpath.yaml").read_text() == before
        config = ("--config", ".towpath/dev/towpath.yaml")
        assert b"accepted" in run("trigger", "signup", *config, cwd=tmp_path).stdout
        dev.send_signal(signal.SIGINT)
        _, err = dev.communicate(timeout=30)
        assert (dev.returncode, err) == (0, b"")


def test_a_reload_of_a_wrong_file_says_what_validate_says(shell: Shell) -> None:
    with served(Path.cwd()) as _:
        right = Path("towpath.yaml").read_text("utf-8")
        Path("towpath.yaml").write_text(f"{right}sorces: {{}}\n", "utf-8")
        said, checked = shell("reload"), shell("validate")
        assert (said.code, said.out) == (checked.code, "")
        assert said.err.replace(f"{Path.cwd()}/", "") == checked.err.replace(f"{Path.cwd()}/", "")
        assert said.err.count("E2104") == 1
        assert shell("reload", "--json").json()[0]["code"] == "E2104"
        Path("towpath.yaml").write_text(right, "utf-8")


def test_send_without_words_needs_a_pipe(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("towpath.cli.traffic.sys", terminal)
    said = shell("send")
    assert said.code == 2
    assert "pipe JSON lines in" in said.err
