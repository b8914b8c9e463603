"""Kustomer's HTTP API: one method per endpoint that towpath calls, and the addresses preview shows."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from towpath.http import JSON_TYPE, Http, Reply

NOT_FOUND = 404
_escape = re.compile(r"[^A-Za-z0-9_.~-]").sub
_ESCAPED = {chr(code): f"%{code:02X}" for code in range(128)}


def segment(text: str) -> str:
    """A text as one segment of a path, percent-encoded (D11); ASCII four times as fast as by `quote`."""
    return _escape(_escaped, text) if text.isascii() else quote(text, safe="")


def _escaped(found: re.Match[str]) -> str:
    return _ESCAPED[found[0]]


def tracking_url(base_url: str) -> str:
    """Where an identity and its event go together."""
    return f"{base_url}/v1/tracking/identityEvent"


def customers_url(base_url: str) -> str:
    """Where a customer is created."""
    return f"{base_url}/v1/customers"


def customer_url(base_url: str, customer_id: str) -> str:
    """Where one customer is updated; `replace=false` keeps what the body does not name."""
    return f"{base_url}/v1/customers/{segment(customer_id)}?replace=false"


def look_up_url(base_url: str, key: str, value: str) -> str:
    """Where a customer is found by `email`, `phone` or `externalId`."""
    return f"{base_url}/v1/customers/{key}={segment(value)}"


class KustomerApi:
    """Kustomer's API at `base_url`; the door carries the key. Every method may raise `Undelivered`."""

    def __init__(self, http: Http, base_url: str) -> None:
        self.http = http
        self.base_url = base_url

    async def current_token(self) -> Reply:
        """GET /v1/auth/tokens/current: `{data: {attributes: {roles: [...]}}}`; any valid key may."""
        return await self._call("GET", f"{self.base_url}/v1/auth/tokens/current")

    async def track(self, body: bytes) -> Reply:
        """POST /v1/tracking/identityEvent `{identity, event}` as JSON: 201; role org.tracking."""
        headers = {"content-type": JSON_TYPE}
        return await self._call("POST", tracking_url(self.base_url), body=body, headers=headers)

    async def find_customer(self, key: str, value: str) -> Reply:
        """GET /v1/customers/{key}={value}: 200 with the customer, or 404; role customer.read."""
        return await self._call("GET", look_up_url(self.base_url, key, value), allow=(NOT_FOUND,))

    async def create_customer(self, body: dict[str, Any]) -> Reply:
        """POST /v1/customers: 201 with the customer; role customer.create."""
        return await self._call("POST", customers_url(self.base_url), json=body)

    async def update_customer(self, customer_id: str, body: dict[str, Any]) -> Reply:
        """PUT /v1/customers/{id}?replace=false: 200 with the customer; role customer.update."""
        return await self._call("PUT", customer_url(self.base_url, customer_id), json=body)

    async def _call(self, method: str, url: str, **what: Any) -> Reply:
        return await self.http.request(method, url, speaks_json=True, **what)
