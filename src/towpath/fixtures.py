"""Fixtures: messages in YAML with what is to become of them; `towpath test` runs them, offline."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from .clock import SystemClock
from .config import Config, load
from .errors import TowpathError
from .message import parse_time
from .preview import preview
from .wiring import connection_named

WORDS = ("outcome", "reason", "requests", "reports", "message_id", "stages", "deliveries")
PLAIN = ("outcome", "reason", "requests", "reports")
SAID = frozenset({"reason", "reports"})
RECEIVED_AT = "2026-01-01T00:00:00.000Z"
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_]\w*)\}")


class Case(Struct, forbid_unknown_fields=True):
    """One message, or several, and what is to become of each; `exact` allows nothing beyond that."""

    name: str
    message: Any = None
    messages: list[Any] | None = None
    connection: str = ""
    lookups: list[Any] | None = None
    source: str | None = None
    trust: str | None = None
    expect: dict[str, Any] | list[dict[str, Any]] | None = None
    exact: bool = False


class Fixtures(Struct, forbid_unknown_fields=True):
    """A file of cases. `variables` and `secrets` stand in for `${NAME}` and `${secret:name}`."""

    cases: list[Case]
    connection: str = ""
    variables: dict[str, str] = {}
    secrets: dict[str, str] = {}
    received_at: str = RECEIVED_AT


class Result(Struct, frozen=True):
    """How one case went: what differs (nothing when it passed), and what came out."""

    file: str
    name: str
    connection: str
    differences: Sequence[str]
    got: Sequence[Mapping[str, Any]]

    @property
    def passed(self) -> bool:
        """Whether everything came out as expected."""
        return not self.differences


class StillClock(SystemClock):
    """A clock that only moves when somebody sleeps, so that a fixture gives the same on every day."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self._at = at
        self._slept_s = 0.0
        self._tokens = 0

    def now(self) -> float:
        """Return the moment it stands at."""
        return self._at + self._slept_s

    def monotonic(self) -> float:
        """Return how long was slept."""
        return self._slept_s

    async def sleep(self, delay_s: float) -> None:
        """Wait for nothing but the others; it is later then."""
        self._slept_s += max(delay_s, 0.0)
        await asyncio.sleep(0)

    def token(self, size: int) -> bytes:
        """Return the number of the token: the ids made up for messages without one are always the same."""
        self._tokens += 1
        return self._tokens.to_bytes(size)


class StandIns(dict[str, str]):
    """The secrets of a fixture file; any other is made up from its name."""

    def __missing__(self, name: str) -> str:
        return f"fixture-secret-{name}"


def found(config: Path) -> list[Path]:
    """Return the fixture files beside a configuration: `tests/*.yaml`."""
    return sorted((config.absolute().parent / "tests").glob("*.yaml"))


async def run(file: Path, config: Path) -> list[Result]:
    """Run the cases of one file against a configuration. Raises `TowpathError`."""
    fixtures = read(file)
    loaded = configuration(config, fixtures)
    at = parse_time(fixtures.received_at)
    if at is None:
        raise _wrong(
            file, f"received_at is no RFC 3339 time: {fixtures.received_at}", "write  2026-01-01T00:00:00Z"
        )
    return [await _run(case, fixtures, loaded, file, at.timestamp()) for case in fixtures.cases]


def read(file: Path) -> Fixtures:
    """A fixture file. Raises `TowpathError`."""
    try:
        data = YAML(typ="safe", pure=True).load(file.read_text("utf-8"))
        fixtures = msgspec.convert(msgspec.to_builtins(data), Fixtures)  # YAML's dates as text
    except (OSError, UnicodeDecodeError, YAMLError, msgspec.ValidationError, RecursionError) as error:
        said = " ".join(str(error).split()).replace("$.", "").replace("Object", "The file")
        raise _wrong(file, said, "see docs/mapping.md for the shape of a fixture") from None
    for case in fixtures.cases:
        _check(file, case)
    return fixtures


def _check(file: Path, case: Case) -> None:
    if (case.message is None) == (case.messages is None):
        raise _wrong(
            file, f'the case "{case.name}" needs message or messages, one of the two', "write  message: {…}"
        )
    for expected in _expected(case):
        for word in expected:
            if word not in WORDS:
                near = get_close_matches(word, WORDS, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(WORDS)}"
                raise _wrong(file, f'the case "{case.name}" expects "{word}", which no preview has', hint)


def _expected(case: Case) -> Sequence[dict[str, Any]]:
    if case.expect is None:
        return ()
    return case.expect if isinstance(case.expect, list) else [case.expect]


def configuration(file: Path, fixtures: Fixtures) -> Config:
    """Load a configuration with what fixtures give, and made-up values for other missing ones."""
    try:
        named = _VARIABLE.findall(file.read_text("utf-8", "replace"))
    except OSError:
        named = []
    made_up = {name: f"fixture-value-{name}" for name in named if not os.environ.get(name)}
    return load(file, {**os.environ, **made_up, **fixtures.variables}, lambda _: StandIns(fixtures.secrets))


async def _run(case: Case, fixtures: Fixtures, config: Config, file: Path, at: float) -> Result:
    name = case.connection or fixtures.connection
    connection = connection_named(config, name)
    if connection is None:
        names = dict.fromkeys([*(entry.name for entry in config.connections), *config.destinations])
        known = ", ".join(names)
        raise _wrong(file, f'the case "{case.name}" names no connection: "{name}"', f"known: {known}")
    messages = [case.message] if case.messages is None else case.messages
    clock = StillClock(at)
    around = {"lookups": case.lookups, "source": case.source, "trust": case.trust}
    around = {key: value for key, value in around.items() if value is not None}
    try:
        lines = [msgspec.json.encode({"message": message, **around}, enc_hook=str) for message in messages]
        got = [await preview(connection, line, clock) for line in lines]
    finally:
        if connection.transform is not None:
            await connection.transform.close()
    return Result(str(file), case.name, connection.name, list(_compared(case, got)), got)


def _compared(case: Case, got: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if case.expect is None:
        yield "it expects nothing; --update writes what came out"
        return
    expected = _expected(case)
    if len(expected) != len(got):
        yield f"{len(expected)} expected, {len(got)} messages given"
    for number, (wanted, line) in enumerate(zip(expected, got, strict=False)):
        place = f"[{number}]." if len(got) > 1 else ""
        if case.exact:
            shown = {key: line[key] for key in WORDS if key in wanted or (key in PLAIN and line[key])}
            yield from differences(wanted, shown, place, exact=True)
        else:
            for word, value in wanted.items():
                yield from differences(value, line.get(word), f"{place}{word}", said=word in SAID)


def differences(
    expected: Any, got: Any, place: str, *, exact: bool = False, said: bool = False
) -> Iterator[str]:
    """What differs, one line each. Without `exact` objects may have more keys; `said`: texts more words."""
    if isinstance(expected, dict) and isinstance(got, Mapping):
        yield from _objects(expected, got, place, exact=exact)
    elif said and isinstance(expected, list) and isinstance(got, list):
        for each in expected:
            if not any(str(each) in str(other) for other in got):
                yield f"{place}: {_shown(each)} expected, {_shown(got)} came"
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            yield f"{place}: {len(expected)} expected, {len(got)} came: {_shown(got)}"
        for number, (one, other) in enumerate(zip(expected, got, strict=False)):
            yield from differences(one, other, f"{place}[{number}]", exact=exact)
    elif not (said and isinstance(expected, str) and expected in str(got)) and not _same(expected, got):
        yield f"{place}: {_shown(expected)} expected, {_shown(got)} came"


def _objects(
    expected: Mapping[str, Any], got: Mapping[str, Any], place: str, *, exact: bool
) -> Iterator[str]:
    dot = "." if place and not place.endswith(".") else ""
    for key, value in expected.items():
        if key not in got:
            yield f"{place}{dot}{key}: {_shown(value)} expected, nothing came"
        else:
            yield from differences(value, got[key], f"{place}{dot}{key}", exact=exact)
    for key in got if exact else ():
        if key not in expected:
            yield f"{place}{dot}{key}: not expected, {_shown(got[key])} came"


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON is: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 300 else f"{text[:300]}…"


def update(file: Path, results: Sequence[Result]) -> int:
    """Write what came out into the cases that differ, comments and order kept; how many."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(file.read_text("utf-8"))
    changed = 0
    for case, result in zip(document["cases"], results, strict=True):
        if not result.passed:
            lines = [_kept(line) for line in result.got]
            case["expect"] = lines[0] if len(lines) == 1 else lines
            changed += 1
    text = io.StringIO()
    yaml.dump(document, text)
    if changed:
        _replace(file.resolve(), text.getvalue())
    return changed


def _replace(file: Path, text: str) -> None:
    """Write a file beside and put it in its place: what was written by hand is whole, or not changed."""
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.write_text(text, "utf-8")
        shutil.copymode(file, beside)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _kept(line: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a preview that people compare: the outcome, and what there is beside it."""
    kept = {key: line[key] for key in PLAIN if line[key]}
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(kept))
    return value


def _wrong(file: Path, title: str, fix: str) -> TowpathError:
    return TowpathError(f"{file}: {title}", code="E2401", fix=fix, data="No case of this file was run.")
