"""Keyed hashing: a value becomes a name for it that only the holder of the key can make again."""

from __future__ import annotations

import hmac
from typing import Any

import msgspec

from .paths import MISSING


class Hashing:
    """HMAC-SHA256 of values, in hex; `normalize` trims text and lower-cases it first.

    Text is hashed as UTF-8, a number or truth value as its JSON text, a list item by item. Anything else has
    no hash: `MISSING`.
    """

    def __init__(self, key: str, *, normalize: bool = True) -> None:
        self._key = key.encode()
        self._normalize = normalize

    def of(self, value: Any) -> Any:
        """The hash of a value; None and empty text stay what they are."""
        if value is None:
            return None
        if isinstance(value, list):
            hashed = [self.of(each) for each in value if not isinstance(each, list)]
            return MISSING if len(hashed) != len(value) or MISSING in hashed else hashed
        if isinstance(value, dict):
            return MISSING
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        text = text.strip().lower() if self._normalize else text
        return hmac.digest(self._key, text.encode("utf-8", "replace"), "sha256").hex() if text else text
