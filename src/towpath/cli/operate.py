"""Commands for those who run it: destinations, connectors, secrets, audit, status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .client import Client, path
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import FAILURE, show_fields, show_json, show_rows

destinations = typer.Typer(no_args_is_help=True, help="Where messages go: list, test, pause, resume.")
connectors = typer.Typer(no_args_is_help=True, help="Every source and destination by its unique name.")
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
            typer.echo(f"{'✓' if check['ok'] else '✗'} {check['name']}{detail}")
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
    """Deliver again."""
    show_fields(Client(config).post(path("destinations", name, "resume")), as_json=json)


@connectors.command("list")
def list_connectors(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show every source and destination of the configuration."""
    show_rows(_connectors(config), ["name", "role", "type"], "none is configured", as_json=json)


def _connectors(config: Any) -> list[dict[str, Any]]:
    from .client import load_config

    loaded = load_config(config)
    sources = [{"name": name, "role": "source", "type": entry.type} for name, entry in loaded.sources.items()]
    return [
        *sources,
        *({"name": name, "role": "destination", "type": e.type} for name, e in loaded.destinations.items()),
    ]


@connectors.command("show")
def show_connector(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one of them, and what its type can do."""
    found = [row for row in _connectors(config) if row["name"] == name]
    if not found:
        raise typer.BadParameter(f"nothing is called {name!r}; see  towpath connectors list")
    show_fields({**found[0], **_about(found[0])}, as_json=json)


def _about(row: dict[str, Any]) -> dict[str, Any]:
    from .. import registry

    kinds = registry.destinations() if row["role"] == "destination" else registry.sources()
    kind = kinds[row["type"]]
    settings = getattr(kind, "Settings", kind)
    schema = settings.model_json_schema()
    about = {key: field.get("description", "") for key, field in schema.get("properties", {}).items()}
    return {"about": (kind.__doc__ or "").strip().splitlines()[0], "settings": about}


@connectors.command("test")
def test_connector(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check one of them."""
    if any(row["name"] == name and row["role"] == "source" for row in _connectors(config)):
        show_checks([{"name": f"{name} is configured", "ok": True}], as_json=json)
        return
    test_destination(name, config, json)


@secrets.command("set")
def set_secret(
    name: Annotated[str, typer.Argument(help="What ${secret:…} calls it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Keep a secret; its value is read from standard input, never from the command line."""
    value = typer.prompt("value", hide_input=True) if sys.stdin.isatty() else sys.stdin.read().rstrip("\r\n")
    show_fields(Client(config).call("PUT", path("secrets", name), {"value": value}), as_json=json)


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


def status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show what runs: sources, connections, pauses."""
    show_fields(Client(config).get("/status"), as_json=json)
