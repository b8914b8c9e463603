"""Commands that move messages: send, trigger, listen, preview."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import Config
from ..errors import TowpathError
from .client import Client, load_config
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import PARTIAL, Unreachable, show_json

CALLS = ("identify", "track", "page", "screen", "group", "alias")
SourceOption = Annotated[str | None, typer.Option(help="The source to send as; by default the first one.")]


def send(
    call: Annotated[
        str, typer.Argument(help="identify, track, page, screen, group, alias; or - to read JSON lines.")
    ],
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
    """Send one message (or JSON lines) to the running server, as an SDK would."""
    if call == "-":
        messages = [_object(line, "line") for line in sys.stdin if line.strip()]
    elif call in CALLS:
        given = {"userId": user_id, "anonymousId": anonymous_id, "event": event, "name": name}
        given |= {"previousId": previous_id, "groupId": group_id}
        fields: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        fields |= {"properties": _object(properties, "--properties")} if properties else {}
        fields |= {"traits": _object(traits, "--traits")} if traits else {}
        messages = [{"type": call, **fields}]
    else:
        raise typer.BadParameter(f"{call!r} is none of {', '.join(CALLS)}")
    _report(post_batch(load_config(config), messages, source), len(messages), as_json=json)


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = jsonlib.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{what} must be a JSON object")
    return value


def _report(answer: dict[str, Any], count: int, *, as_json: bool) -> None:
    refused = answer.get("refused", [])
    if as_json:
        show_json(answer)
    else:
        typer.echo(f"{count - len(refused)} of {count} accepted, durable")
        for item in refused:
            typer.echo(f"  [{item['index']}] {item['code']}: {item['reason']}", err=True)
    if refused:
        raise typer.Exit(PARTIAL)


def post_batch(config: Config, messages: list[dict[str, Any]], source: str | None = None) -> dict[str, Any]:
    """Post messages to the running server with a source's own write key. Raises `TowpathError`."""
    segment = {name: entry.settings for name, entry in config.sources.items() if entry.type == "segment"}
    if not segment or (source is not None and source not in segment):
        known = ", ".join(segment) or "none; add one under sources"
        raise TowpathError(f"there is no segment source {source or ''}", code="E4405", fix=f"known: {known}")
    settings = segment[source] if source else next(iter(segment.values()))
    key = settings.write_keys[0].get_secret_value()
    return _post(config.server.listen, key, jsonlib.dumps({"batch": messages}).encode())


def _post(address: str, key: str, body: bytes) -> dict[str, Any]:
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    headers = {"authorization": f"Basic {credentials}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", "/v1/batch", body, headers)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except OSError as error:
        raise Unreachable(
            f"no server answers on {address}: {error}", code="E5023", fix="towpath run"
        ) from error
    finally:
        connection.close()
    try:
        answer = jsonlib.loads(text)
    except ValueError:
        answer = {}
    if response.status != 200:
        said = answer.get("message") if isinstance(answer, dict) else None
        raise TowpathError(f"the server answered {response.status}: {said or text.strip()}", code="E5024")
    return answer if isinstance(answer, dict) else {}


def trigger(
    scenario: Annotated[
        str | None, typer.Argument(help="Which journey; without one they are listed.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    seed: Annotated[int, typer.Option(help="Another seed, other people.")] = 0,
    source: SourceOption = None,
    json: JsonOption = False,
) -> None:
    """Send a canned journey: signup, purchase, support, poison, hot_person, mixed."""
    from ..clock import SystemClock
    from ..sandbox.scenarios import SCENARIOS

    if scenario is None:
        for known in SCENARIOS.values():
            typer.echo(f"{known.name.ljust(12)} {known.description}")
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"{scenario!r} is none of {', '.join(SCENARIOS)}")
    calls = SCENARIOS[scenario].calls(seed=seed, at=SystemClock().now())
    _report(post_batch(load_config(config), calls, source), len(calls), as_json=json)


def listen(
    config: ConfigOption = DEFAULT_CONFIG,
    connection: Annotated[str | None, typer.Option(help="Only this connection.")] = None,
    json: JsonOption = False,
) -> None:
    """Show every delivery as it happens, until interrupted."""
    for line in Client(config).stream("/listen"):
        if connection and line.get("connection") not in (connection, None):
            continue
        if json:
            print(jsonlib.dumps(line, ensure_ascii=False), flush=True)
        elif "listening" in line:
            typer.echo("listening; press Ctrl-C to end")
        else:
            typer.echo(outcome_line(line))


def outcome_line(line: dict[str, Any]) -> str:
    """Show one delivery in one line."""
    marks = {"delivered": "✓", "skipped": "·", "retry": "↻", "rejected": "✗", "paused": "⏸"}
    what = " ".join(str(part) for part in (line["type"], line["event"] or "") if part)
    said = f"  {line['reason'][:100]}" if line["reason"] else ""
    code = f" {line['code']}" if line["code"] else ""
    mark = marks.get(line["outcome"], "?")
    return f"{mark} {line['connection']}  {what}  {line['person']}  {line['outcome']}{code} {line['ms']} ms{said}"


def preview(
    destination: Annotated[str, typer.Argument(help="A destination of the configuration.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what messages (JSON lines on standard input) would become, sending nothing."""
    _ = json  # the output is JSON lines either way
    connection = _connection(load_config(config), destination, config)
    asyncio.run(_preview_lines(connection))


def _connection(config: Config, name: str, file: Path) -> Any:
    from ..app import connection_of
    from ..config import ConnectionEntry

    if name not in config.destinations:
        known = ", ".join(config.destinations) or "none"
        raise TowpathError(f"{file} has no destination {name!r}", code="E4403", fix=f"known: {known}")
    mine = [entry for entry in config.connections if entry.destination == name]
    entry = mine[0] if len(mine) == 1 else ConnectionEntry("preview", frozenset({"preview"}), name)
    return connection_of(entry, config.destinations[name])


async def _preview_lines(connection: Any) -> None:
    from ..preview import preview as rehearse

    for line in sys.stdin.buffer:
        if line.strip():
            print(jsonlib.dumps(await rehearse(connection, line), ensure_ascii=False), flush=True)
