"""`towpath connectors install`: a vendor into the configuration, its secrets into the store, and its test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import typer

from ..clock import SystemClock
from .asking import Asking, warn_of_history
from .client import path
from .installing import (
    address_notes,
    carry_out,
    connected,
    finish,
    firebase_notes,
    own_secret,
    public_url,
    rehearse,
    text_of,
)
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import WrongUse

if TYPE_CHECKING:
    from ..config import Config
    from ..http import Http
    from ..install.customerio import CustomerIo

install = typer.Typer(
    no_args_is_help=True, help="Write a source or destination into the configuration, and test it."
)

T = TypeVar("T")


class RegionWord(StrEnum):
    """Where a Customer.io workspace is."""

    us = "us"
    eu = "eu"


ReplaceOption: TypeAlias = Annotated[
    bool, typer.Option("--replace", help="Take the place of an entry of that name.")
]
NoTestOption: TypeAlias = Annotated[
    bool, typer.Option("--no-test", help="Ask the vendor nothing: write only.")
]
SiteId: TypeAlias = Annotated[
    str, typer.Option(envvar="CUSTOMERIO_SITE_ID", help="The Site ID; also CUSTOMERIO_SITE_ID.")
]
TrackApiKey: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="CUSTOMERIO_TRACK_API_KEY", help="The Track API key; better CUSTOMERIO_TRACK_API_KEY."
    ),
]
AppApiKey: TypeAlias = Annotated[
    str,
    typer.Option(envvar="CUSTOMERIO_APP_API_KEY", help="The App API key; better CUSTOMERIO_APP_API_KEY."),
]
SigningKey: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="CUSTOMERIO_SIGNING_KEY",
        help="Also take its reporting webhooks, signed with this key; better CUSTOMERIO_SIGNING_KEY.",
    ),
]
RegionOption: TypeAlias = Annotated[
    RegionWord | None,
    typer.Option(
        envvar="CUSTOMERIO_REGION", help="us or eu; without it Customer.io is asked. Also CUSTOMERIO_REGION."
    ),
]
BaseUrl: TypeAlias = Annotated[
    str, typer.Option(help="One URL for all of its APIs, like that of a simulator or a proxy.")
]
Sources: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        help="A source of the configuration whose messages go there; several times for more. Without it "
        "nothing goes there until a connection says so.",
    ),
]
Report: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--report",
        help="Have Customer.io report to this server: registers its webhook, switched off until "
        "--signing-key is given too. It needs the App API key and server.public_url.",
    ),
]
Project: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="FIREBASE_PROJECT",
        help="The project's id; also FIREBASE_PROJECT, or the service account's own.",
    ),
]
ServiceAccount: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="FIREBASE_SERVICE_ACCOUNT",
        exists=True,
        dir_okay=False,
        help="The key file of a service account, to list and to listen; also FIREBASE_SERVICE_ACCOUNT.",
    ),
]
Collections: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--collection", help="A Firestore collection to watch; several times for more."),
]
PushToken: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="FIREBASE_PUSH_TOKEN",
        help="What pushed events have to show; better FIREBASE_PUSH_TOKEN. Without it the one that is "
        "kept stays; without that and without a service account one is made and shown once.",
    ),
]
ForwarderKey: TypeAlias = Annotated[
    str,
    typer.Option(
        "--signing-key",
        envvar="FIREBASE_SIGNING_KEY",
        help="What the forwarder function signs with; better FIREBASE_SIGNING_KEY. Without it the one that "
        "is kept stays, or one is made and shown once.",
    ),
]
Listen: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--listen/--no-listen",
        help="Hold a connection to Firestore and hear of documents at once; by default where the service "
        "account, a collection and the extra towpath[firebase] are there.",
    ),
]
Destinations: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--to", help="A destination for its people; without it the Customer.io one, if there is just one."
    ),
]


@install.command("customerio")
def install_customerio(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What the destination is called.")] = "customerio",
    site_id: SiteId = "",
    track_api_key: TrackApiKey = "",
    app_api_key: AppApiKey = "",
    signing_key: SigningKey = "",
    region: RegionOption = None,
    sources: Sources = None,
    base_url: BaseUrl = "",
    report: Report = False,
    replace: ReplaceOption = False,
    no_test: NoTestOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Add Customer.io: its keys are kept encrypted, its region is found, and what can be tested is tested.

    Keys that are not given are asked for, without an echo; where nobody can be asked they are read from
    standard input, a line CUSTOMERIO_TRACK_API_KEY=… for each.

    Example:  towpath connectors install customerio --site-id 0a1b2c --from web
    """
    from ..install.customerio import CustomerIo, plan

    warn_of_history(context, ("track_api_key", "app_api_key", "signing_key"))
    asking = Asking()
    given = CustomerIo(
        name,
        asking.need("CUSTOMERIO_SITE_ID", "Site ID", site_id),
        asking.need("CUSTOMERIO_TRACK_API_KEY", "Track API key", track_api_key, hidden=True),
        asking.want("CUSTOMERIO_APP_API_KEY", "App API key", app_api_key, hidden=True),
        asking.want("CUSTOMERIO_SIGNING_KEY", "signing key of its webhooks", signing_key, hidden=True),
        region.value if region else None,
        base_url,
        sources or (),
    )
    if report and (no_test or not given.app_api_key):
        raise WrongUse(
            "--report needs the App API key, and to ask Customer.io",
            code="E5053",
            data="Nothing was written.",
        )
    rehearse(config, plan(given, given.region or "auto"), replace=replace)
    found = (given.region or "auto") if no_test else _ask_region(given)
    done = carry_out(config, plan(given, found), replace=replace)
    done.fields["region"] = found
    if not connected(done.config, name):
        known = [source for source in done.config.sources if source != f"{name}_webhooks"]
        source = known[0] if len(known) == 1 else "SOURCE"
        done.notes.append(f"nothing goes there yet: add  {{from: {source}, to: [{name}]}}  to connections")
    if given.signing_key:
        done.notes.append(f"let Customer.io report to  {webhooks_url(done.config, name)}")
        done.notes += address_notes(done.config)
    if report and found != "auto":
        done.notes.append(_register(given, found, done.config))
    finish(done, [] if no_test else [path("destinations", name, "test")], as_json=json)


def _ask_region(given: CustomerIo) -> Literal["us", "eu"]:
    from ..install.customerio import find_region

    return asked(lambda http: find_region(given, http))


def _register(given: CustomerIo, region: Literal["us", "eu"], config: Config) -> str:
    """Have Customer.io report here; what was done for that, and what is left to do."""
    from ..install.customerio import app_api
    from ..install.reporting import register

    if not config.server.public_url:
        return "Customer.io was not told to report here: set  server.public_url  and run this with --replace"
    endpoint = webhooks_url(config, given.name)
    signed = bool(given.signing_key)
    did = asked(lambda http: register(app_api(given, region, http), endpoint, signed=signed))
    told = f"reporting webhook to {endpoint}: {did}"
    key = "copy its signing key from Customer.io: Integrations, Reporting Webhooks, and run this again with"
    return told if signed else f"{told}; {key} --signing-key and --replace"


def asked(ask: Callable[[Http], Awaitable[T]]) -> T:
    """Ask something of a vendor, outside a server."""
    from ..http import Http
    from ..transport_http1 import Http1Transport

    async def asking() -> T:
        transport = Http1Transport()
        try:
            return await ask(Http(transport, SystemClock()))
        finally:
            await transport.close()

    return asyncio.run(asking())


@install.command("firebase")
def install_firebase(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What the source is called.")] = "firebase",
    project: Project = "",
    service_account: ServiceAccount = None,
    collections: Collections = None,
    push_token: PushToken = "",
    signing_key: ForwarderKey = "",
    listen: Listen = None,
    destinations: Destinations = None,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Take in the users and documents there are, at once.")
    ] = False,
    replace: ReplaceOption = False,
    no_test: NoTestOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Add a Firebase project: its users, and the documents of the collections named, become people.

    Example:  towpath connectors install firebase --service-account key.json --collection users
    """
    from ..install.firebase import Firebase, can_listen, plan

    warn_of_history(context, ("push_token", "signing_key"))
    asking = Asking()
    account = text_of(service_account)
    if backfill and not account:
        raise WrongUse(
            "--backfill needs --service-account", code="E5054",
            why="without one nobody may list users and documents", data="Nothing was written.",
        )  # fmt: skip
    token = own_secret(config, name, "push_token", push_token, make=not account)
    key = own_secret(config, name, "signing_key", signing_key)
    given = Firebase(
        name,
        project if account else asking.need("FIREBASE_PROJECT", "Firebase project", project),
        account,
        collections or _words(asking.want("FIREBASE_COLLECTION", "Firestore collection", "")),
        token.value,
        key.value,
        can_listen() if listen is None else listen,
        destinations or only_customerio(config),
    )
    done = carry_out(config, plan(given), replace=replace)
    if not connected(done.config, name):
        done.notes.append(f"nobody hears of it yet:  towpath connectors install customerio --from {name}")
    done.notes += firebase_notes(given, done.config, token=token, key=key)
    finish(done, [] if no_test else [path("sources", name, "test")], as_json=json)
    if backfill:
        from .jobs import run_job

        run_job(f"{name}.backfill", None, config, follow=True, json=json)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def only_customerio(config: Path) -> list[str]:
    """The Customer.io destination of a configuration, if there is exactly one."""
    from ..install import named

    found = named(config, "destinations", "customerio")
    return found if len(found) == 1 else []


def webhooks_url(config: Config, name: str) -> str:
    """Where the reporting webhooks of a Customer.io destination arrive, however many there are."""
    return f"{public_url(config)}/webhooks/{name}_webhooks"
