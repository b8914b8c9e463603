"""Customer.io: from credentials to a destination whose region is known, and its reporting webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from ..errors import TowpathError, Unauthorized
from ..http import Http, Undelivered
from ..outcome import Paused
from ..vendors.customerio import AppApi, Region
from ..vendors.customerio_account import Account, Keys, Urls, WrongRegion
from .plan import Entry, Plan, connection, kept_as, secret

TYPE = "customerio"
WEBHOOKS_TYPE = "customerio_webhooks"
REFUSED = "E2405"
WRONG_REGION = "E2406"
UNASKED = "E2407"
UNAUTHORIZED = (401, 403)


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


def account(given: CustomerIo) -> Account:
    """The workspace that these credentials open."""
    keys = Keys(given.site_id, given.track_api_key, given.app_api_key)
    return Account(keys, given.region or "auto", Urls(given.base_url, given.base_url, given.base_url))


def app_api(given: CustomerIo, region: Region, http: Http) -> AppApi:
    """Its App API, whose key was given."""
    return account(given).app(http, region)


async def find_region(given: CustomerIo, http: Http) -> Region:
    """Ask where the workspace is; nothing else is sent.

    Raises `Unauthorized` for a pair of site id and key that no region knows, `TowpathError` for another
    region than the one that was given (D18), and where nothing answers.
    """
    asked = account(given)
    try:
        return await asked.region(http)
    except WrongRegion as error:
        raise _elsewhere(given.region, error.found) from error
    except Undelivered as error:
        if isinstance(error.outcome, Paused) and error.outcome.code in UNAUTHORIZED:
            raise _unauthorized(swapped=await asked.opens_app(http)) from error
        raise _unasked(getattr(error.outcome, "reason", "")) from error


def _elsewhere(wanted: Region | None, found: Region) -> TowpathError:
    return TowpathError(
        f"this workspace is in the region {found}, not {wanted}",
        code=WRONG_REGION,
        why="Customer.io says so; data sent to the other region would leave it",
        fix=f"say --region {found}, or leave --region out",
        data="Nothing was written and no data was sent.",
    )


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


def _unasked(reason: str) -> TowpathError:
    return TowpathError(
        "Customer.io could not be asked where this workspace is",
        code=UNASKED,
        why=reason,
        fix="try again; without a network say  --no-test  and  --region us  or  --region eu",
        data="Nothing was written and no data was sent.",
    )
