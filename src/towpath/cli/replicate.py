"""Commands of replication: what there is, what it would cost, running it, how fresh everything is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import jobs
from .client import Client, path
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, YesOption
from .output import FAILURE, OK, PARTIAL, WrongUse, confirm, say, show_fields, show_json, show_rows

replicate = typer.Typer(
    no_args_is_help=True, help="Customer.io copied into a warehouse: tables, cost, runs, freshness."
)
state = typer.Typer(no_args_is_help=True, help="Where each table's reading stands.")
replicate.add_typer(state, name="state")

UNKNOWN = "E4431"
NEEDS_A_NAME = "E4432"
TABLE_COLUMNS = ["table", "also_called", "method", "key", "endpoint", "under", "deletes", "columns"]
COLUMN_COLUMNS = ["table", "column", "kind", "treated", "about"]
CHECK_COLUMNS = ["workspace", "table", "ok", "detail"]
PLAN_COLUMNS = ["workspace", "table", "requests", "rows", "seconds", "basis"]
STATUS_COLUMNS = ["workspace", "table", "rows", "deleted", "loaded_at", "cursor", "note"]
COMPARE_COLUMNS = ["workspace", "table", "rows", "counted", "good", "words"]
STATE_COLUMNS = ["key", "value"]

ReplicationOption = Annotated[
    str | None, typer.Option("--replication", "-r", help="Which one, where the configuration has several.")
]
TablesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="TABLE", help="Only these tables; Qlik's names work too.")
]


@replicate.command("discover")
def discover(
    tables: TablesArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    columns: Annotated[bool, typer.Option("--columns", help="Show every column with its meaning.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Ask Customer.io, table by table, whether the key may read it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the tables: other names, method, key, cursor, how they are read, what becomes of deleted rows.

    Example:  towpath replicate discover messages --columns
    """
    client, name = _chosen(config, replication)
    if check:
        checks = client.post(path("replications", name, "check"), {"tables": tables or []})
        show_rows(checks, CHECK_COLUMNS, "no table is selected", as_json=json)
        raise typer.Exit(OK if all(line["ok"] for line in checks) else FAILURE)
    rows = client.post(path("replications", name, "discover"), {"tables": tables or []})
    if json:
        show_json(rows)
    elif columns:
        flat = [{"table": row["table"], **column} for row in rows for column in row["columns"]]
        show_rows(flat, COLUMN_COLUMNS, "no table is selected", as_json=False)
    else:
        shown = [{**row, "columns": len(row["columns"])} for row in rows]
        show_rows(shown, TABLE_COLUMNS, "no table is selected", as_json=False)


@replicate.command("plan")
def plan(
    tables: TablesArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    full: Annotated[bool, typer.Option("--full", help="As if nothing had been read yet.")] = False,
    json: JsonOption = False,
) -> None:
    """Say what a run would cost: requests, rows, and the time that takes under the rate limit.

    Example:  towpath replicate plan customers
    """
    client, name = _chosen(config, replication)
    found = client.post(path("replications", name, "plan"), {"tables": tables or [], "full": full})
    if json:
        show_json(found)
        return
    show_rows(found["tables"], PLAN_COLUMNS, "no table is selected", as_json=False)
    pace = f"{found['time']} at {found['per_s']:g} requests a second"
    say(f"{found['requests']:,} requests, {found['rows']:,} rows, {pace}")
    for note in found["notes"]:
        say(note)


@replicate.command("run")
def run(
    tables: TablesArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    since: Annotated[
        str | None, typer.Option(help="Read what changed since then (MM/DD/YYYY or ISO), whatever was read.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything again.")] = False,
    accept_deletes: Annotated[
        bool, typer.Option("--accept-deletes", help="Believe that so many rows are gone (see `guard`).")
    ] = False,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="Start it and leave; see towpath jobs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Read what is new into the warehouse, and follow it to its end. A run that died goes on where it was.

    Example:  towpath replicate run campaigns messages
    """
    given = {"tables": tables, "since": since, "full": full, "accept_deletes": accept_deletes}
    _start(config, replication, {key: value for key, value in given.items() if value}, not no_follow, json)


@replicate.command("backfill")
def backfill(
    table: Annotated[str, typer.Argument(help="The table.")],
    begin: Annotated[str, typer.Option("--from", help="The first day (MM/DD/YYYY or ISO).")],
    end: Annotated[str, typer.Option("--to", help="The day, or the time, where it ends.")],
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="Start it and leave; see towpath jobs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Read a span of time again, without moving the cursor.

    Example:  towpath replicate backfill messages --from 2025-01-01 --to 2025-02-01
    """
    given = {"tables": [table], "window_from": begin, "window_to": end}
    _start(config, replication, given, not no_follow, json)


def _start(config: Path, replication: str | None, given: dict[str, Any], follow: bool, as_json: bool) -> None:
    client, name = _chosen(config, replication)
    job = client.post(path("replications", name, "job"), given)
    jobs.start(config, job["job"], job["settings"], follow=follow, as_json=as_json)


@replicate.command("status")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare row counts with what Customer.io counts itself.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show every table: rows, how fresh, where its cursor stands, what the last run said.

    Example:  towpath replicate status
    """
    client, name = _chosen(config, replication)
    if compare:
        lines = client.post(path("replications", name, "compare"))
        show_rows(lines, COMPARE_COLUMNS, "none of these tables is counted there", as_json=json)
        raise typer.Exit(OK if all(line["good"] for line in lines) else FAILURE)
    found = client.get(path("replications", name))
    if json:
        show_json(found)
        return
    show_rows(
        found["tables"], STATUS_COLUMNS, "nothing has been read yet;  towpath replicate run", as_json=False
    )
    for note in found["notes"]:
        say(note)
    say(f"schedule: {found['schedule'] or 'none'}; into {found['target']}")


@replicate.command("reset")
def reset(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE", help="These tables.")],
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    keep_rows: Annotated[
        bool, typer.Option("--keep-rows", help="Forget only how far they were read; their rows stay.")
    ] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Empty tables in the warehouse and forget how far they were read: the next run reads them whole.

    Example:  towpath replicate reset messages --keep-rows
    """
    client, name = _chosen(config, replication)
    if not keep_rows:
        confirm(f"Empty {', '.join(tables)} in the warehouse?", yes=yes)
    body = {"tables": tables, "keep_rows": keep_rows}
    show_fields(client.post(path("replications", name, "reset"), body), as_json=json)


@replicate.command("import-state")
def import_state(
    file: Annotated[
        Path, typer.Argument(help="A state of Singer, Stitch, Qlik or Airbyte, or CSV; `-` is stdin.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    workspace: Annotated[
        str | None, typer.Option(help="The account it is of, where the replication has several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it says, and keep nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Begin where another tool ended: take over its cursors.

    Example:  towpath replicate import-state state.json --dry-run
    """
    client, name = _chosen(config, replication)
    body = {"text": _text(file), "workspace": workspace, "dry_run": dry_run}
    found = client.post(path("replications", name, "import-state"), body)
    if json:
        show_json(found)
    else:
        show_rows(
            found["cursors"], ["table", "cursor"], "no cursor of a table that is read here", as_json=False
        )
        for note in found["notes"]:
            say(note)
    if not found["cursors"]:
        raise typer.Exit(PARTIAL)


@replicate.command("models")
def models(
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, and run nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Make the ready views: funnels, engagement, deliverability, growth. They can be made again at any time.

    Example:  towpath replicate models --sql
    """
    client, name = _chosen(config, replication)
    found = client.post(path("replications", name, "models"), {"dry_run": sql})
    if json:
        show_json(found)
    elif sql:
        say("\n\n".join(statement for view in found for statement in view["statements"]))
    else:
        show_rows(
            found, ["view", "made", "about", "why_not", "notes"], "no model fits the tables", as_json=False
        )


@state.command("show")
def show_state(
    config: ConfigOption = DEFAULT_CONFIG, replication: ReplicationOption = None, json: JsonOption = False
) -> None:
    """Show what is kept: cursors, and places of a run that has not ended."""
    client, name = _chosen(config, replication)
    rows = client.get(path("replications", name, "state"))
    show_rows(rows, STATE_COLUMNS, "nothing is kept", as_json=json)


@state.command("set")
def set_state(
    table: Annotated[str, typer.Argument(help="The table.")],
    cursor: Annotated[str, typer.Argument(help="Where it stands: MM/DD/YYYY, ISO, or Unix seconds.")],
    config: ConfigOption = DEFAULT_CONFIG,
    replication: ReplicationOption = None,
    workspace: Annotated[
        str | None, typer.Option(help="The account, where the replication has several.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Set a table's cursor: the next run reads what changed since then.

    Example:  towpath replicate state set messages 2025-06-01
    """
    client, name = _chosen(config, replication)
    body = {"table": table, "cursor": cursor, "workspace": workspace}
    show_fields(client.post(path("replications", name, "state"), body), as_json=json)


def _chosen(config: Path, wanted: str | None) -> tuple[Client, str]:
    """The client, and the replication that is wanted or the only one. Raises `WrongUse`."""
    client = Client(config)
    names = [row["replication"] for row in client.get("/replications")]
    if wanted in names or (wanted is None and len(names) == 1):
        return client, wanted or names[0]
    listed = ", ".join(names)
    raise WrongUse(
        f"there is no replication {wanted!r}" if wanted else "the configuration has no replication"
        if not names else f"the configuration has several replications: {listed}",
        code=UNKNOWN if wanted or not names else NEEDS_A_NAME,
        fix=(f"known: {listed}" if wanted else "name one with --replication") if names
        else "add a section  replications:  (docs/replication.md)",
        data="Nothing was started or changed.",
    )  # fmt: skip


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    except OSError as error:
        raise WrongUse(f"{file} cannot be read: {error.strerror}", code="E5060") from None
    except UnicodeDecodeError:
        raise WrongUse(f"{file} is no UTF-8 text", code="E5060") from None
