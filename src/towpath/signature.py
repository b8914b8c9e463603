"""Standard Webhooks signatures (spec 1.0.0): headers that prove who sent a body, and when."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import string
from urllib.parse import quote

PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """Read the key of a `whsec_…` secret. Raises `ValueError` in words for people."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"must begin with `{PREFIX}`")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"must be base64 after `{PREFIX}`") from None
    if not 24 <= len(key) <= 64:
        raise ValueError(f"must hold 24 to 64 bytes after `{PREFIX}`")
    return key


def signed(secret: str, identifier: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the signature headers (version v1, HMAC-SHA256); `timestamp` is Unix seconds.

    The identifier goes into a header: quoting leaves visible ASCII as it is.
    """
    name = quote(identifier, safe=string.punctuation)
    digest = hmac.digest(signing_key(secret), f"{name}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": name,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
