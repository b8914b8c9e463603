"""`towpath connectors install fcm`: the key of a Firebase project, tried, kept, and put to use for pushes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from .asking import Asking
from .connect import NoTestOption, ReplaceOption, asked
from .installing import carry_out, finish, public_url, rehearse, text_of
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from ..config import Config

KeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--service-account",
        "--key",
        envvar="FCM_SERVICE_ACCOUNT",
        exists=True,
        dir_okay=False,
        help="The key file of a service account that may send pushes; also FCM_SERVICE_ACCOUNT.",
    ),
]
REGISTER = (
    '{"type": "track", "userId": "USER or DEVICE ID", "event": "Register Push", "properties": '
    '{"deviceId": "…", "fcmToken": "…", "deviceType": "iOS, Android or Web"}}'
)


def install_fcm(
    name: Annotated[str, typer.Option(help="What the account is called.")] = "app",
    service_account: KeyFile = None,
    project: Annotated[str, typer.Option(help="The Firebase project's id; by default the key's own.")] = "",
    base_url: Annotated[str, typer.Option(help="Where messages are sent, like a simulator.")] = "",
    replace: ReplaceOption = False,
    no_test: NoTestOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Add the key that pushes are sent with: FCM checks a message to nobody, and the key is kept encrypted.

    Example:  towpath connectors install fcm --key key.json
    """
    from ..install.fcm import Fcm, examine, plan

    file = service_account or Path(
        Asking().need("FCM_SERVICE_ACCOUNT", "key file of the service account", "")
    )
    given = Fcm(name, text_of(file), project, base_url)
    planned = plan(given)
    rehearse(config, planned, replace=replace)
    if not no_test:
        asked(lambda http: examine(given, http))
    done = carry_out(config, planned, replace=replace)
    done.fields |= {"project": given.project_id, "tested": not no_test}
    if not no_test:
        done.notes.append(f"FCM checked a message to nobody in the project {given.project_id}: it may send")
    done.notes += _notes(done.config)
    finish(done, [], as_json=json)


def _notes(config: Config) -> list[str]:
    """What apps have to do, and what to do first with them."""
    apps = [name for name, source in config.sources.items() if source.type == "segment"]
    notes = [
        f"apps report their tokens to  {public_url(config)}/v1/track, again every 30 to 45 days:",
        REGISTER,
    ]
    if not apps:
        notes.append("they need a write key: add  app: {type: segment, write_keys: [KEY]}  to sources")
    return [*notes, "try:  towpath push status;  towpath push send hello --title Hello --dry-run"]
