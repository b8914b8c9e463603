"""What commands that write the configuration share: carrying a plan out, and telling what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct

from ..clock import SystemClock
from ..errors import TowpathError
from .client import Client, path
from .operate import show_checks
from .output import FAILURE, WrongUse, say, show_json

if TYPE_CHECKING:
    from ..config import Config
    from ..install import Plan
    from ..install.firebase import Firebase

NO_SERVER = "E5021"
TOKEN_BYTES = 32


class Done:
    """What a command has written: `fields` for programs, `notes` for people; `config` is in the file now."""

    def __init__(self, config: Config, client: Client, fields: dict[str, Any], notes: list[str]) -> None:
        self.config = config
        self.client = client
        self.fields = fields
        self.notes = notes


def carry_out(file: Path, plan: Plan, *, replace: bool) -> Done:
    """Check a plan, keep its secrets, write the file, and let the running server take it up.

    Secrets come first: a file that names one which is not there yet could not be loaded. Raises
    `TowpathError`, and up to the file's replacement nothing of it is in force.
    """
    from ..install import draft
    from ..secrets import stored

    drafted = draft(file, plan, stored=stored, replace=replace)
    if drafted.unset and drafted.before is not None:
        raise _to_be_set_first(drafted.unset)
    drafted.begin()
    client = Client(file)
    for name, value in plan.secrets.items():
        client.call("PUT", path("secrets", name), {"value": value})
    backup = drafted.save(SystemClock())
    why = _not_in_force(client) if not drafted.unset else "secrets are to be set first"
    fields = {
        "file": str(file),
        "backup": str(backup) if backup else None,
        "wrote": plan.wrote,
        "secrets": list(plan.secrets),
        "unset": list(drafted.unset),
        "in_force": not why,
        "why": why,
    }
    return Done(drafted.config, client, fields, list(plan.notes))


def rehearse(file: Path, plan: Plan, *, replace: bool) -> None:
    """Check what can be checked here, before any vendor is asked; writes nothing. Raises `TowpathError`."""
    from ..install import draft
    from ..secrets import stored

    draft(file, plan, stored=stored, replace=replace)


def _to_be_set_first(names: Sequence[str]) -> TowpathError:
    """A file that works must not come to name a secret that nobody has given: it could not be loaded."""
    commands = "; ".join(f"towpath secrets set {name}" for name in names)
    return TowpathError(
        f"a secret is missing: {', '.join(names)}",
        code="E5051",
        why="the configuration is in use and could not be loaded any more",
        fix=f"{commands}; then run this again",
        data="Nothing was written.",
    )


def _not_in_force(client: Client) -> str:
    """Why the running server did not take the file up; empty when it did."""
    try:
        client.post("/reload", running=True)
    except TowpathError as error:
        return "no server runs" if error.code == NO_SERVER else error.title
    return ""


def finish(done: Done, tests: Sequence[str], *, as_json: bool) -> None:
    """Run the tests and tell what was done; leave with exit code 1 when a test fails."""
    if not as_json:
        tell(done.fields, done.notes)
    checks = [check for test in tests for check in done.client.post(test)]
    if as_json:
        show_json({**done.fields, "notes": done.notes, "checks": checks})
        if not all(check["ok"] for check in checks):
            raise typer.Exit(FAILURE)
    elif checks:
        show_checks(checks, as_json=False)


def tell(fields: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Tell people what was written and what is left to do."""
    say(f"wrote {', '.join(fields['wrote'])} to {fields['file']}")
    if fields["backup"]:
        say(f"  the file as it was: {fields['backup']}")
    if fields["secrets"]:
        say(f"  kept encrypted: {', '.join(fields['secrets'])}")
    if fields.get("region"):
        say(f"  region: {fields['region']}")
    say("  in force" if fields["in_force"] else f"  not in force yet: {fields['why']}")
    for note in notes:
        say(f"  {note}")


def text_of(file: Path | None) -> str:
    """The text of a file, nothing for none. Raises `WrongUse`."""
    try:
        return "" if file is None else file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WrongUse(
            f"{file} cannot be read: {why}", code="E5052", fix="name another", data="Nothing was written."
        ) from None


def connected(config: Config, name: str) -> bool:
    """Whether anything goes from or to it."""
    return any(name in line.sources or name == line.destination for line in config.connections)


def public_url(config: Config) -> str:
    """Where the outside reaches the server, as far as the configuration tells."""
    server = config.server
    scheme = "https" if server.tls else "http"
    return (server.public_url or f"{scheme}://{server.listen}").rstrip("/")


def address_notes(config: Config) -> list[str]:
    """That nobody outside knows the listener's own address."""
    known = config.server.public_url
    return [] if known else ["set  server.public_url  to what the outside reaches this server by"]


class Own(Struct, frozen=True):
    """A secret between a source and who calls it; `made` just now, so that nobody knows it yet."""

    value: str
    made: bool = False

    @property
    def shown(self) -> str:
        """What may be printed: the value only of one that was made, this once."""
        return self.value if self.made else "…"


def own_secret(file: Path, source: str, key: str, given: str, *, make: bool = True) -> Own:
    """The one that was given, else the one that the store holds, else a new one; empty where none is made."""
    from ..config.locate import locate
    from ..install.plan import kept_as
    from ..secrets import stored

    if given:
        return Own(given)
    try:
        held = stored(locate(file).storage).get(kept_as(source, key), "")
    except TowpathError:  # no such file yet, or one whose errors are told when it is drafted
        held = ""
    if held or not make:
        return Own(held)
    return Own(SystemClock().token(TOKEN_BYTES).hex(), made=True)


def firebase_notes(given: Firebase, config: Config, *, token: Own, key: Own) -> list[str]:
    """What to do next with a Firebase source, and the secrets that nobody knows yet."""
    notes = []
    address = f"{public_url(config)}/webhooks/{given.name}"
    if given.push_token:
        notes.append(f"let Eventarc push to  {address}?token={token.shown}")
    forwarder = f"of users at once: deploy examples/firebase-forwarder with TOWPATH_URL  {address}"
    notes.append(f"{forwarder}  and TOWPATH_SIGNING_KEY  {key.shown}")
    notes += address_notes(config)
    if token.made or key.made:
        notes.append("what was made is shown this once; it is kept encrypted")
    if given.service_account and not given.listen:
        notes.append("changes come with the daily comparison: listen, or let Google push, to hear at once")
    if given.service_account:
        notes.append(f"take in who is there already:  towpath firebase backfill --source {given.name}")
    return notes
