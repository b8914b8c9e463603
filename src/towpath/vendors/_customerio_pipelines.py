"""Customer.io's Pipelines API: calls in Segment's shape, always in strict mode."""

from __future__ import annotations

from collections.abc import Mapping

from towpath.http import Http, Reply

from ._customerio_api import Body, VendorApi

STRICT: Mapping[str, str] = {"x-strict-mode": "1"}
"""Without it the vendor answers 200 to what it drops: invalid, oversize, unauthorised."""


def pipelines_url(base_url: str, call: str) -> str:
    """Where a call goes: identify, track, page, screen, group, alias or batch."""
    return f"{base_url}/v1/{call}"


class PipelinesApi(VendorApi):
    """The Pipelines API at `base_url`, with `pipelines_credentials`. A 200 says `{}`; else 400 or 401.

    One call is at most 32 KB, a batch 500 KB. Source: Customer.io's Pipelines OpenAPI document.
    """

    bucket = "pipelines"

    def __init__(self, http: Http, base_url: str, headers: Mapping[str, str]) -> None:
        super().__init__(http, base_url, {**headers, **STRICT})

    async def identify(self, body: Body) -> Reply:
        """POST /v1/identify `{userId|anonymousId, traits}`."""
        return await self._post("identify", body)

    async def track(self, body: Body) -> Reply:
        """POST /v1/track `{userId|anonymousId, event, properties}`; deletes and devices travel as events."""
        return await self._post("track", body)

    async def page(self, body: Body) -> Reply:
        """POST /v1/page `{userId|anonymousId, name, properties}`."""
        return await self._post("page", body)

    async def screen(self, body: Body) -> Reply:
        """POST /v1/screen `{userId|anonymousId, name, properties}`."""
        return await self._post("screen", body)

    async def group(self, body: Body) -> Reply:
        """POST /v1/group `{userId|anonymousId, groupId, traits}`."""
        return await self._post("group", body)

    async def alias(self, body: Body) -> Reply:
        """POST /v1/alias `{userId, previousId}`."""
        return await self._post("alias", body)

    async def batch(self, body: Body) -> Reply:
        """POST /v1/batch `{batch: [{type, …}, …], context, integrations}`."""
        return await self._post("batch", body)

    async def _post(self, call: str, body: Body) -> Reply:
        return await self.call("POST", pipelines_url(self.base_url, call), body)
