"""Metrics of a campaign, broadcast or newsletter: series that become a row per day."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from .reading import Ask, Chain, Door, Step, Unreachable, Wanted, page

DAY_S = 86_400
FIRST_S = 730 * DAY_S
"""How far back a first run without a start date asks: two years."""
SERIES = (
    *("created", "drafted", "attempted", "sent", "delivered", "opened", "human_opened", "prefetch_opened"),
    *("clicked", "human_clicked", "prefetch_clicked", "converted", "unsubscribed", "topic_unsubscribed"),
    *("bounced", "deferred", "dropped", "failed", "spammed", "suppressed", "undeliverable"),
)
"""Names of series that are columns."""
STATUSES = ("2xx", "3xx", "4xx", "5xx")
"""Names of series of webhooks, which are columns behind `status_`."""


class Metrics(Struct, frozen=True):
    """Series by day, in UTC, from `since` to the run; the last value of a series is the last day."""

    ask: Ask

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One."""
        end = int(wanted.until)
        since = end - FIRST_S if wanted.since is None else int(wanted.since)
        start = since - since % DAY_S
        query = {"version": "2", "res": "days", "tz": "UTC", "start": start, "end": end}
        return [Chain(query=query, constants={"resolution": "days"})]

    async def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Ask once."""
        del place
        reply = await door.ask(self.ask, *chain.values, **chain.query)
        last = int(wanted.until) - int(wanted.until) % DAY_S
        rows = list(_rows(_series(reply.json()), last))
        yield Step(page(msgspec.json.encode(rows), chain.constants), None, len(rows))


def _series(body: Any) -> Mapping[str, Any]:
    found = body.get("metric") if isinstance(body, dict) else None
    series = found.get("series") if isinstance(found, dict) else None
    if not isinstance(series, dict):
        raise Unreachable("the answer holds no `metric.series`")
    return series


def _rows(series: Mapping[str, Any], last: int) -> Iterator[dict[str, Any]]:
    """A row per day on which anything was counted; series are oldest first, and end on the day `last`."""
    known = {name: values for name, values in series.items() if isinstance(values, list)}
    for back in range(max(map(len, known.values()), default=0)):
        row = {name: values[-1 - back] for name, values in known.items() if back < len(values)}
        if any(row.values()):
            yield {"bucket": last - back * DAY_S, **row}
