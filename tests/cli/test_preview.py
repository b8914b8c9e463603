"""`towpath preview`: the exact requests, nothing sent; every vector through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from ..app.support import run
from ..destinations.test_kustomer_vectors import (
    EQUAL,
    OURS,
    REJECTED,
    RETRIED,
    SKIPPED,
    TOO_SHORT,
    VECTORS,
)
from .support import Shell

SPELLED = {"apiKey": "api_key"}


def settings_of(vector: dict[str, Any]) -> str:
    given = {"advancedTransform": False, **vector["settings"]}
    return json.dumps({"type": "kustomer", **{SPELLED.get(key, key): value for key, value in given.items()}})


NAMES = {
    text: f"k{number}" for number, text in enumerate(sorted({settings_of(vector) for vector in VECTORS}))
}


def write(directory: Path) -> None:
    """Write one configuration with a destination for each of the vectors' settings (JSON is YAML)."""
    destinations = "".join(f"  {name}: {text}\n" for text, name in NAMES.items())
    (directory / "towpath.yaml").write_text(f"version: 1\ndestinations:\n{destinations}")


@pytest.fixture(scope="module")
def previews(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the command said of each vector, by its name; one run for each destination."""
    directory = tmp_path_factory.mktemp("preview")
    write(directory)
    found: dict[str, dict[str, Any]] = {}
    for text, name in NAMES.items():
        mine = [vector for vector in VECTORS if settings_of(vector) == text]
        lines = b"\n".join(msgspec.json.encode(line(vector)) for vector in mine)
        done = run("preview", name, cwd=directory, stdin=lines)
        assert (done.returncode, done.stderr) == (0, b"")
        found |= zip(
            (vector["name"] for vector in mine), map(json.loads, done.stdout.splitlines()), strict=True
        )
    assert not (directory / "data").exists()
    return found


def line(vector: dict[str, Any]) -> dict[str, Any]:
    return {"message": vector["message"], "lookups": vector["lookups"]}


def plain(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**request, "url": unquote(request["url"])} for request in requests]


@pytest.mark.spec("K067")
@pytest.mark.parametrize("name", sorted(EQUAL | set(OURS)))
def test_the_request_is_the_vectors(name: str, previews: dict[str, dict[str, Any]]) -> None:
    vector = next(vector for vector in VECTORS if vector["name"] == name)
    expected = [OURS[name]] if name in OURS else vector["expected"]["requests"]
    assert previews[name]["outcome"] == "request"
    assert plain(previews[name]["requests"]) == plain(expected)


@pytest.mark.spec("K067")
@pytest.mark.parametrize("name", sorted(REJECTED | TOO_SHORT | RETRIED | SKIPPED))
def test_what_is_not_sent_says_why(name: str, previews: dict[str, dict[str, Any]]) -> None:
    said = previews[name]
    wanted = "skipped" if name in SKIPPED else "retry" if name in RETRIED else "rejected"
    assert (said["outcome"], said["requests"]) == (wanted, [])
    assert said["reason"]


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (b"no json", "rejected"),
        (b"[]", "rejected"),
        (b"5", "rejected"),
        (b'{"message":5,"lookups":[]}', "rejected"),
        (b'{"message":{"type":"identify","userId":"u"},"lookups":5}', "rejected"),
        (
            b'{"message":{"type":"identify","userId":"u"},"lookups":[{"url":"x","answer":{"status":"y"}}]}',
            "rejected",
        ),
        (b"\xff", "rejected"),
        (b"[" * 100_000, "rejected"),
        (b'{"type":"track","event":"Event"}', "rejected"),
        (b'{"userId":"u"}', "rejected"),
        (b'{"type":"group","userId":"u"}', "skipped"),
        (b'{"type":"track","userId":"u","event":"Event","messageId":"m"}', "request"),
    ],
)
def test_any_line_is_one_line(shell: Shell, tmp_path: Path, given: bytes, outcome: str) -> None:
    write(tmp_path)
    said = shell("preview", "k0", stdin=given + b"\n\n")
    assert said.code == 0
    assert list(said.json()) == ["message_id", "outcome", "requests", "reports", "reason"]
    assert said.json()["outcome"] == outcome
    assert said.json()["reason"] or outcome == "request"


def test_without_answers_both_branches_are_shown(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path)
    message = b'{"type":"identify","userId":"u","traits":{"email":"a@b.c"},"messageId":"m"}'
    said = shell("preview", "k0", stdin=message).json()
    assert said["message_id"] == "m"
    assert {request["method"] for request in said["requests"]} == {"PUT", "POST"}
    assert all(request["when"] for request in said["requests"])
