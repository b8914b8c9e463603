"""Every source that takes webhooks meets the contract."""

from __future__ import annotations

import hashlib
import hmac
from typing import ClassVar

import msgspec

from towpath.source import Incoming
from towpath.sources.customerio_webhooks import CustomerIoWebhooks
from towpath.testing import InboundContract

KEY = "0123456789abcdef0123"


class TestCustomerIoWebhooks(InboundContract):
    """Signature and timestamp over the body."""

    source = CustomerIoWebhooks
    settings: ClassVar = {"signing_keys": [KEY]}
    proofs = ("x-cio-signature", "x-cio-timestamp")

    def genuine(self, body: bytes | None = None) -> Incoming:
        report = {
            "event_id": "01E4C4CT6YDC7Y5M7FE1GWWPQJ",
            "object_type": "email",
            "metric": "opened",
            "timestamp": int(self.now),
            "data": {"identifiers": {"id": "u1", "email": "u1@example.com"}, "delivery_id": "d1"},
        }
        content = msgspec.json.encode(report) if body is None else body
        at = str(int(self.now))
        proof = hmac.new(KEY.encode(), f"v0:{at}:".encode() + content, hashlib.sha256).hexdigest()
        return Incoming("POST", headers={"x-cio-timestamp": at, "x-cio-signature": proof}, body=content)
