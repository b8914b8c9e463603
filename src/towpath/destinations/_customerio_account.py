"""A Customer.io workspace: its credentials, its region, found before the first write, and its three APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal

from msgspec import Struct

from towpath.destination import Memory, Scope
from towpath.http import Http, Reply, Undelivered
from towpath.outcome import Paused, Rejected
from towpath.vendors.customerio import (
    APP_URLS,
    PIPELINES_URLS,
    REGIONS,
    TRACK_URLS,
    AppApi,
    PipelinesApi,
    Region,
    TrackApi,
    app_credentials,
    pipelines_credentials,
    track_credentials,
)

REMEMBERED_S = 24 * 3600.0
NAMES: Mapping[Region, str] = {"us": "US", "eu": "EU"}


class Keys(Struct, frozen=True):
    """What a workspace is called and opened with. Its repr shows none of it."""

    site_id: str
    api_key: str
    app_api_key: str = ""
    write_key: str = ""

    def __repr__(self) -> str:
        return "Keys(…)"


class Urls(Struct, frozen=True):
    """Addresses that stand in for Customer.io's own; empty where they do not."""

    track: str = ""
    app: str = ""
    pipelines: str = ""


class Apis(Struct, frozen=True):
    """The APIs of the account's region; the App and Pipelines API where their keys are given."""

    track: TrackApi
    app: AppApi | None
    pipelines: PipelinesApi | None


class Account:
    """A workspace in the region that the settings name, or in the one it says it is in."""

    def __init__(self, keys: Keys, region: Literal["us", "eu", "auto"], urls: Urls) -> None:
        self._keys = keys
        self._region = region
        self._urls = urls
        named = f"{keys.site_id}\0{urls.track}\0{region}".encode()
        self._memory_key = f"region:{blake2b(named, digest_size=16).hexdigest()}"

    @property
    def track_url(self) -> str:
        """Where preview says that Track calls go; with `auto`, to the US."""
        return self._urls.track or TRACK_URLS[self.home]

    @property
    def pipelines_url(self) -> str:
        """Where preview says that Pipelines calls go; with `auto`, to the US."""
        return self._urls.pipelines or PIPELINES_URLS[self.home]

    def apis(self, http: Http, region: Region) -> Apis:
        """Return the APIs of a region."""
        keys, urls = self._keys, self._urls
        track = TrackApi(
            http, urls.track or TRACK_URLS[region], track_credentials(keys.site_id, keys.api_key)
        )
        app = AppApi(http, urls.app or APP_URLS[region], app_credentials(keys.app_api_key))
        pipelines_url = urls.pipelines or PIPELINES_URLS[region]
        pipelines = PipelinesApi(http, pipelines_url, pipelines_credentials(keys.write_key))
        return Apis(track, app if keys.app_api_key else None, pipelines if keys.write_key else None)

    def mistaken_apps(self, http: Http) -> Sequence[AppApi]:
        """The App API opened with the Track key, to find out whether somebody mistook one for the other."""
        urls = [self._urls.app] if self._urls.app else APP_URLS.values()
        return [AppApi(http, url, app_credentials(self._keys.api_key)) for url in urls]

    def mistaken_track(self, http: Http, region: Region) -> TrackApi:
        """The Track API opened with the App key."""
        keys = track_credentials(self._keys.site_id, self._keys.app_api_key)
        return TrackApi(http, self._urls.track or TRACK_URLS[region], keys)

    async def opened(self, scope: Scope) -> Apis:
        """Return the APIs of the account's region, which is asked for once a day.

        Raises `Undelivered` (paused) where the region is another than the settings say, or is not told.
        """
        region = scope.memory.find(self._memory_key)
        for known in REGIONS:
            if known == region:
                return self.apis(scope.http, known)
        found = await self.region(scope.http)
        scope.memory.keep(self._memory_key, found, REMEMBERED_S)
        return self.apis(scope.http, found)

    def forget(self, memory: Memory) -> None:
        """Ask for the region again next time: the account was answered with a redirect."""
        memory.drop(self._memory_key)

    async def region(self, http: Http) -> Region:
        """Ask for the account's region; no personal data is sent.

        A host of the other region may refuse the keys or redirect: then the other one is asked. Raises
        `Undelivered` (paused) for a region that the settings exclude.
        """
        first: Undelivered | None = None
        others = [region for region in REGIONS if region != self.home and not self._urls.track]
        for host in (self.home, *others):
            try:
                found = _told(await self.apis(http, host).track.region())
            except Undelivered as error:
                first = first or error
                if not isinstance(error.outcome, Paused | Rejected):
                    break
                continue
            if self._region not in ("auto", found):
                raise Undelivered(Paused(wrong_region(self._region, found)))
            return found
        raise _unknown(first)

    @property
    def home(self) -> Region:
        """The region to ask first."""
        return "eu" if self._region == "eu" else "us"


def wrong_region(configured: str, found: Region) -> str:
    """Say what is wrong, and what to do (C093)."""
    return (
        f"wrong region: the settings say {configured}, but this account's data is in the {NAMES[found]}. Set "
        f"region to {found}, or to auto. Nothing was sent to the wrong region."
    )


def _told(reply: Reply) -> Region:
    answer = reply.json()
    told = answer.get("region") if isinstance(answer, dict) else None
    for region in REGIONS:
        if region == told:
            return region
    raise Undelivered(Paused("Customer.io did not say which region the account is in; nothing was sent"))


def _unknown(error: Undelivered | None) -> Undelivered:
    """Return why the region is not known; a refusal of this question must never cost a message."""
    if error is None or not isinstance(error.outcome, Rejected):
        return error or Undelivered(Paused("the account's region is not known; nothing was sent"))
    reason = f"the account's region could not be asked for ({error.outcome.reason}); nothing was sent"
    return Undelivered(Paused(reason, error.outcome.code), error.exchange)
