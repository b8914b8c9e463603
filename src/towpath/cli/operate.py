"""Commands for those who run it: destinations, connectors, secrets, audit, status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .client import Client, path
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption
from .output import (
    FAILURE,
    PARTIAL,
    WrongUse,
    confirm,
    line_words,
    say,
    show_fields,
    show_json,
    show_rows,
)

destinations = typer.Typer(no_args_is_help=True, help="Where messages go: list, test, pause, resume.")
connectors = typer.Typer(no_args_is_help=True, help="Every source and destination by its unique name.")
connections = typer.Typer(no_args_is_help=True, help="Which source feeds which destination.")
secrets = typer.Typer(
    no_args_is_help=True, help="Encrypted secrets, used as ${secret:name} in the configuration."
)
audit = typer.Typer(no_args_is_help=True, help="Proofs about the data.")

Name = Annotated[str, typer.Argument(help="Its name in the configuration.")]


@destinations.command("list")
def list_destinations(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show destinations and what stands still."""
    rows = Client(config).get("/destinations")
    if not json:
        rows = [{**row, "pauses": [pause["reason"] for pause in row["pauses"]]} for row in rows]
    show_rows(rows, ["name", "type", "account", "connections", "pauses"], "no destinations", as_json=json)


@destinations.command("test")
def test_destination(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check a destination's credentials, changing nothing there."""
    show_checks(Client(config).post(path("destinations", name, "test")), as_json=json)


def show_checks(checks: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print check lines; leave with exit code 1 when one fails."""
    if as_json:
        show_json(checks)
    else:
        for check in checks:
            detail = f"  {check['detail']}" if check.get("detail") else ""
            say(f"{'✓' if check['ok'] else '✗'} {check['name']}{detail}")
    if not all(check["ok"] for check in checks):
        raise typer.Exit(FAILURE)


@destinations.command("pause")
def pause_destination(
    name: Name,
    config: ConfigOption = DEFAULT_CONFIG,
    reason: Annotated[str, typer.Option(help="Why, for others to read.")] = "",
    json: JsonOption = False,
) -> None:
    """Let everything for a destination wait until it is resumed; nothing is lost."""
    show_fields(Client(config).post(path("destinations", name, "pause"), {"reason": reason}), as_json=json)


@destinations.command("resume")
def resume_destination(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Deliver again; deletions that the delete guard holds wait for connections confirm-deletes."""
    show_fields(Client(config).post(path("destinations", name, "resume")), as_json=json)


@connections.command("list")
def list_connections(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show connections and what waits on them, also those that the configuration no longer has."""
    rows = Client(config).get("/connections")
    columns = ["name", "configured", "waiting", "dead"]
    columns += ["leaving"] if any(row["leaving"] for row in rows) else []
    show_rows(rows, columns, "no connections", as_json=json)


@connections.command("confirm-deletes")
def confirm_deletes(
    name: Annotated[str, typer.Argument(help="The connection on which deletions of people wait.")],
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Let the deletions go that the delete guard holds: all that were accepted until now.

    Example:  towpath connections confirm-deletes customerio
    """
    question = f"Delete these people at the destination of {name}?"
    show_fields(_decide(Client(config), name, "confirm-deletes", question, yes=yes), as_json=json)


@connections.command("discard-deletes")
def discard_deletes(
    name: Annotated[str, typer.Argument(help="The connection on which deletions of people wait.")],
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Skip the deletions that the delete guard holds: all that were accepted until now and did not go.

    Example:  towpath connections discard-deletes customerio
    """
    question = f"Never delete these people at the destination of {name}?"
    show_fields(_decide(Client(config), name, "discard-deletes", question, yes=yes), as_json=json)


def _decide(client: Client, name: str, what: str, question: str, *, yes: bool) -> Any:
    """Show what waits, ask, and do it."""
    held = client.get(path("connections", name, "deletes"))
    if not yes:
        waiting = "" if held["waiting"] is None else f"; {held['waiting']:,} or more wait"
        typer.echo(f"since {held['since']}: {held['reason']}{waiting}", err=True)
    confirm(question, yes=yes)
    return client.post(path("connections", name, what), {"upto": held["upto"]})


@connections.command("drop")
def drop_connection(
    name: Annotated[str, typer.Argument(help="A connection that the configuration no longer has.")],
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Forget a connection for good: what waits on it is not delivered, its dead letters go."""
    confirm(f"Forget everything about the connection {name}?", yes=yes)
    show_fields(Client(config).call("DELETE", path("connections", name)), as_json=json)


@connectors.command("list")
def list_connectors(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show every source and destination of the configuration."""
    rows = Client(config).get("/connectors")
    show_rows(rows, ["name", "role", "type"], "none is configured", as_json=json)


@connectors.command("show")
def show_connector(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one of them, and what its type can do."""
    show_fields(Client(config).get(path("connectors", name)), as_json=json)


@connectors.command("test")
def test_connector(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check one of them."""
    found = Client(config).get(path("connectors", name))
    show_checks(Client(config).post(path(f"{found['role']}s", name, "test")), as_json=json)


@secrets.command("set")
def set_secret(
    name: Annotated[str, typer.Argument(help="What ${secret:…} calls it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Keep a secret; its value is read from standard input, never from the command line.

    Example:  towpath secrets set kustomer_key < key.txt
    """
    value = typer.prompt("value", hide_input=True) if sys.stdin.isatty() else _piped()
    done = Client(config).call("PUT", path("secrets", name), {"value": value})
    show_fields(done, as_json=json)
    if not done["applied"] and done.get("running", True):
        raise typer.Exit(PARTIAL)


def _piped() -> str:
    try:
        return sys.stdin.buffer.read().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise WrongUse("a secret must be UTF-8 text", code="E5015", data="Nothing was changed.") from None


@secrets.command("list")
def list_secrets(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show the names of secrets; values are never shown."""
    show_rows(Client(config).get("/secrets"), ["name", "updated_at"], "no secrets", as_json=json)


@secrets.command("delete")
def delete_secret(
    name: Annotated[str, typer.Argument(help="Its name.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Forget a secret."""
    show_fields(Client(config).call("DELETE", path("secrets", name)), as_json=json)


@secrets.command("rekey")
def rekey_secrets(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Seal every secret anew with a fresh key; the key file keeps the old one for other data directories."""
    show_fields(Client(config).post("/secrets/rekey"), as_json=json)


@audit.command("balance")
def show_balance(
    config: ConfigOption = DEFAULT_CONFIG,
    recount: Annotated[
        bool, typer.Option("--recount", help="Count again from the log and the rows.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Prove that nothing is missing: accepted = delivered + waiting + dead + skipped + erased."""
    rows = Client(config).get("/balance", recount="true" if recount else None)
    columns = ["connection", "accepted", "delivered", "waiting", "dead", "skipped", "erased", "difference"]
    show_rows(rows, columns, "no connections", as_json=json)
    if any(row["difference"] for row in rows):
        raise typer.Exit(FAILURE)


def _heard_columns(heard: dict[str, Any]) -> list[str]:
    """What is only told of sources beside the event API, where it says anything."""
    told = ("ignored", "unauthorized", "line")
    return [name for name in told if any(line[name] for line in heard.values())]


def status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show what runs: sources, connections, pauses; also without a server, what is kept."""
    found = Client(config).get("/status")
    if json:
        show_json(found)
        return
    tables = ("sources", "connections", "pauses", "heard")
    show_fields({name: value for name, value in found.items() if name not in tables}, as_json=False)
    heard = {
        name: {**row, "line": row["line"] and line_words(row["line"])} for name, row in found["heard"].items()
    }
    counted = found["sources"]
    names = dict.fromkeys([*counted, *heard])
    sources = [{"source": name, **counted.get(name, {}), **heard.get(name, {})} for name in names]
    columns = ["source", "accepted", "duplicates", "refused", *_heard_columns(heard)]
    show_rows(sources, columns, "\nno source yet", as_json=False)
    rows = [{"connection": name, **line} for name, line in found["connections"].items()]
    columns = ["connection", "destination", "state", "why", "in_memory", "cursor", "failures", "failure"]
    show_rows(rows, columns, "no connection is at work", as_json=False)
    show_rows(found["pauses"], ["connection", "capability", "since", "reason"], "no pauses", as_json=False)
