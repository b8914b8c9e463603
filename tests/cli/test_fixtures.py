"""`towpath test`: fixtures that pass, differ, are updated, are wrong; the one of `init` passes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from towpath.fixtures import StillClock, differences, run, update
from towpath.scaffold import init, templates

from .support import Shell

CONFIG = """\
version: 1
sources:
  web: {type: segment, write_keys: ["${SOME_WRITE_KEY}"]}
destinations:
  hook: {type: webhook, url: "${HOOK_URL}", secret: "${HOOK_SECRET}"}
connections:
  - from: web
    to: hook
    filter: 'type == "track"'
    transform: shop:double
    map:
      - rename_event: {Order: Purchase}
        hash: {fields: userId, key: "${secret:people}"}
"""
CODE = "def double(message):\n    return [message, message] if message['event'] == 'Twice' else message\n"
FIXTURES = """\
# kept as it is written
connection: hook
variables:
  HOOK_URL: https://example.com/
  HOOK_SECRET: whsec_dGhpcy1pcy1uby1zZWNyZXQtYXQtYWxsLi4u
cases:
  - name: a purchase   # sent
    message: {type: track, event: Order, userId: u1, messageId: m}
    expect:
      outcome: request
      requests:
        - json: {event: Purchase, timestamp: "2026-01-01T00:00:00.000Z"}
  - name: no page
    message: {type: page, userId: u1}
    expect: {outcome: skipped, reason: the filter is false}
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(socket.socket, "connect", _refused)
    (tmp_path / "towpath.yaml").write_text(CONFIG)
    (tmp_path / "shop.py").write_text(CODE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "orders.yaml").write_text(FIXTURES)
    return tmp_path


def _refused(*_: object) -> None:
    raise AssertionError("fixtures need no network")


def add(directory: Path, text: str) -> Path:
    file = directory / "tests" / "orders.yaml"
    file.write_text(FIXTURES + text)
    return file


@pytest.mark.spec("D24")
def test_fixtures_pass_without_server_network_or_secrets(shell: Shell, directory: Path) -> None:
    said = shell("test")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[1:] == ["  ✓ a purchase", "  ✓ no page", "2 passed, 0 failed"]
    assert not (directory / "data").exists()


def test_differences_are_named_one_by_one(shell: Shell, directory: Path) -> None:
    add(
        directory,
        """\
  - name: another
    message: {type: track, event: Twice, userId: u1, messageId: m, properties: {n: 1}}
    expect:
      outcome: skipped
      requests: [{method: PUT, json: {properties: {n: 2, o: 1}}}]
""",
    )
    said = shell("test")
    assert said.code == 1
    assert [line.strip() for line in said.out.splitlines()[3:]] == [
        "✗ another",
        'outcome: "skipped" expected, "request" came',
        *[line.strip() for line in said.out.splitlines() if "requests: 1 expected, 2 came" in line],
        'requests[0].method: "PUT" expected, "POST" came',
        "requests[0].json.properties.n: 2 expected, 1 came",
        "requests[0].json.properties.o: 1 expected, nothing came",
        "2 passed, 1 failed",
    ]
    cases = shell("test", "--json").json()
    assert (cases["passed"], cases["failed"]) == (2, 1)
    assert cases["cases"][2]["name"] == "another"
    assert len(cases["cases"][2]["got"][0]["deliveries"]) == 2


def test_what_came_out_is_written_and_then_passes(shell: Shell, directory: Path) -> None:
    file = add(
        directory, "  - name: new\n    message: {type: track, event: Twice, userId: u1, messageId: m}\n"
    )
    assert shell("test", str(file)).code == 1
    said = shell("test", "--update")
    assert (said.code, "1 updated" in said.out) == (0, True)
    text = file.read_text()
    assert text.startswith("# kept as it is written\n")
    assert "  - name: a purchase   # sent" in text
    assert text.count("outcome: request") == 2
    assert shell("test").code == 0
    assert file.read_text() == text


def test_an_update_that_fails_leaves_the_file_as_it_was(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = add(directory, "  - name: new\n    message: {type: track, event: Order, userId: u1}\n")
    text = file.read_text()
    results = asyncio.run(run(file, directory / "towpath.yaml"))
    monkeypatch.setattr(Path, "replace", _refused)
    with pytest.raises(AssertionError):
        update(file, results)
    assert file.read_text() == text
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_an_update_keeps_the_link_and_the_mode_of_the_file(directory: Path) -> None:
    file = add(directory, "  - name: new\n    message: {type: track, event: Order, userId: u1}\n")
    kept = file.rename(directory / "kept.yaml")
    kept.chmod(0o640)
    file.symlink_to(kept)
    assert update(file, asyncio.run(run(file, directory / "towpath.yaml"))) == 1
    assert file.is_symlink()
    assert (kept.stat().st_mode & 0o777, "outcome: request" in kept.read_text()) == (0o640, True)
    (result,) = asyncio.run(run(file, directory / "towpath.yaml"))[2:]
    assert result.passed, "an id that is made up is the same each time"


def test_the_clock_of_fixtures_moves_only_when_somebody_sleeps() -> None:
    async def waits() -> list[str]:
        clock, order = StillClock(1000.0), list[str]()

        async def polls() -> None:
            while clock.monotonic() < 60.0:
                order.append("polled")
                await clock.sleep(20.0)

        async def works() -> None:
            order.append("worked")

        await asyncio.gather(polls(), works())
        assert (clock.now(), clock.monotonic()) == (1060.0, 60.0)
        return order

    assert asyncio.run(waits()) == ["polled", "worked", "polled", "polled"]


def test_several_messages_and_exact_cases(shell: Shell, directory: Path) -> None:
    add(
        directory,
        """\
  - name: two
    messages: [{type: page, userId: u1}, {type: track, event: Order, userId: u1}]
    expect: [{outcome: skipped}, {outcome: request}]
  - name: exact
    exact: true
    message: {type: page, userId: u1}
    expect: {outcome: skipped, reason: "filtered: the filter is false"}
  - name: not exact enough
    exact: true
    message: {type: page, userId: u1}
    expect: {outcome: skipped}
""",
    )
    said = shell("test")
    assert said.out.splitlines()[3:] == [
        "  ✓ two",
        "  ✓ exact",
        "  ✗ not exact enough",
        '      reason: not expected, "filtered: the filter is false" came',
        "4 passed, 1 failed",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  - name: x\n", "needs message or messages"),
        ("  - name: x\n    message: {}\n    expect: {outcom: y}\n", 'did you mean "outcome"?'),
        ("  - name: x\n    mesage: {}\n", "unknown field `mesage`"),
        ("  - name: x\n    connection: hok\n    message: {}\n", "known: hook\n"),
        ("  - {name: [\n", "orders.yaml: "),
    ],
)
def test_a_wrong_fixture_says_what_to_do(shell: Shell, directory: Path, text: str, said: str) -> None:
    add(directory, text)
    found = shell("test")
    assert found.code == 1
    assert "orders.yaml" in found.err
    assert said in found.err


def test_without_fixtures_it_says_where_they_go(shell: Shell, directory: Path) -> None:
    (directory / "tests" / "orders.yaml").unlink()
    said = shell("test")
    assert said.code == 2
    assert "docs/mapping.md" in said.err


@pytest.mark.parametrize("template", templates())
def test_the_fixture_of_a_new_project_passes(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    init(tmp_path / "new", template)
    monkeypatch.chdir(tmp_path / "new")
    said = shell("test")
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize(
    ("expected", "got", "differs"),
    [
        (1, 1.0, False),
        (1, True, True),
        (0, False, True),
        (None, None, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": None}, {}, True),
        ([1], [1, 2], True),
        ([{"a": 1}], [{"a": 1, "b": 2}], False),
        ({"a": 1}, [1], True),
        ("a", "ab", True),
    ],
)
def test_only_what_is_expected_is_compared(expected: object, got: object, differs: bool) -> None:
    assert bool(list(differences(expected, got, "x"))) is differs
