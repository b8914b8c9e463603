"""A Customer.io workspace: credentials, a region that is found before the first write, APIs and budgets."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from towpath.http import Http, Reply, Undelivered
from towpath.outcome import Paused, Rejected, Retry

from .customerio import (
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
APP_PER_S, PIPELINES_PER_S = 10.0, 100.0
Wanted: TypeAlias = Literal["us", "eu", "auto"]
"""A region that somebody says it is, or `auto` to go by what the account says."""


class Memory(Protocol):
    """Where a region is remembered: a destination's memory, or any other small key-value."""

    def find(self, key: str) -> str | None:
        """Return the value; None when there is none or its time is over."""
        ...

    def keep(self, key: str, value: str, ttl_s: float) -> None:
        """Keep a value for some seconds."""
        ...

    def drop(self, key: str) -> None:
        """Forget a key."""
        ...


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


class WrongRegion(Undelivered):
    """The account is in another region than somebody says (D18, C093); `found` is where it is."""

    def __init__(self, wanted: Wanted, found: Region) -> None:
        super().__init__(
            Paused(
                f"wrong region: the settings say {wanted}, but this account's data is in the {NAMES[found]}. "
                f"Set region to {found}, or to auto. Nothing was sent to the wrong region."
            )
        )
        self.found = found


def budgets(track_per_s: float) -> Mapping[str, float]:
    """Requests per minute by bucket: the workspace's own pace of Track, the vendor's of the others.

    Everything that uses an account shares them (C084–C086).
    """
    per_s = {"track": track_per_s, "app": APP_PER_S, "pipelines": min(track_per_s, PIPELINES_PER_S)}
    return {bucket: rate * 60 for bucket, rate in per_s.items()}


class Account:
    """A workspace in the region that somebody names, or in the one it says it is in."""

    def __init__(self, keys: Keys, region: Wanted = "auto", urls: Urls | None = None) -> None:
        self._keys = keys
        self._region = region
        self._urls = urls or Urls()
        named = f"{keys.site_id}\0{self._urls.track}\0{region}".encode()
        self._memory_key = f"region:{blake2b(named, digest_size=16).hexdigest()}"

    @property
    def home(self) -> Region:
        """The region to ask first."""
        return "eu" if self._region == "eu" else "us"

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
        keys = self._keys
        url = self._urls.pipelines or PIPELINES_URLS[region]
        pipelines = PipelinesApi(http, url, pipelines_credentials(keys.write_key))
        return Apis(
            self._track(http, region, keys.api_key),
            self.app(http, region) if keys.app_api_key else None,
            pipelines if keys.write_key else None,
        )

    def app(self, http: Http, region: Region) -> AppApi:
        """Return the App API of a region, whose key has to be given."""
        url = self._urls.app or APP_URLS[region]
        return AppApi(http, url, app_credentials(self._keys.app_api_key))

    def _track(self, http: Http, region: Region, key: str) -> TrackApi:
        url = self._urls.track or TRACK_URLS[region]
        return TrackApi(http, url, track_credentials(self._keys.site_id, key))

    async def opened(self, http: Http, memory: Memory) -> Apis:
        """Return the APIs of the account's region, which is asked for once a day.

        Raises `Undelivered` as `region` does.
        """
        remembered = memory.find(self._memory_key)
        for known in REGIONS:
            if known == remembered:
                return self.apis(http, known)
        found = await self.region(http)
        memory.keep(self._memory_key, found, REMEMBERED_S)
        return self.apis(http, found)

    async def opened_app(self, http: Http, memory: Memory) -> AppApi:
        """Return the App API of the account's region by the App API key alone, remembered for a day.

        With `auto`, the host that takes the key is the one. Raises `Undelivered` as that request does: paused
        where neither takes it.
        """
        if self._urls.app or self._region != "auto":
            return self.app(http, self.home)
        key = f"app-region:{blake2b(self._keys.app_api_key.encode(), digest_size=16).hexdigest()}"
        remembered, refusal = memory.find(key), None
        for region in REGIONS:
            if region == remembered:
                return self.app(http, region)
        for region in REGIONS:
            try:
                await self.app(http, region).workspaces()
            except Undelivered as error:
                if not isinstance(error.outcome, Paused):
                    raise
                refusal = refusal or error
                continue
            memory.keep(key, region, REMEMBERED_S)
            return self.app(http, region)
        raise refusal or Undelivered(Paused("no region took the App API key"))

    def forget(self, memory: Memory) -> None:
        """Ask for the region again next time: the account was answered with a redirect."""
        memory.drop(self._memory_key)

    async def region(self, http: Http) -> Region:
        """Ask for the account's region; no personal data is sent, and no redirect is followed.

        Either host may tell: one of the other region may refuse the keys, redirect, or be down. Raises
        `WrongRegion`; `Undelivered` (retry) while a host that might know is silent; else `Undelivered`
        (paused), with the code of a refusal where the keys are to blame.
        """
        failures: list[Undelivered] = []
        others = [region for region in REGIONS if region != self.home and not self._urls.track]
        for host in (self.home, *others):
            try:
                found = _told(await self.apis(http, host).track.region())
            except Undelivered as error:
                failures.append(error)
                continue
            if self._region not in ("auto", found):
                raise WrongRegion(self._region, found)
            return found
        raise _unknown(failures)

    async def opens_app(self, http: Http) -> bool:
        """Whether what is given as the Track API key is a key of the App API, in either region (C092)."""
        urls = [self._urls.app] if self._urls.app else APP_URLS.values()
        keys = app_credentials(self._keys.api_key)
        for url in urls:
            if await _answers(AppApi(http, url, keys).segments()):
                return True
        return False

    async def opens_track(self, http: Http, region: Region) -> bool:
        """Whether what is given as the App API key is the Track API's (C092)."""
        return await _answers(self._track(http, region, self._keys.app_api_key).region())


async def _answers(asking: Awaitable[Reply]) -> bool:
    try:
        await asking
    except Undelivered:
        return False
    return True


def _told(reply: Reply) -> Region:
    answer = reply.json()
    told = answer.get("region") if isinstance(answer, dict) else None
    for region in REGIONS:
        if region == str(told).lower():
            return region
    raise Undelivered(Paused("Customer.io did not say which region the account is in; nothing was sent"))


def _unknown(failures: Sequence[Undelivered]) -> Undelivered:
    """Return why the region is not known; a refusal of this question must never cost a message."""
    silent = [error for error in failures if isinstance(error.outcome, Retry)]
    refused = [error for error in failures if isinstance(error.outcome, Paused) and error.outcome.code]
    error = next(iter([*silent, *refused, *failures]))
    if not isinstance(error.outcome, Rejected):
        return error
    reason = f"the account's region could not be asked for ({error.outcome.reason}); nothing was sent"
    return Undelivered(Paused(reason, error.outcome.code), error.exchange)
