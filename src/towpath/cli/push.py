"""Commands of push: devices, sending a campaign, and following it to its end."""

from __future__ import annotations

import csv
import json as jsonlib
import re
import sys
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from . import jobs
from .client import Client, path
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, LimitOption, YesOption
from .output import FAILURE, PARTIAL, WrongUse, confirm, say, show_fields, show_json, show_rows

push = typer.Typer(no_args_is_help=True, help="Push: devices and campaigns.")
devices = typer.Typer(no_args_is_help=True, help="The registry of devices.")
campaigns = typer.Typer(no_args_is_help=True, help="Campaigns that were sent, or are being sent.")
push.add_typer(devices, name="devices")
push.add_typer(campaigns, name="campaigns")

PAGE = 1000
DEVICE_COLUMNS = ["device_id", "user_id", "device_type", "status", "reason", "registered_at", "last_seen"]
CAMPAIGN_COLUMNS = [
    "campaign",
    "code",
    "state",
    "due_at",
    "devices",
    "accepted",
    "failed",
    "skipped",
    "pending",
    "reason",
]
SEND_COLUMNS = ["state", "code", "platform", "number"]
FIELDS = {
    "device_id": "deviceId",
    "user_id": "userId",
    "device_type": "deviceType",
    "last_seen": "lastSeen",
    "app": "app",
    "app_version": "appVersion",
    "locale": "locale",
    "timezone": "timezone",
}
"""What an export says of a device -> what an import calls it; the address beside it."""

_is_formula = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]").match
"""What a spreadsheet takes for a formula, or would once a quote is taken off (OWASP, "CSV Injection")."""

CampaignNumber = Annotated[int, typer.Argument(min=1, help="The campaign's number.")]


@push.command("status")
def show_status(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show how many devices there are, how fresh their tokens, and what is being sent."""
    show_fields(Client(config).get("/push"), as_json=json)


# -- devices -----------------------------------------------------------------------------------------------


@devices.command("list")
def list_devices(
    config: ConfigOption = DEFAULT_CONFIG,
    person: Annotated[str | None, typer.Option(help="Only this userId's.")] = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List devices, all or a person's.

    Example:  towpath push devices list --person u1
    """
    rows = Client(config).get("/push/devices", person=person, limit=limit)
    show_rows(rows, DEVICE_COLUMNS, "no devices; apps make them known by  register push", as_json=json)


@devices.command("show")
def show_device(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show one device: its owner, its address, when it was heard of."""
    show_fields(Client(config).get(path("push", "devices", device)), as_json=json)


@devices.command("prune")
def prune_devices(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and remove nothing.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Remove devices whose token was not reported for `push.stale_after`, as the daily sweep does.

    Example:  towpath push devices prune --dry-run
    """
    client = Client(config)
    if not dry_run:
        found = client.post("/push/prune", {"dry_run": True})
        confirm(f"Remove {found['removed']} devices?", yes=yes)
    show_fields(client.post("/push/prune", {"dry_run": dry_run}), as_json=json)


@devices.command("export")
def export_devices(
    config: ConfigOption = DEFAULT_CONFIG,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; .csv is CSV.")] = None,
    json: JsonOption = False,
) -> None:
    """Write every active device as JSON lines, or CSV: what `import` reads.

    Without a file the lines themselves are the output, with or without `--json`. In CSV, what a spreadsheet
    would run as a formula has a ' before it, which `import` takes off again.

    Example:  towpath push devices export -o devices.csv
    """
    client = Client(config)
    if output is None:
        _write(_exported(client), sys.stdout, as_csv=False)
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            number = _write(_exported(client), file, as_csv=output.suffix.lower() == ".csv")
    except OSError as error:
        raise WrongUse(f"{output} cannot be written: {error.strerror}", code="E5060") from None
    show_fields({"file": str(output), "devices": number}, as_json=json)


def _exported(client: Client) -> Iterator[dict[str, Any]]:
    after = ""
    while rows := client.get("/push/devices", after=after, limit=PAGE):
        for row in rows:
            if row["status"] == "active" and row["address"] is not None:
                kind = "fcmToken" if row["address_kind"] == "token" else "fid"
                told = {there: row[here] for here, there in FIELDS.items() if row[here] is not None}
                yield {**told, "lastSeen": row["registered_at"], kind: row["address"]}
        after = rows[-1]["device_id"]


def _write(rows: Iterator[dict[str, Any]], file: TextIO, *, as_csv: bool) -> int:
    """Write rows into a file; how many there were."""
    number = 0
    writer = csv.DictWriter(file, [*FIELDS.values(), "fcmToken", "fid"])
    if as_csv:
        writer.writeheader()
    for number, row in enumerate(rows, 1):  # noqa: B007 - the last number is what was written
        if as_csv:
            writer.writerow({name: _as_text(value) for name, value in row.items()})
        else:
            file.write(jsonlib.dumps(row, ensure_ascii=False) + "\n")
    return number


def _as_text(value: str) -> str:
    """A value of a CSV file that no spreadsheet runs: device ids and userIds are whatever an app sends."""
    return f"'{value}" if _is_formula(value) else value


def _as_it_was(text: str) -> str:
    """The value of which `_as_text` made a cell."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


@devices.command("import")
def import_devices(
    file: Annotated[Path, typer.Argument(help="CSV, or JSON lines; `-` is standard input.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Take devices in from another tool: deviceId, fcmToken (or fid), deviceType, userId, lastSeen.

    What the registry knows from later than `lastSeen` stays as it is.

    Example:  towpath push devices import devices.csv
    """
    client, taken, refused = Client(config), 0, list[dict[str, Any]]()
    for page in _pages(_read(file)):
        answer = client.post("/push/import", {"devices": [row for _, row in page]})
        taken += answer["taken"]
        refused += [{"line": page[one["index"]][0], "reason": one["reason"]} for one in answer["refused"]]
    if json:
        show_json({"taken": taken, "refused": refused})
    else:
        say(f"{taken} devices taken in, {len(refused)} refused")
        show_rows(refused[:50], ["line", "reason"], "", as_json=False)
    if refused:
        raise typer.Exit(PARTIAL)


def _read(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file, each with the number of its line. Raises `WrongUse`."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    except OSError as error:
        raise WrongUse(f"{file} cannot be read: {error.strerror}", code="E5060") from None
    except UnicodeDecodeError:
        raise WrongUse(f"{file} is no UTF-8 text", code="E5060") from None
    if file.suffix.lower() == ".csv":
        yield from _rows(file, text)
        return
    # Not splitlines: to JSON, other ends of a line are letters like any other.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _line(file, number, line)


def _rows(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(StringIO(text, newline=""))
    number = 1
    try:
        for row in reader:
            yield number + 1, {name: _as_it_was(value) for name, value in row.items() if name and value}
            number = reader.line_num
    except csv.Error as error:
        raise _unreadable(file, number + 1, f"cannot be read: {error}") from None


def _line(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = jsonlib.loads(line)
        jsonlib.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _unreadable(file, number, "has half a character, which is no text") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _unreadable(file, number, "is no JSON object")
    return found


def _unreadable(file: Path, number: int, what: str) -> WrongUse:
    return WrongUse(
        f"{file}, line {number} {what}",
        code="E5060",
        fix="write one object in each line, or name the file .csv",
        data="The lines before it may have been taken in; import them again, it changes nothing.",
    )


def _pages(rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    while page := list(islice(rows, PAGE)):
        yield page


# -- sending -----------------------------------------------------------------------------------------------


@push.command("send")
def send(
    code: Annotated[str, typer.Argument(help="A campaign of the configuration, or a name for a new one.")],
    config: ConfigOption = DEFAULT_CONFIG,
    title: Annotated[str | None, typer.Option(help="Instead of the campaign's title.")] = None,
    body: Annotated[str | None, typer.Option(help="Instead of the campaign's text.")] = None,
    link: Annotated[str | None, typer.Option(help="Instead of the campaign's link.")] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", help="Only this userId; may be given again.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--filter", help="Only devices for which this CEL is true.")
    ] = None,
    segment: Annotated[
        str | None,
        typer.Option(help="Only who is in this segment of Customer.io: ACCOUNT:NUMBER, like cio:12."),
    ] = None,
    platform: Annotated[list[str] | None, typer.Option(help="Only ios, android or web.")] = None,
    last_used: Annotated[
        bool, typer.Option("--last-used", help="Only each person's last used device.")
    ] = False,
    at: Annotated[str | None, typer.Option(help="When, like 2030-12-24T09:00; now by default.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="`--at` is the time of day where each device is.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, preview, and have FCM check a sample; send nothing.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show how it goes on.")] = False,
    json: JsonOption = False,
) -> None:
    """Send a campaign to devices, now or later.

    Example:  towpath push send welcome --dry-run
    """
    audience = {"persons": to, "segment": _segment(segment), "filter": where, "platforms": platform}
    audience |= {"devices": "last_used"} if last_used else {}
    changes = {"title": title, "body": body, "link": link, "audience": _given(audience)}
    asked = {"code": code, "changes": _given(changes), "at": at, "local": local, "dry_run": dry_run}
    client = Client(config)
    if dry_run:
        _show_rehearsal(client.post("/push/send", asked), as_json=json)
        return
    made = client.post("/push/send", asked, running=True)
    number = made["campaign"]
    if follow or json:
        _show(client, number, follow=follow, as_json=json)
        return
    say(f"campaign {number} of {code}: {made['state']}, due {made['due_at']}")
    say(f"  towpath push campaigns show {number}")


def _segment(text: str | None) -> dict[str, Any] | None:
    """The account and the number of a segment. Raises `WrongUse`."""
    if text is None:
        return None
    account, _, number = text.rpartition(":")
    if not account or not number.isdecimal():
        raise WrongUse(
            f"{text!r} names no segment", code="E5060", fix="write the account and the number, like  cio:12"
        )
    return {"account": account, "id": int(number)}


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """What was said. An empty text was: a filter that a script left empty must not reach everybody."""
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def _show_rehearsal(found: dict[str, Any], *, as_json: bool) -> None:
    """Show what a campaign would do; ends with a failure where something has to be corrected."""
    if as_json:
        show_json(found)
    else:
        say(f"{sum(found['devices'].values())} devices of {found['persons']} persons")
        for name, number in {**found["devices"], **found["skipped"]}.items():
            say(f"  {name:<12} {number}")
        for platform, shown in found["previews"].items():
            for one in shown:
                say(f"\n{platform}: {one['size_bytes']} of 4096 bytes")
                show_json(one["json"])
        show_rows(
            found["verdicts"], ["platform", "verdict", "detail"], "\nno device to ask about", as_json=False
        )
        for problem in found["problems"]:
            say(f"  wrong: {problem}", err=True)
    if found["problems"]:
        raise typer.Exit(FAILURE)


# -- campaigns ---------------------------------------------------------------------------------------------


@campaigns.command("list")
def list_campaigns(
    config: ConfigOption = DEFAULT_CONFIG, limit: LimitOption = 20, json: JsonOption = False
) -> None:
    """List campaigns, newest first, and how far each is."""
    rows = Client(config).get("/push/campaigns", limit=limit)
    show_rows(rows, CAMPAIGN_COLUMNS, "no campaign yet; try  towpath push send CODE --dry-run", as_json=json)


@campaigns.command("show")
def show_campaign(
    number: CampaignNumber,
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show how it goes on.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a campaign: its state, and what became of its sends."""
    _show(Client(config), number, follow=follow, as_json=json)


def _show(client: Client, number: int, *, follow: bool, as_json: bool) -> None:
    """Show a campaign, once it has ended or waits where it is to be followed."""
    found = client.get(path("push", "campaigns", number))
    if follow and found["runs"]:
        jobs.follow_run(client, found["runs"][0]["run"], as_json=as_json)
        found = client.get(path("push", "campaigns", number))
    if as_json:
        show_json(found)
        return
    show_fields({key: value for key, value in found.items() if key not in ("sends", "runs")}, as_json=False)
    show_rows(found["sends"], SEND_COLUMNS, "\nnothing is enlisted yet", as_json=False)


@campaigns.command("pause")
def pause_campaign(
    number: CampaignNumber, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False
) -> None:
    """Send no more until it is resumed; what is in flight ends."""
    _act(number, "pause", config, as_json=json)


@campaigns.command("resume")
def resume_campaign(
    number: CampaignNumber,
    config: ConfigOption = DEFAULT_CONFIG,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Send also to devices whose platform had no APNs key or Web Push certificate.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Go on with a campaign that was paused, or that stopped itself."""
    _act(number, "resume", config, as_json=json, retry_failed=retry_failed)


@campaigns.command("cancel")
def cancel_campaign(
    number: CampaignNumber,
    config: ConfigOption = DEFAULT_CONFIG,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Send no more for good; what was sent stays sent."""
    confirm(f"Cancel campaign {number} for good?", yes=yes)
    _act(number, "cancel", config, as_json=json)


def _act(number: int, act: str, config: Path, *, as_json: bool, **asked: bool) -> None:
    show_fields(Client(config).post(path("push", "campaigns", number, act), asked), as_json=as_json)
