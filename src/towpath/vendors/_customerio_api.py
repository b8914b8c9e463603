"""What Customer.io's three APIs share: hosts by region, credentials, encoding, one request, pages."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, ClassVar, Literal, TypeAlias
from urllib.parse import quote, urlencode

from towpath.http import JSON_TYPE, Http, Reply, Undelivered
from towpath.outcome import Rejected, Retry

Region: TypeAlias = Literal["us", "eu"]
Id: TypeAlias = int | str
IdType: TypeAlias = Literal["id", "email", "cio_id"]
Body: TypeAlias = bytes | Mapping[str, Any]
"""A JSON body: fields, or their encoding where the caller has it already."""

REGIONS: tuple[Region, ...] = ("us", "eu")
TRACK_URLS: Mapping[Region, str] = {
    "us": "https://track.customer.io",
    "eu": "https://track-eu.customer.io",
}
APP_URLS: Mapping[Region, str] = {"us": "https://api.customer.io", "eu": "https://api-eu.customer.io"}
PIPELINES_URLS: Mapping[Region, str] = {"us": "https://cdp.customer.io", "eu": "https://cdp-eu.customer.io"}
NOT_FOUND = 404


def track_credentials(site_id: str, api_key: str) -> Mapping[str, str]:
    """Headers of the Track API: HTTP Basic with site id and Track API key."""
    return _basic(f"{site_id}:{api_key}")


def app_credentials(app_api_key: str) -> Mapping[str, str]:
    """Headers of the App API: its own key as Bearer."""
    return {"authorization": f"Bearer {app_api_key}"}


def pipelines_credentials(write_key: str) -> Mapping[str, str]:
    """Headers of the Pipelines API: HTTP Basic with the write key and no password."""
    return _basic(f"{write_key}:")


def _basic(pair: str) -> Mapping[str, str]:
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def segment(value: Id) -> str:
    """An id as one segment of a path, percent-encoded (D11).

    Raises `Undelivered` (rejected) for the empty text and for `.` and `..`: a URL with them names something
    else, however they are written.
    """
    text = str(value)
    if text in ("", ".", ".."):
        raise Undelivered(Rejected(f'not sent: the id "{text}" cannot be part of a URL'))
    return quote(text, safe="")


def with_query(url: str, query: Mapping[str, Any]) -> str:
    """A URL with those parameters that are given; `+` and blanks are percent-encoded, booleans are words.

    Customer.io answers 200 with an empty list to an e-mail whose `+` is not encoded.
    """
    given = [(name, _word(value)) for name, value in query.items() if value is not None]
    return f"{url}?{urlencode(given, quote_via=quote, safe='')}" if given else url


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class VendorApi:
    """One of the APIs at `base_url`; `headers` carry its credentials and go with every call.

    Every method is one request and may raise `Undelivered`; a reply is a 2xx, or what its docstring names.
    """

    bucket: ClassVar[str]
    answer_bytes: ClassVar[int | None] = None

    def __init__(self, http: Http, base_url: str, headers: Mapping[str, str]) -> None:
        self.http = http
        self.base_url = base_url.rstrip("/")
        self.headers = dict(headers)

    async def call(
        self,
        method: str,
        url: str,
        body: Body | None = None,
        *,
        allow: Collection[int] = (),
        limit_bytes: int | None = None,
    ) -> Reply:
        """One request with the credentials, counted in the API's bucket."""
        encoded, fields, headers = None, body, self.headers
        if isinstance(body, bytes):
            encoded, fields, headers = body, None, {**headers, "content-type": JSON_TYPE}
        return await self.http.request(
            method,
            url,
            json=fields,
            body=encoded,
            headers=headers,
            allow=allow,
            bucket=self.bucket,
            limit_bytes=limit_bytes or self.answer_bytes,
            speaks_json=True,
        )

    def url(self, *parts: Id, **query: Any) -> str:
        """The address of an endpoint: parts of the path, each percent-encoded, and what is asked."""
        return with_query("/".join([self.base_url, *map(segment, parts)]), query)


async def pages(
    ask: Callable[..., Awaitable[Reply]], *args: Any, **query: Any
) -> AsyncIterator[Mapping[str, Any]]:
    """Every page of a method that takes `start`, decoded; `start=…` begins at a token kept from before.

    Goes on as long as a page names `next`, also when the page itself is empty or its lists are null, as live
    pages are. Raises `Undelivered` (retry) for an answer that is no JSON object, and for a token that comes
    twice in a row, which would never end.
    """
    while True:
        page = (await ask(*args, **query)).json()
        if not isinstance(page, dict):
            raise Undelivered(Retry("Customer.io's answer is no page: not a JSON object, or too long"))
        yield page
        following = page.get("next")
        if not following:
            return
        if str(following) == query.get("start"):
            raise Undelivered(Retry("Customer.io named the same page as the next one"))
        query["start"] = str(following)
