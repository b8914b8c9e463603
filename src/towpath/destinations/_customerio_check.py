"""What `connectors test` asks Customer.io: keys, region, and what the App key may read."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from msgspec.structs import replace

from towpath.destination import Check
from towpath.http import Http, Reply, Undelivered
from towpath.outcome import Paused, Rejected, Retry
from towpath.vendors.customerio import AppApi, PipelinesApi, Region
from towpath.vendors.customerio_account import NAMES, Account

PIPELINES = "pipelines"
APP = "app"
EVERYBODY = {"filter": {"and": [{"attribute": {"field": "cio_id", "operator": "exists"}}]}}
SWAPPED_TRACK = (
    "api_key is a key of the App API. Track wants the site id and its own key: Customer.io, Settings, "
    "Workspace Settings, API and webhook credentials, Tracking API keys. Put this key into app_api_key"
)
SWAPPED_APP = (
    "app_api_key is the Track API's key. The App API has keys of its own: Customer.io, Settings, Workspace "
    "Settings, API and webhook credentials, App API keys"
)
TOO_MANY = (
    "the App API takes 10 requests a second for each key, and something beside towpath uses this key: make "
    "one for towpath alone"
)
TRACK_REFUSED = "the site id or the Track API key is wrong, or of another workspace"


class Examination:
    """Asks one account, changing nothing there: a line per capability."""

    def __init__(self, account: Account, http: Http) -> None:
        self._account = account
        self._http = http

    async def lines(self) -> Sequence[Check]:
        """Return the lines, in the order of Customer.io's APIs."""
        try:
            region = await self._account.region(self._http)
        except Undelivered as error:
            return [await self._track_refused(error), *await self._others(self._account.home)]
        detail = f"region {NAMES[region]}"
        return [Check("Track API connection successful", ok=True, detail=detail), *await self._others(region)]

    async def _others(self, region: Region) -> Sequence[Check]:
        apis = self._account.apis(self._http, region)
        lines = [] if apis.app is None else await self._app_lines(apis.app, region)
        return lines if apis.pipelines is None else [*lines, await self._pipelines_line(apis.pipelines)]

    async def _track_refused(self, error: Undelivered) -> Check:
        failed = Check.failed("Track API connection failed", error)
        if _code(error) != 401:
            return failed
        swapped = await self._account.opens_app(self._http)
        detail = SWAPPED_TRACK if swapped else f"{failed.detail} ({TRACK_REFUSED})"
        return replace(failed, detail=detail)

    async def _app_lines(self, app: AppApi, region: Region) -> list[Check]:
        asked: Sequence[tuple[str, Awaitable[Reply]]] = (
            ("People accessible", app.search_customers(EVERYBODY, limit=1)),
            ("Campaigns readable", app.campaigns()),
            ("Segments listable", app.segments()),
        )
        lines = [await _line(name, asking) for name, asking in asked]
        return [await self._app_line(lines, region), *lines]

    async def _app_line(self, lines: Sequence[Check], region: Region) -> Check:
        """Return the line of the key itself: it is good when it may read anything."""
        if any(line.ok for line in lines):
            return Check("App API connection successful", ok=True, capability=APP)
        refused = lines[0]
        detail = refused.detail
        if refused.reached and await self._account.opens_track(self._http, region):
            detail = SWAPPED_APP
        return Check(
            "App API connection failed", ok=False, capability=APP, detail=detail, reached=refused.reached
        )

    async def _pipelines_line(self, pipelines: PipelinesApi) -> Check:
        """Ask with an empty batch: a key that is refused is refused before the batch is."""
        try:
            await pipelines.batch({"batch": []})
        except Undelivered as error:
            if isinstance(error.outcome, Rejected) and error.outcome.code in (400, 422):
                return Check("Pipelines API connection successful", ok=True, capability=PIPELINES)
            return _failed("Pipelines API connection failed", error, PIPELINES)
        return Check("Pipelines API connection successful", ok=True, capability=PIPELINES)


async def _line(name: str, asking: Awaitable[Reply]) -> Check:
    try:
        await asking
    except Undelivered as error:
        return _failed(name, error, APP)
    return Check(name, ok=True, capability=APP)


def _failed(name: str, error: Undelivered, capability: str) -> Check:
    failed = replace(Check.failed(name, error), capability=capability)
    throttled = capability == APP and isinstance(error.outcome, Retry) and error.outcome.throttled
    return replace(failed, detail=f"{failed.detail} ({TOO_MANY})") if throttled else failed


def _code(error: Undelivered) -> int:
    return error.outcome.code if isinstance(error.outcome, Paused) else 0
