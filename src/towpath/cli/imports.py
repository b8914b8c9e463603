"""`towpath import`: the setup of another product as towpath.yaml, and a list of what it could not say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .connect import Project, ReplaceOption, ServiceAccount
from .installing import Done, carry_out, firebase_notes, own_secret, tell, text_of
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import PARTIAL, say, show_json, show_rows

imports = typer.Typer(
    no_args_is_help=True, help="Bring a setup from elsewhere: it is written as towpath.yaml."
)
imports.callback()(lambda: None)  # a group, also while it has one command


@imports.command("firebase-extension")
def import_firebase_extension(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="Its params: extensions/sync-customerio.env, or JSON."
        ),
    ],
    project: Project = "",
    service_account: ServiceAccount = None,
    track_api_key: Annotated[
        str,
        typer.Option(
            envvar="CUSTOMERIO_TRACK_API_KEY",
            help="The key that the params only refer to; better CUSTOMERIO_TRACK_API_KEY.",
        ),
    ] = "",
    replace: ReplaceOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Write what the Firebase extension `sync-customerio` did as a source, a destination and a connection.

    Its API key is in Google Secret Manager: read it there with  gcloud secrets versions access latest
    --secret=NAME  and set it here.

    Example:  towpath import firebase-extension extensions/sync-customerio.env --project my-project
    """
    from ..install.extension import read, translate
    from ..install.firebase import Firebase, can_listen

    account = text_of(service_account)
    token = own_secret(config, "firebase", "push_token", "", make=not account)
    key = own_secret(config, "firebase", "signing_key", "")
    source = Firebase(
        "firebase", project, account,
        push_token=token.value, signing_key=key.value, listen=can_listen(),
    )  # fmt: skip
    found = translate(read(text_of(file)), source, destination="customerio", track_api_key=track_api_key)
    done = carry_out(config, found.plan, replace=replace)
    done.notes += firebase_notes(source, done.config, token=token, key=key)
    params = [{"param": param.name, "fate": param.fate, "what": param.about} for param in found.params]
    if json:
        show_json({**done.fields, "notes": done.notes, "params": params})
    else:
        tell(done.fields, done.notes)
        show_rows(params, ["param", "fate", "what"], "", as_json=False)
        _next_steps(done)
    if done.fields["unset"]:
        raise typer.Exit(PARTIAL)


def _next_steps(done: Done) -> None:
    """What is left to do, in order."""
    say("next")
    for name in done.fields["unset"]:
        say(f"  towpath secrets set {name}")
    for command in ("connectors test customerio", "connectors test firebase", "run"):
        say(f"  towpath {command}")
