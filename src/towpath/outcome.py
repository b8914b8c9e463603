"""What became of one delivery: exactly five answers, and the reading of an HTTP status."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Delivered(Struct, frozen=True):
    """The destination accepted it. `code` is the HTTP status where there was one.

    `reports` say what of it was left out or changed on the way, where only delivering could show it.
    """

    code: int = 0
    reports: tuple[str, ...] = ()


class Skipped(Struct, frozen=True):
    """There is nothing to do here: filtered, unsupported, suppressed, untrusted, stale, consent denied.

    `reason` is a short stable word (it is counted); `detail` is for people.
    """

    reason: str
    detail: str = ""


class Retry(Struct, frozen=True):
    """It may work later; the message and its person's order are kept.

    `after_s` is the vendor's wish in seconds. `throttled` means the vendor's rate limit spoke for the whole
    account: it costs the delivery no attempt. `code` is the HTTP status, 0 when no answer came.
    """

    reason: str
    after_s: float | None = None
    throttled: bool = False
    code: int = 0


class Rejected(Struct, frozen=True):
    """It will never work as it is; the message goes to the dead letters."""

    reason: str
    code: int = 0


class Paused(Struct, frozen=True):
    """A credential or role is refused. The loop asks the destination's `check` before it believes it (P6)."""

    reason: str
    code: int = 0


Outcome: TypeAlias = Delivered | Skipped | Retry | Rejected | Paused

RETRYABLE = frozenset({408, 423, 425, 429})
LONGEST_WISH_S = 24 * 3600.0


def from_status(status: int, detail: str = "", retry_after_s: float | None = None) -> Outcome:
    """Read an HTTP status by D03; a destination overrides only what differs.

    2xx delivered; 408, 423, 425, 429 and 5xx retry; 401 and 403 pause; 3xx is not followed and rejected;
    everything else is rejected.
    """
    said = f"{status}: {detail}" if detail else str(status)
    if 200 <= status < 300:
        return Delivered(status)
    if status in RETRYABLE or status >= 500:
        wish = None if retry_after_s is None else min(max(retry_after_s, 0.0), LONGEST_WISH_S)
        return Retry(said, wish, throttled=status == 429, code=status)
    if status in (401, 403):
        return Paused(said, status)
    if 300 <= status < 400:
        return Rejected(f"redirect ({said}); redirects are not followed", status)
    return Rejected(said, status)
