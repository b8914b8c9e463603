"""The simulated App API's settings and lists of the workspace: webhooks, topics, snippets, collections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .customerio_exchange import Answered, Call, Endpoint, app_error
from .customerio_paging import page
from .customerio_state import CustomerIoState, Record
from .customerio_webhooks import EVENTS

SUPPRESSION_TYPES = frozenset({"blocks", "bounces", "spam_reports", "invalid_emails"})
SUPPRESSIONS_PAGE, SUPPRESSIONS_LARGEST = 100, 1000
_SENDERS_PAGE, _SENDERS_LARGEST = 50, 100


class WorkspaceSettings:
    """Endpoints that are not about people or messages."""

    def __init__(self, state: CustomerIoState) -> None:
        self._state = state
        self._counted: Record = {}
        self._counted_at = 0
        self.endpoints: list[tuple[str, str, Endpoint]] = [
            *self._of_webhooks(),
            *self._of_collections(),
            *self._of_suppressions(),
            ("GET", "/v1/sender_identities", self._senders),
            ("GET", "/v1/sender_identities/*", self._sender),
            ("GET", "/v1/sender_identities/*/used_by", self._sender_used_by),
            ("GET", "/v1/snippets", lambda _: (200, {"snippets": state.snippets})),
            ("PUT", "/v1/snippets", self._put_snippet),
            ("POST", "/v1/snippets", self._put_snippet),
            ("DELETE", "/v1/snippets/*", self._delete_snippet),
            ("GET", "/v1/subscription_topics", lambda _: (200, {"topics": state.topics})),
            ("GET", "/v1/object_types", lambda _: (200, {"types": state.object_types})),
            ("GET", "/v1/workspaces", self._workspaces),
            ("GET", "/v1/info/ip_addresses", lambda _: (200, {"ip_addresses": state.ip_addresses})),
            ("POST", "/v1/data_index/attributes", lambda _: (204, None)),
            ("POST", "/v1/data_index/events", lambda _: (204, None)),
        ]

    # -- reporting webhooks ----------------------------------------------------------------------------

    def _of_webhooks(self) -> Iterator[tuple[str, str, Endpoint]]:
        path = "/v1/reporting_webhooks"
        yield "GET", path, lambda _: (200, {"reporting_webhooks": self._state.reporting_webhooks})
        yield "POST", path, self._create_webhook
        yield "GET", f"{path}/*", lambda call: (200, self._webhook(call))
        yield "PUT", f"{path}/*", self._put_webhook
        yield "DELETE", f"{path}/*", self._delete_webhook

    def _create_webhook(self, call: Call) -> Answered:
        number = max((each["id"] for each in self._state.reporting_webhooks), default=0) + 1
        made = {**_webhook_of(call.body()), "id": number}
        self._state.reporting_webhooks.append(made)
        return 200, made

    def _webhook(self, call: Call) -> Record:
        return _found(self._state.reporting_webhooks, call.values[0])

    def _put_webhook(self, call: Call) -> Answered:
        webhook = self._webhook(call)
        webhook.update(_webhook_of({**webhook, **_hash(call.body())}), id=webhook["id"])
        return 200, webhook

    def _delete_webhook(self, call: Call) -> Answered:
        self._state.reporting_webhooks.remove(self._webhook(call))
        return 200, None

    # -- senders, snippets -----------------------------------------------------------------------------

    def _senders(self, call: Call) -> Answered:
        hidden = call.query("hidden") == "true"
        found = [each for each in self._state.sender_identities if bool(each.get("hidden")) == hidden]
        if call.query("sort") == "desc":
            found.reverse()
        tail = self._state.switches.tail_tokens
        rows, more = page(found, call, _SENDERS_PAGE, _SENDERS_LARGEST, tail=tail)
        return 200, {"sender_identities": rows, "next": more}

    def _sender(self, call: Call) -> Answered:
        return 200, {"sender_identity": _found(self._state.sender_identities, call.values[0])}

    def _sender_used_by(self, call: Call) -> Answered:
        _found(self._state.sender_identities, call.values[0])
        return 200, {"campaigns": [], "sent_newsletters": [], "draft_newsletters": []}

    def _put_snippet(self, call: Call) -> Answered:
        given = _hash(call.body())
        if not given.get("name") or not isinstance(given.get("value"), str):
            raise app_error(400, "name and value are required")
        made = {"name": given["name"], "value": given["value"], "updated_at": self._state.now()}
        kept = [each for each in self._state.snippets if each["name"] != given["name"]]
        self._state.snippets[:] = [*kept, made]
        return 200, {"snippet": made}

    def _delete_snippet(self, call: Call) -> Answered:
        kept = [each for each in self._state.snippets if each["name"] != call.values[0]]
        if len(kept) == len(self._state.snippets):
            raise app_error(404, "not found")
        self._state.snippets[:] = kept
        return 204, None

    # -- collections -----------------------------------------------------------------------------------

    def _of_collections(self) -> Iterator[tuple[str, str, Endpoint]]:
        path = "/v1/collections"
        yield "GET", path, lambda _: (200, {"collections": list(map(_plain, self._state.collections))})
        yield "POST", path, self._create_collection
        yield "GET", f"{path}/*", lambda call: (200, {"collection": _plain(self._collection(call))})
        yield "PUT", f"{path}/*", self._put_collection
        yield "DELETE", f"{path}/*", self._delete_collection
        yield "GET", f"{path}/*/content", lambda call: (200, self._collection(call).get("data", []))
        yield "PUT", f"{path}/*/content", self._put_content

    def _collection(self, call: Call) -> Record:
        return _found(self._state.collections, call.values[0])

    def _create_collection(self, call: Call) -> Answered:
        given, now = _hash(call.body()), self._state.now()
        if not given.get("name") or not isinstance(given.get("data"), list):
            raise app_error(400, "name and data are required")
        made = {"id": self._state.serial(), "name": given["name"], "created_at": now, "updated_at": now}
        made.update(_measured(given["data"]))
        self._state.collections.append(made)
        return 200, {"collection": _plain(made)}

    def _put_collection(self, call: Call) -> Answered:
        collection, given = self._collection(call), _hash(call.body())
        collection.update(_measured(given.get("data") or collection.get("data", [])))
        collection.update(name=given.get("name") or collection["name"], updated_at=self._state.now())
        return 200, {"collection": _plain(collection)}

    def _put_content(self, call: Call) -> Answered:
        collection, data = self._collection(call), call.body()
        # Live, new contents do not move `updated_at`.
        collection.update(_measured(data if isinstance(data, list) else [data]))
        return 200, {"collection": _plain(collection)}

    def _delete_collection(self, call: Call) -> Answered:
        self._state.collections.remove(self._collection(call))
        return 204, None

    # -- the mail provider's list ----------------------------------------------------------------------

    def _of_suppressions(self) -> Iterator[tuple[str, str, Endpoint]]:
        yield "GET", "/v1/esp/suppression/*", self._suppressions
        yield "GET", "/v1/esp/search_suppression/*", self._search_suppressions
        yield "GET", "/v1/esp/domains/*/suppression/*", self._suppressions_of_domain
        yield "POST", "/v1/esp/suppression/*/*", self._add_suppression
        yield "DELETE", "/v1/esp/suppression/*/*", self._delete_suppression

    def _suppressed(self, call: Call) -> list[Record]:
        if call.values[0] not in SUPPRESSION_TYPES:
            raise app_error(404, "not found")
        return self._state.suppressions.setdefault(call.values[0], [])

    def _suppressions(self, call: Call) -> Answered:
        kept, offset = self._suppressed(call), call.number("offset", 0, 10**9)
        limit = call.number("limit", SUPPRESSIONS_PAGE, SUPPRESSIONS_LARGEST)
        domain = call.query("domain")
        found = [each for each in kept if each.get("domain") == domain] if domain else kept
        rows = [_shown(each) for each in found[offset : offset + limit]]
        if not rows:
            return 200, {"suppressions": None}
        return 200, {"category": call.values[0], "suppressions": rows}

    def _suppressions_of_domain(self, call: Call) -> Answered:
        domain, kind = call.values
        rows = [
            each for each in self._state.suppressions.get(kind, []) if each["email"].endswith(f"@{domain}")
        ]
        return 200, {"category": kind, "suppressions": rows} if rows else {"suppressions": None}

    def _search_suppressions(self, call: Call) -> Answered:
        for kind, kept in self._state.suppressions.items():
            rows = [each for each in kept if each["email"] == call.values[0]]
            if rows:
                return 200, {"category": kind, "suppressions": rows}
        return 200, {"suppressions": None}

    def _add_suppression(self, call: Call) -> Answered:
        reason = "Uploaded manually via api.customer.io"
        made = {"created": self._state.now(), "email": call.values[1], "reason": reason, "status": "550"}
        self._suppressed(call).append(made)
        return 200, {}

    def _delete_suppression(self, call: Call) -> Answered:
        kept = self._suppressed(call)
        kept[:] = [each for each in kept if each["email"] != call.values[1]]
        return 204, None

    def _workspaces(self, _call: Call) -> Answered:
        return 200, {"workspaces": self._state.workspaces or [self._counts()]}

    def _counts(self) -> Record:
        """Count what is there, or return what was counted a while ago."""
        state, now = self._state, self._state.now()
        if self._counted and now < self._counted_at + state.switches.count_age_s:
            return self._counted
        self._counted_at = now
        self._counted = {
            "id": 1,
            "name": "Sandbox",
            "messages_sent": len(state.messages),
            "billable_messages_sent": len(state.messages),
            "people": len(state.people),
            "object_types": len(state.object_types),
            "objects": len(state.objects),
        }
        return self._counted


def _hash(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise app_error(400, "the body must be an object")
    return body


def _found(records: list[Record], number: str) -> Record:
    for record in records:
        if str(record["id"]) == number:
            return record
    raise app_error(404, "not found")


def _webhook_of(body: Any) -> Record:
    given = _hash(body)
    for name in ("name", "endpoint", "events"):
        if not given.get(name):
            raise app_error(400, f"{name} is required")
    if not isinstance(given["events"], list):
        raise app_error(400, "events must be a list")
    unknown = set(map(str, given["events"])) - EVENTS
    if unknown:
        raise app_error(400, f"unknown events: {', '.join(sorted(unknown))}")
    return {
        "name": given["name"],
        "id": 0,
        "type": "webhook",
        "endpoint": given["endpoint"],
        "disabled": bool(given.get("disabled")),
        "full_resolution": bool(given.get("full_resolution")),
        "with_content": bool(given.get("with_content")),
        "events": list(given["events"]),
    }


def _measured(data: list[Any]) -> Record:
    names = {name for row in data if isinstance(row, dict) for name in row}
    return {"data": data, "rows": len(data), "schema": sorted(names), "bytes": len(msgspec.json.encode(data))}


def _shown(suppression: Record) -> Record:
    return {name: value for name, value in suppression.items() if name != "domain"}


def _plain(collection: Record) -> Record:
    return {name: value for name, value in collection.items() if name != "data"}
