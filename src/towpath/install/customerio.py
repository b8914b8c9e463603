"""Customer.io: from credentials to a destination whose region is known, and its reporting webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from ..errors import TowpathError, Unauthorized
from ..http import Http, Undelivered
from ..outcome import Paused, Retry
from ..vendors.customerio import (
    APP_URLS,
    REGIONS,
    TRACK_URLS,
    AppApi,
    Region,
    TrackApi,
    app_credentials,
    track_credentials,
)
from .plan import Entry, Plan, connection, kept_as, secret

TYPE = "customerio"
WEBHOOKS_TYPE = "customerio_webhooks"
REFUSED = "E2405"
WRONG_REGION = "E2406"
UNASKED = "E2407"


class CustomerIo(Struct, frozen=True):
    """What a user gives. `base_url` is one URL for all three APIs: a simulator, or a proxy."""

    name: str
    site_id: str
    track_api_key: str
    app_api_key: str = ""
    signing_key: str = ""
    region: Region | None = None
    base_url: str = ""
    sources: Sequence[str] = ()


def plan(given: CustomerIo, region: Region | Literal["auto"]) -> Plan:
    """What is written for it; `auto` lets the destination ask before its first write."""
    keys = {"track_api_key": given.track_api_key, "app_api_key": given.app_api_key}
    kept = {name: kept_as(given.name, name) for name, value in keys.items() if value}
    fields: dict[str, Any] = {"type": TYPE, "site_id": given.site_id}
    fields["api_key"] = secret(kept["track_api_key"])
    if "app_api_key" in kept:
        fields["app_api_key"] = secret(kept["app_api_key"])
    fields["region"] = region
    if given.base_url:
        fields["base_url"] = given.base_url
    entries = [Entry("destinations", given.name, fields)]
    secrets = {kept[name]: keys[name] for name in kept}
    if given.signing_key:
        signing = kept_as(given.name, "signing_key")
        secrets[signing] = given.signing_key
        about = {"type": WEBHOOKS_TYPE, "signing_keys": [secret(signing)]}
        entries.append(Entry("sources", f"{given.name}_webhooks", about))
    return Plan(entries, [connection(source, given.name) for source in given.sources], secrets)


async def find_region(given: CustomerIo, http: Http) -> Region:
    """Ask where the workspace is: the United States first, then the European Union; nothing else is sent.

    Either host may tell. A host that redirects is not followed. Raises `Unauthorized` for a pair of site id
    and key that no region knows, `TowpathError` for another region than the one that was given (D18), and
    where nothing answers.
    """
    failures: list[Undelivered] = []
    for url in [given.base_url] if given.base_url else [TRACK_URLS[region] for region in REGIONS]:
        api = TrackApi(http, url, track_credentials(given.site_id, given.track_api_key))
        try:
            said = (await api.region()).json()
        except Undelivered as error:
            failures.append(error)
            continue
        found = _read(said)
        if found is not None:
            return _agreed(given.region, found)
    if _refused(failures):
        raise _unauthorized(swapped=await _opens_app(given, http))
    raise _unasked(failures)


def _read(said: Any) -> Region | None:
    """The region of an answer `{region: us|eu}`."""
    word = str(said.get("region", "")).lower() if isinstance(said, Mapping) else ""
    return next((region for region in REGIONS if region == word), None)


def _agreed(wanted: Region | None, found: Region) -> Region:
    if wanted in (None, found):
        return found
    raise TowpathError(
        f"this workspace is in the region {found}, not {wanted}",
        code=WRONG_REGION,
        why="Customer.io says so; data sent to the other region would leave it",
        fix=f"say --region {found}, or leave --region out",
        data="Nothing was written and no data was sent.",
    )


def _refused(failures: Sequence[Undelivered]) -> bool:
    """Whether the credentials are to blame: only where every host could be asked."""
    outcomes = [error.outcome for error in failures]
    silent = any(isinstance(outcome, Retry) for outcome in outcomes)
    return not silent and any(isinstance(outcome, Paused) for outcome in outcomes)


async def _opens_app(given: CustomerIo, http: Http) -> bool:
    """Whether what was given as the Track API key is a key of the App API (C092)."""
    for url in [given.base_url] if given.base_url else APP_URLS.values():
        try:
            await AppApi(http, url, app_credentials(given.track_api_key)).segments()
        except Undelivered:
            continue
        return True
    return False


def _unauthorized(*, swapped: bool) -> Unauthorized:
    why = "it answered 401: one of the two is wrong, or of another workspace"
    return Unauthorized(
        "Customer.io does not know this Site ID with this Track API key",
        code=REFUSED,
        why="what was given as the Track API key is a key of the App API" if swapped else why,
        fix="copy both from Customer.io: Settings, Workspace Settings, API and webhook credentials, "
        "Tracking API keys",
        data="Nothing was written and no data was sent.",
    )


def _unasked(failures: Sequence[Undelivered]) -> TowpathError:
    outcomes = [error.outcome for error in failures]
    silent = [outcome.reason for outcome in outcomes if isinstance(outcome, Retry)]
    said = [getattr(outcome, "reason", "") for outcome in outcomes]
    return TowpathError(
        "Customer.io could not be asked where this workspace is",
        code=UNASKED,
        why=next(iter([*silent, *said]), "its answer names no region"),
        fix="try again; without a network say  --no-test  and  --region us  or  --region eu",
        data="Nothing was written and no data was sent.",
    )
