"""The courier: makes one call of a destination and says what became of each parcel in it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from .destination import Destination, Ended, Scope
from .http import BODY_LIMIT_BYTES, Exchange, Stopping, Undelivered
from .lanes import Lane, Parcel
from .outcome import Delivered, Outcome, Paused, Rejected, Retry
from .redaction import header_secrets, redact

UNFORESEEN = 500
_encode = msgspec.json.Encoder(enc_hook=str).encode
REFUSES_A_BATCH = frozenset({400, 413, 422})


class Courier:
    """Calls one destination. What its code raises becomes an outcome; only cancelling passes through.

    `may_start` says whether a call still ends before another owner could take the connection over, `unwanted`
    whether somebody in a parcel was suppressed, as whoever is being erased is.
    """

    def __init__(
        self,
        destination: Destination[Any],
        scope: Scope,
        *,
        may_start: Callable[[], bool] = lambda: True,
        unwanted: Callable[[Parcel], bool] = lambda _: False,
    ) -> None:
        self._destination = destination
        self._scope = scope
        self._may_start = may_start
        self._unwanted = unwanted

    async def send(self, parcels: Sequence[Parcel]) -> list[Outcome | None]:
        """What became of each parcel, in order; None for one that a stop kept from being sent."""
        try:
            return await self._call(parcels)
        except Stopping:
            return [None] * len(parcels)
        except Undelivered as error:
            if len(parcels) > 1 and _refuses_a_batch(error.outcome):
                return await self._halves(parcels)
            for parcel in parcels:
                parcel.exchange = self._own(error.exchange, parcel) if len(parcels) > 1 else error.exchange
            return [error.outcome] * len(parcels)
        except Exception as error:
            return [self.unforeseen("delivering", error)] * len(parcels)

    def unforeseen(self, doing: str, error: Exception) -> Retry:
        """The outcome of an exception nobody expected, with its traceback."""
        http = self._scope.http
        lines = "".join(traceback.format_exception(error, limit=-3))
        found = redact(lines, {*http.secrets, *header_secrets(http.headers)})
        return Retry(f"{doing} failed: {found}", code=UNFORESEEN)

    async def _call(self, parcels: Sequence[Parcel]) -> list[Outcome | None]:
        if len(parcels) == 1:
            return [await self._destination.deliver(parcels[0].payload, self._scope) or Delivered()]
        payloads = [parcel.payload for parcel in parcels]
        ended = await self._destination.deliver_batch(payloads, self._scope)
        if len(ended) != len(parcels):
            raise ValueError(f"deliver_batch returned {len(ended)} outcomes for {len(parcels)} payloads")
        return [self._outcome(parcel, end) for parcel, end in zip(parcels, ended, strict=True)]

    def _outcome(self, parcel: Parcel, ended: Ended) -> Outcome | None:
        """What one item of a batch came to; one that raised keeps its exchange, like a call of its own."""
        if not isinstance(ended, Exception):
            return ended
        if isinstance(ended, Undelivered):
            parcel.exchange = ended.exchange
            return ended.outcome
        return None if isinstance(ended, Stopping) else self.unforeseen("delivering", ended)

    def _own(self, exchange: Exchange | None, parcel: Parcel) -> Exchange | None:
        """One item's part of a batch's request: its letter must not hold what concerns others (D10)."""
        if exchange is None:
            return None
        http = self._scope.http
        shown = "\n".join(_encode(call.json).decode() for call in parcel.payload.requests)
        shown = redact(shown, {*http.secrets, *header_secrets(http.headers)})
        return msgspec.structs.replace(exchange, body=shown[:BODY_LIMIT_BYTES])

    async def _halves(self, parcels: Sequence[Parcel]) -> list[Outcome | None]:
        """A batch refused as a whole is halved until the one at fault stands alone (D03)."""
        if not self._may_start():
            return [None] * len(parcels)
        left = [parcel for parcel in parcels if not self._is_gone(parcel)]
        if len(left) < len(parcels):  # erased meanwhile: not sent again
            sent = dict(zip(map(id, left), await self.send(left) if left else [], strict=True))
            return [sent.get(id(parcel)) for parcel in parcels]
        middle = len(parcels) // 2
        first = await self.send(parcels[:middle])
        waiting = set(_unfinished(parcels[:middle], first))
        later = [
            parcel for parcel in parcels[middle:] if not (self._is_gone(parcel) or parcel.lane in waiting)
        ]
        ended = await self.send(later) if later and self._may_start() else []
        # Whoever failed in the first half keeps the rest of his order for the next time.
        second = dict(zip(map(id, later), ended, strict=False))
        return [*first, *[second.get(id(parcel)) for parcel in parcels[middle:]]]

    def _is_gone(self, parcel: Parcel) -> bool:
        """Whether it must not be sent again: its lane finds out what becomes of it."""
        return parcel.erased or self._unwanted(parcel)


def _refuses_a_batch(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejected) and outcome.code in REFUSES_A_BATCH


def _unfinished(parcels: Sequence[Parcel], outcomes: Sequence[Outcome | None]) -> Iterable[Lane]:
    """The lanes of those that are to be sent again."""
    return (
        parcel.lane
        for parcel, outcome in zip(parcels, outcomes, strict=True)
        if outcome is None or isinstance(outcome, Retry | Paused)
    )
