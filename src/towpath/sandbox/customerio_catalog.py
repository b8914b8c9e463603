"""The simulated App API's campaigns, broadcasts, newsletters, transactional messages, and what they sent."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from .customerio_exchange import Answered, Call, Endpoint, app_error
from .customerio_messages import Chosen, Sent
from .customerio_paging import page
from .customerio_series import RESOLUTIONS, buckets, counted
from .customerio_state import CustomerIoState, Record

MESSAGES_PAGE, MESSAGES_LARGEST = 50, 1000
LIST_PAGE, LIST_LARGEST = 50, 100
HALF_YEAR_S = 184 * 86_400
STEPS = {"hours": 24, "days": 45, "weeks": 12, "months": 120}
SERIES = (
    *("2xx", "3xx", "4xx", "5xx", "attempted", "bounced", "clicked", "human_clicked", "prefetch_clicked"),
    *("converted", "created", "deferred", "delivered", "drafted", "failed", "opened", "human_opened"),
    *("prefetch_opened", "sent", "spammed", "suppressed", "undeliverable", "topic_unsubscribed"),
    "unsubscribed",
)
JOURNEY = ("started", "activated", "exited_early", "finished", "converted", "never_activated", "messaged")
_SINGULAR = {
    "campaigns": "campaign",
    "broadcasts": "broadcast",
    "newsletters": "newsletter",
    "transactional": "message",
}
_PLURAL = {"transactional": "messages"}
_ID_OF_MESSAGE = {
    "campaigns": "campaign_id",
    "broadcasts": "broadcast_id",
    "newsletters": "newsletter_id",
    "transactional": "transactional_message_id",
}


class Catalog:
    """Endpoints that read what was made in Customer.io's own pages; a test puts it into the state."""

    def __init__(self, state: CustomerIoState) -> None:
        self._state = state
        self.endpoints = [*self._of_all(), *self._of_messages(), *self._of_actions()]

    def messages_page(self, call: Call, concerned: Chosen | None = None) -> Answered:
        """List messages, newest first, with the filters of the query.

        At most the newest half year of what is asked for: a longer time is cut without a word.
        """
        since, until = self._window(call)
        messages, drafts = self._state.messages, call.query("drafts") == "true"
        found = messages.chosen(since, until, drafts=drafts, test=_filter(call, concerned))
        empty_pages = self._state.switches.empty_pages
        places, more = page(found, call, MESSAGES_PAGE, MESSAGES_LARGEST, empty_pages=empty_pages)
        return 200, {"messages": messages.encoded(places), "next": more}

    def _of_all(self) -> Iterator[tuple[str, str, Endpoint]]:
        for kind in _SINGULAR:
            yield "GET", f"/v1/{kind}", partial(self._list, kind)
            yield "GET", f"/v1/{kind}/*", partial(self._one, kind)
            yield "GET", f"/v1/{kind}/*/metrics", partial(self._metrics, kind)
            yield "GET", f"/v1/{kind}/*/metrics/links", partial(self._links, kind)
            yield "GET", f"/v1/{kind}/*/messages", partial(self._messages_of, kind)
        yield "GET", "/v1/campaigns/*/journey_metrics", self._journey
        yield "DELETE", "/v1/newsletters/*", self._delete_newsletter
        yield "GET", "/v1/newsletters/*/test_groups", self._test_groups

    def _of_messages(self) -> Iterator[tuple[str, str, Endpoint]]:
        yield "GET", "/v1/messages", self.messages_page
        yield "GET", "/v1/messages/*", self._message
        yield "GET", "/v1/messages/*/archived_message", self._archived

    def _of_actions(self) -> Iterator[tuple[str, str, Endpoint]]:
        """Campaigns and broadcasts have actions, newsletters and transactional messages have contents."""
        for kind, part in (
            *(("campaigns", "actions"), ("broadcasts", "actions")),
            *(("newsletters", "contents"), ("transactional", "contents")),
        ):
            yield "GET", f"/v1/{kind}/*/{part}", partial(self._parts, kind, part)
            yield "GET", f"/v1/{kind}/*/{part}/*", partial(self._part, kind, part)
            yield "GET", f"/v1/{kind}/*/{part}/*/metrics", partial(self._metrics_of_part, kind, part)
            yield "GET", f"/v1/{kind}/*/{part}/*/metrics/links", partial(self._links_of_part, kind, part)

    def _records(self, kind: str) -> list[Record]:
        records: list[Record] = getattr(self._state, kind)
        return records

    def _record(self, kind: str, call: Call) -> Record:
        for record in self._records(kind):
            if str(record["id"]) == call.values[0]:
                return record
        raise app_error(404, "not found")

    def _list(self, kind: str, call: Call) -> Answered:
        records = list(self._records(kind))
        if kind != "newsletters":
            return 200, {_PLURAL.get(kind, kind): records}
        if call.query("sort") == "desc":
            records.reverse()
        rows, more = page(records, call, LIST_PAGE, LIST_LARGEST)
        return 200, {"newsletters": rows, "next": more}

    def _one(self, kind: str, call: Call) -> Answered:
        return 200, {_SINGULAR[kind]: self._record(kind, call)}

    def _delete_newsletter(self, call: Call) -> Answered:
        self._state.newsletters.remove(self._record("newsletters", call))
        return 204, None

    def _test_groups(self, call: Call) -> Answered:
        self._record("newsletters", call)
        return 200, {"test_groups": self._state.test_groups.get(f"newsletters/{call.values[0]}", [])}

    # -- metrics ---------------------------------------------------------------------------------------

    def _metrics(self, kind: str, call: Call) -> Answered:
        self._record(kind, call)
        return self._series(f"{kind}/{call.values[0]}", call, versioned=kind == "campaigns")

    def _metrics_of_part(self, kind: str, part: str, call: Call) -> Answered:
        self._part(kind, part, call)
        path = f"{kind}/{call.values[0]}/{part}/{call.values[1]}"
        return self._series(path, call, versioned=kind == "campaigns")

    def _series(self, path: str, call: Call, *, versioned: bool) -> Answered:
        known = self._state.metrics.get(path, {})
        version = call.query("version")
        if versioned and version not in {"1", "2"}:
            raise app_error(400, "version must be 1 or 2")
        if version == "2" or call.query("start"):
            starts = buckets(call, self._state.now(), max(map(len, known.values()), default=1))
            series = {name: counted(known.get(name, []), starts, self._state.now()) for name in SERIES}
        else:
            steps = _steps(call)
            series = {name: _last(known.get(name, []), steps) for name in SERIES}
        return 200, {"metric": {"series": series}}

    def _journey(self, call: Call) -> Answered:
        self._record("campaigns", call)
        if not (call.query("start") and call.query("end") and call.query("res") in RESOLUTIONS):
            raise app_error(400, "start, end and res are required")
        known = self._state.journeys.get(f"campaigns/{call.values[0]}", {})
        return 200, {"journey_metric": {name: known.get(name, []) for name in JOURNEY}}

    def _links(self, kind: str, call: Call) -> Answered:
        self._record(kind, call)
        return 200, {"links": self._state.links.get(f"{kind}/{call.values[0]}", [])}

    def _links_of_part(self, kind: str, part: str, call: Call) -> Answered:
        self._part(kind, part, call)
        path = f"{kind}/{call.values[0]}/{part}/{call.values[1]}"
        return 200, {"links": self._state.links.get(path, [])}

    # -- actions, contents, messages -------------------------------------------------------------------

    def _parts_of(self, kind: str, part: str, call: Call) -> list[Record]:
        self._record(kind, call)
        kept = self._state.actions if part == "actions" else self._state.contents
        # Live the id of an action is a string, whatever the specification says.
        records = kept.get(f"{kind}/{call.values[0]}", [])
        return [{**record, "id": str(record["id"])} for record in records] if part == "actions" else records

    def _parts(self, kind: str, part: str, call: Call) -> Answered:
        records = self._parts_of(kind, part, call)
        if part != "actions":
            return 200, {part: records}
        rows, more = page(records, call, LIST_PAGE, LIST_LARGEST)
        return 200, {part: rows, "next": more}

    def _part(self, kind: str, part: str, call: Call) -> Answered:
        for record in self._parts_of(kind, part, call):
            if str(record["id"]) == call.values[1]:
                return 200, {part.removesuffix("s"): record}
        raise app_error(404, "not found")

    def _messages_of(self, kind: str, call: Call) -> Answered:
        number = self._record(kind, call)["id"]
        return self.messages_page(call, lambda message: getattr(message, _ID_OF_MESSAGE[kind]) == number)

    def _message(self, call: Call) -> Answered:
        message = self._state.messages.find(call.values[0])
        if message is None:
            raise app_error(404, "not found")
        return 200, {"message": message}

    def _archived(self, call: Call) -> Answered:
        _, found = self._message(call)
        message = found["message"]
        kept = {
            name: message.get(name, "") for name in ("id", "body", "from", "reply_to", "recipient", "subject")
        }
        return 200, {"archived_message": kept}

    def _window(self, call: Call) -> tuple[int, int]:
        until = int(call.query("end_ts") or self._state.now())
        return max(int(call.query("start_ts") or 0), until - HALF_YEAR_S), until


def _filter(call: Call, concerned: Chosen | None) -> Chosen | None:
    """Return what a delivery must meet; None where all do."""
    names = ("type", "campaign_id", "newsletter_id", "action_id")
    wanted = {name: call.query(name) for name in names if call.query(name)}
    metric = call.query("metric")
    if not wanted and not metric:
        return concerned

    def meets(message: Sent) -> bool:
        return (
            (concerned is None or concerned(message))
            and (not metric or metric in (message.metrics or {}))
            and all(str(getattr(message, name)) == value for name, value in wanted.items())
        )

    return meets


def _steps(call: Call) -> int:
    """How many steps version 1 answers: at least two; 0 and none are the most there are."""
    period = call.query("period", "days")
    if period not in STEPS:
        raise app_error(400, f"period must be one of {', '.join(STEPS)}")
    largest = STEPS[period]
    asked = call.number("steps", 12 if period == "months" else largest, largest)
    return max(2, asked) if asked else largest


def _last(values: list[int], steps: int) -> list[Any]:
    """The newest steps, the oldest of them first; none is 0."""
    return [0] * (steps - len(values)) + values[-steps:]
