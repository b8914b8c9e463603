"""Commands about what was kept and delivered: events, deliveries, dlq, people."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .client import Client, path
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, LimitOption, YesOption
from .output import PARTIAL, WrongUse, confirm, say, show_fields, show_json, show_rows

events = typer.Typer(no_args_is_help=True, help="The kept messages.")
deliveries = typer.Typer(no_args_is_help=True, help="What became of messages at destinations.")
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: what could not be delivered or taken in.")
people = typer.Typer(no_args_is_help=True, help="One person's data: show, erase, suppress.")

EVENT_COLUMNS = [
    "position",
    "received_at",
    "source",
    "type",
    "event",
    "user_id",
    "anonymous_id",
    "message_id",
]
DONE_COLUMNS = ["connection", "position", "state", "reason", "code", "attempts", "ms", "at"]
WAITING_COLUMNS = ["connection", "position", "person", "attempts", "due", "reason"]
DEAD_COLUMNS = ["id", "connection", "type", "event", "user_id", "code", "attempts", "died_at", "reason"]
MENTION_COLUMNS = ["id", "records", "waiting", "dead"]
REFUSED_COLUMNS = ["name", "source", "at", "index", "code", "reason"]
DIGITS_MAX = 40

Ids = Annotated[list[str], typer.Argument(help="Exact userIds or anonymousIds.")]
Letters = Annotated[list[str] | None, typer.Argument(metavar="NUMBERS", help="Numbers of dead letters.")]
LettersOrRefused = Annotated[
    list[str] | None,
    typer.Argument(metavar="NUMBERS", help="Numbers of dead letters; r7 is the refused item 7."),
]
ConnectionFilter = Annotated[str | None, typer.Option("--connection", help="Only this connection.")]
CodeFilter = Annotated[int | None, typer.Option("--code", help="Only this HTTP status.")]
PersonFilter = Annotated[
    str | None, typer.Option("--person", help="Only this person, as `people show` names it.")
]
MessageFilter = Annotated[str | None, typer.Option("--message-id", help="Only this message.")]
ReasonFilter = Annotated[str | None, typer.Option("--reason", help="Only this reason.")]


@events.command("list")
def list_events(
    config: ConfigOption = DEFAULT_CONFIG,
    limit: LimitOption = 20,
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    json: JsonOption = False,
) -> None:
    """Show the newest messages."""
    rows = Client(config).get("/events", limit=limit, source=source)
    show_rows(
        rows, EVENT_COLUMNS, "no events yet; try  towpath send track --user-id u1 --event Hello", as_json=json
    )


@events.command("show")
def show_event(
    name: Annotated[str, typer.Argument(help="A message id or a position.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show a message as it was received."""
    found = Client(config).get(path("events", name))
    if json:
        show_json(found)
        return
    for event in found:
        show_fields({key: value for key, value in event.items() if key != "deliveries"}, as_json=False)
        say("")


@events.command("trace")
def trace_event(
    name: Annotated[str, typer.Argument(help="A message id or a position.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what became of a message at every destination."""
    found = Client(config).get(path("events", name))
    if json:
        show_json(found)
        return
    for event in found:
        who = event["user_id"] or event["anonymous_id"]
        say(f"{event['type']}  {event['event'] or ''}  {who}   source {event['source']}")
        say(f"  received {event['received_at']}  position {event['position']}")
        show_rows(event["deliveries"], DONE_COLUMNS, "  not delivered yet", as_json=False)


@deliveries.command("list")
def list_deliveries(
    config: ConfigOption = DEFAULT_CONFIG,
    connection: ConnectionFilter = None,
    limit: LimitOption = 20,
    json: JsonOption = False,
) -> None:
    """Show deliveries that wait, then the newest that ended."""
    found = Client(config).get("/deliveries", connection=connection, limit=limit)
    if json:
        show_json(found)
        return
    show_rows(found["waiting"], WAITING_COLUMNS, "none is parked", as_json=False)
    show_rows(found["ended"], DONE_COLUMNS, "none has ended yet", as_json=False)


@deliveries.command("show")
def show_delivery(
    position: Annotated[int, typer.Argument(help="The message's position.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show one message's deliveries."""
    rows = Client(config).get(path("deliveries", position))
    show_rows(rows, DONE_COLUMNS, "nothing is known of this position", as_json=json)


@deliveries.command("retry")
def retry_deliveries(
    config: ConfigOption = DEFAULT_CONFIG, connection: ConnectionFilter = None, json: JsonOption = False
) -> None:
    """Try parked deliveries now instead of when they are due."""
    counts = Client(config).post("/deliveries/retry", {"connection": connection})
    if json:
        show_json(counts)
        return
    say(f"{sum(counts.values())} deliveries are due now")


@dlq.command("list")
def list_letters(
    config: ConfigOption = DEFAULT_CONFIG,
    connection: ConnectionFilter = None,
    code: CodeFilter = None,
    reason: ReasonFilter = None,
    person: PersonFilter = None,
    limit: LimitOption = 50,
    refused: Annotated[bool, typer.Option("--refused", help="Items that ingest would not take.")] = False,
    json: JsonOption = False,
) -> None:
    """Show dead letters, newest first."""
    client = Client(config)
    if refused:
        if any(given is not None for given in (connection, code, reason, person)):
            raise WrongUse(
                "--refused takes no other filter", code="E5032",
                why="what was not taken in has no connection, no status and no person",
                fix="towpath dlq list --refused --limit 50",
            )  # fmt: skip
        show_rows(client.get("/refusals", limit=limit), REFUSED_COLUMNS, "nothing was refused", as_json=json)
        return
    rows = client.get("/dlq", connection=connection, code=code, reason=reason, person=person, limit=limit)
    show_rows(rows, DEAD_COLUMNS, "no dead letters", as_json=json)


@dlq.command("show")
def show_letter(
    number: Annotated[
        str, typer.Argument(metavar="NUMBER", help="The dead letter's number; r7 is the refused item 7.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show a dead letter with message, request and answer, or a refused item.

    Example:  towpath dlq show r7
    """
    letters, refused = _numbers([number])
    where = path("dlq", letters[0]) if letters else path("refusals", refused[0])
    show_fields(Client(config).get(where), as_json=json)


@dlq.command("replay")
def replay_letters(
    numbers: Letters = None,
    config: ConfigOption = DEFAULT_CONFIG,
    connection: ConnectionFilter = None,
    code: CodeFilter = None,
    reason: ReasonFilter = None,
    person: PersonFilter = None,
    message_id: MessageFilter = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    json: JsonOption = False,
) -> None:
    """Deliver dead letters again: by number, by filter, or all. A number that is not there replays nothing.

    Example:  towpath dlq replay --connection kustomer --code 400
    """
    if refused := _numbers(numbers or [])[1]:
        raise _never_taken(refused[0])
    where = _filter(numbers, connection, code, reason, person, message_id, everything=everything)
    counts = Client(config).post("/dlq/replay", where)
    if json:
        show_json(counts)
        return
    say(f"{sum(counts.values())} dead letters go again")


@dlq.command("drop")
def drop_letters(
    numbers: LettersOrRefused = None,
    config: ConfigOption = DEFAULT_CONFIG,
    connection: ConnectionFilter = None,
    code: CodeFilter = None,
    reason: ReasonFilter = None,
    person: PersonFilter = None,
    message_id: MessageFilter = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Delete dead letters, or refused items, for good. A number that is not there deletes nothing.

    Example:  towpath dlq drop 7 r12 --yes
    """
    where = _filter(numbers, connection, code, reason, person, message_id, everything=everything)
    what = "letters and refused items" if "refused" in where else "dead letters"
    client = Client(config)
    if not yes:
        count = client.post("/dlq/count", where)["count"]
        confirm(f"Delete {count} {what}? They cannot be replayed after that.", yes=yes)
    dropped = client.post("/dlq/drop", where)
    if json:
        show_json(dropped)
        return
    say(f"{dropped['dropped']} {what} deleted")


def _numbers(names: list[str]) -> tuple[list[int], list[int]]:
    """The numbers of dead letters, and those of refused items: they are counted apart, and have an r."""
    for name in names:
        digits = name.removeprefix("r")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= DIGITS_MAX):
            raise typer.BadParameter(
                f"{name!r} is no number of a dead letter, like 7, or refused item, like r7"
            )
    letters = [int(name) for name in names if name[0] != "r"]
    return letters, [int(name[1:]) for name in names if name[0] == "r"]


def _never_taken(number: int) -> WrongUse:
    return WrongUse(
        "a refused item cannot be replayed",
        code="E5033",
        why="it was never taken in: its sender was told, or is a source that sent something unusable",
        fix=f"towpath dlq show r{number}  says what is wrong; send it again as it should be",
        data="Nothing was changed.",
    )


def _filter(
    numbers: list[str] | None,
    connection: str | None,
    code: int | None,
    reason: str | None,
    person: str | None,
    message_id: str | None,
    *,
    everything: bool,
) -> dict[str, Any]:
    letters, refused = _numbers(numbers or [])
    where = {
        "ids": letters if numbers else None,
        "refused": refused or None,
        "connection": connection,
        "code": code,
        "reason": reason,
        "person": person,
        "message_id": message_id,
    }
    given = {name: value for name, value in where.items() if value is not None}
    if not given and not everything:
        title = "name dead letters by number or by a filter, or say --all"
        raise WrongUse(title, code="E5032", fix="towpath dlq list  shows them", data="Nothing was changed.")
    return {**given, "limit": 10_000_000}


@people.command("show")
def show_person(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="A userId or anonymousId.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show what is known of a person: linked ids, what waits, what died."""
    show_fields(Client(config).get(path("people", identifier)), as_json=json)


@people.command("erase")
def erase_person(
    ids: Ids, config: ConfigOption = DEFAULT_CONFIG, yes: YesOption = False, json: JsonOption = False
) -> None:
    """Remove every message that names these exact ids, from all files here, for good.

    Without --yes it shows what would go and asks.  Example:  towpath people erase u1 anonymous-7
    """
    client = Client(config)
    if not yes and not json:
        rows = client.post("/people/mentions", {"ids": ids})
        show_rows(rows, MENTION_COLUMNS, "nothing names these ids", as_json=False)
    if not yes:
        confirm("Erase all of this for good? A message that names several ids goes as a whole.", yes=yes)
    receipt = client.post("/people/erase", {"ids": ids})
    show_fields(receipt, as_json=json)
    if "incomplete" in receipt:
        raise typer.Exit(PARTIAL)


@people.command("suppress")
def suppress_person(ids: Ids, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Deliver nothing more of these ids; their messages are still taken in.

    Example:  towpath people suppress u1
    """
    show_fields(Client(config).post("/people/suppress", {"ids": ids}), as_json=json)


@people.command("unsuppress")
def unsuppress_person(ids: Ids, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Deliver these ids again."""
    show_fields(Client(config).post("/people/unsuppress", {"ids": ids}), as_json=json)
