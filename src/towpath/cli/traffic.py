"""Commands that move messages: send, trigger, listen, preview."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from ..errors import TowpathError
from .client import Client, load_config
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import PARTIAL, WrongUse, line_words, plain, say, show_json

if TYPE_CHECKING:
    from ..config import Config
    from ..connection import Connection

CALLS = ("identify", "track", "page", "screen", "group", "alias")
BATCH = 500
BATCH_BYTES = 1_000_000
MARKS = {"delivered": "✓", "skipped": "·", "retry": "↻", "rejected": "✗", "paused": "⏸"}

SourceOption = Annotated[str | None, typer.Option(help="The source to send as; by default the first one.")]


def send(
    call: Annotated[
        str,
        typer.Argument(
            help="identify, track, page, screen, group, alias; or - for JSON lines from standard input."
        ),
    ] = "-",
    config: ConfigOption = DEFAULT_CONFIG,
    user_id: Annotated[str | None, typer.Option(help="The userId.")] = None,
    anonymous_id: Annotated[str | None, typer.Option(help="The anonymousId.")] = None,
    event: Annotated[str | None, typer.Option(help="The event's name, for track.")] = None,
    name: Annotated[str | None, typer.Option(help="The name, for page and screen.")] = None,
    previous_id: Annotated[str | None, typer.Option(help="The previousId, for alias.")] = None,
    group_id: Annotated[str | None, typer.Option(help="The groupId, for group.")] = None,
    properties: Annotated[str | None, typer.Option(help="Properties as a JSON object.")] = None,
    traits: Annotated[str | None, typer.Option(help="Traits as a JSON object.")] = None,
    source: SourceOption = None,
    json: JsonOption = False,
) -> None:
    """Send one message (or JSON lines) to the running server, as an SDK would.

    Example:  towpath send track --user-id u1 --event Hello --properties '{"plan": "pro"}'
    """
    if call == "-":
        if sys.stdin.isatty():
            raise typer.BadParameter(f"name one of {', '.join(CALLS)}, or pipe JSON lines in")
        messages: Iterable[dict[str, Any]] = _lines()
    elif call in CALLS:
        given = {"userId": user_id, "anonymousId": anonymous_id, "event": event, "name": name}
        given |= {"previousId": previous_id, "groupId": group_id}
        fields: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        fields |= {"properties": _object(properties, "--properties")} if properties else {}
        fields |= {"traits": _object(traits, "--traits")} if traits else {}
        messages = [{"type": call, **fields}]
    else:
        raise typer.BadParameter(f"{call!r} is none of {', '.join(CALLS)}, or -")
    _post(Client(config), messages, source, as_json=json)


def _lines() -> Iterator[dict[str, Any]]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        if line.strip():
            yield _object(line, f"line {number}")


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = jsonlib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unusable(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _unusable(f"{what} must be a JSON object")
    return value


def _unusable(title: str) -> TowpathError:
    return WrongUse(
        title, code="E5031", fix='write it like {"key": "value"}', data="From here on nothing was sent."
    )


def _post(client: Client, messages: Iterable[dict[str, Any]], source: str | None, *, as_json: bool) -> None:
    """Send in batches, and say what was taken in, also when a later batch fails."""
    count = 0
    refused: list[dict[str, Any]] = []
    try:
        for batch in _batches(messages):
            answer = client.post("/send", {"source": source, "messages": batch}, running=True)
            refused += [{**item, "index": item["index"] + count} for item in answer.get("refused", [])]
            count += len(batch)
    except TowpathError as error:
        if count:
            error.data = f"{count - len(refused)} messages before it were accepted and are on disk."
        raise
    _report(count, refused, as_json=as_json)


def _batches(messages: Iterable[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(jsonlib.dumps(message))
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _report(count: int, refused: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        show_json({"accepted": count - len(refused), "refused": refused})
    else:
        say(f"{count - len(refused)} of {count} accepted, on disk")
        for item in refused:
            say(f"  [{item['index']}] {item['code']}: {item['reason']}", err=True)
    if refused:
        raise typer.Exit(PARTIAL)


def trigger(
    scenario: Annotated[
        str | None, typer.Argument(help="Which journey; without one they are listed.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    seed: Annotated[int, typer.Option(help="Another seed, other people.")] = 0,
    source: SourceOption = None,
    json: JsonOption = False,
) -> None:
    """Send a canned journey: signup, purchase, support, poison, hot_person, mixed.

    Example:  towpath trigger purchase --seed 2
    """
    from ..clock import SystemClock
    from ..sandbox.scenarios import SCENARIOS

    if scenario is None:
        _show_scenarios({known.name: known.description for known in SCENARIOS.values()}, as_json=json)
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"{scenario!r} is none of {', '.join(SCENARIOS)}")
    calls = SCENARIOS[scenario].calls(seed=seed, at=SystemClock().now())
    _post(Client(config), [dict(call) for call in calls], source, as_json=json)


def _show_scenarios(scenarios: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        show_json(scenarios)
        return
    for name, description in scenarios.items():
        say(f"{name.ljust(12)} {description}")


def listen(
    config: ConfigOption = DEFAULT_CONFIG,
    connection: Annotated[str | None, typer.Option(help="Only this connection.")] = None,
    json: JsonOption = False,
) -> None:
    """Show every delivery as it happens, until interrupted."""
    client = Client(config)
    if connection:
        # One that is not there would never be heard.
        client.call("GET", f"/deliveries?{urlencode({'connection': connection, 'limit': 1})}", running=True)
    for line in client.stream("/listen"):
        if connection and line.get("connection") not in (connection, None):
            continue
        if json:
            print(jsonlib.dumps(line), flush=True)
        elif "listening" in line:
            say("listening; press Ctrl-C to end")
        elif "line" in line:
            say(f"⚠ {line['line']}: {line_words(line)}" if line["why"] else f"✓ {line['line']} hears again")
        else:
            say(outcome_line(line))
        sys.stdout.flush()


def outcome_line(line: dict[str, Any]) -> str:
    """Show one delivery in one line."""
    what = " ".join(str(part) for part in (line["type"], line["event"] or "") if part)
    reason = " ".join(line["reason"].split())[:100]
    said = f"  {reason}" if reason else ""
    code = f" {line['code']}" if line["code"] else ""
    mark, who = MARKS.get(line["outcome"], "?"), line["person"]
    shown = f"{mark} {line['connection']}  {what}  {who}  {line['outcome']}{code} {line['ms']} ms{said}"
    return plain(shown).replace("\n", " ")


def preview(
    destination: Annotated[
        str, typer.Argument(help="A destination of the configuration, or one of its connections.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what messages (JSON lines on standard input) would become, sending nothing.

    Where the connection filters, transforms or maps, `stages` shows the message at each step.

    Example:  echo '{"type":"track","userId":"u1","event":"Hello"}' | towpath preview kustomer
    """
    _ = json  # the output is JSON lines either way
    connection = _connection(load_config(config), destination, config)
    asyncio.run(_preview_lines(connection))


def _connection(config: Config, name: str, file: Path) -> Connection:
    from ..wiring import connection_named

    connection = connection_named(config, name)
    if connection is None:
        known = ", ".join(dict.fromkeys([*config.destinations, *(each.name for each in config.connections)]))
        raise WrongUse(f"{file} has no destination {name!r}", code="E4403", fix=f"known: {known or 'none'}")
    return connection


async def _preview_lines(connection: Connection) -> None:
    from ..preview import preview as rehearse

    try:
        for line in sys.stdin.buffer:
            if line.strip():
                print(jsonlib.dumps(await rehearse(connection, line)), flush=True)
    finally:
        if connection.transform is not None:
            await connection.transform.close()
