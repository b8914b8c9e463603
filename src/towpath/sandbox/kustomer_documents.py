"""The simulated Kustomer's records as its API shows them: JSON:API documents and error bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from .kustomer_state import Customer, Event, stamp

T = TypeVar("T")

ORGANISATION_ID = "57f29863a1dbf61100e6aa92"
USER_ID = "58190b991f2932100010d683"
KEY_ID = "5a0000000000000000000001"
_SHOWN_EMPTY = (
    *("externalIds", "sharedExternalIds", "emails", "sharedEmails", "phones", "sharedPhones", "whatsapps"),
    *(
        "facebookIds",
        "instagramIds",
        "socials",
        "sharedSocials",
        "urls",
        "locations",
        "activeUsers",
        "watchers",
    ),
    *("tags", "roleGroupVersions"),
)


class Refusal(Exception):
    """A request answered with an error: its status, and what the error body says."""

    def __init__(self, status: int, code: str, title: str, parameter: str = "", detail: str = "") -> None:
        super().__init__(title)
        self.status = status
        self.code = code
        self.title = title
        self.parameter = parameter
        self.detail = detail

    def body(self, shape: int) -> bytes:
        """Write the error in one of Kustomer's two shapes: 2 is the recorded one, 1 that of the new docs."""
        error: dict[str, Any] = {"status": self.status}
        if self.parameter:
            error["source"] = {"parameter": self.parameter}
        error |= {"code": self.code, "title": self.title}
        if self.detail:
            error["detail"] = self.detail
        if shape == 1:
            code = "bad_request" if self.status == 400 else self.code
            message = ": ".join(filter(None, [self.parameter, self.title, self.detail]))
            error = {"code": code, "message": message, "meta": {}}
        return msgspec.json.encode({"errors": [error]})


def not_found(parameter: str) -> Refusal:
    """Return the recorded 404: `parameter` is the look-up key that found nothing."""
    return Refusal(404, "notfound", "Not Found", parameter)


def link(kind: str, path: str, record_id: str) -> dict[str, Any]:
    """Return a relationship to one record."""
    return {"links": {"self": f"/v1/{path}/{record_id}"}, "data": {"type": kind, "id": record_id}}


ORGANISATION = link("org", "orgs", ORGANISATION_ID)
USER = link("user", "users", USER_ID)


def record(
    kind: str, record_id: str, attributes: Mapping[str, Any], relationships: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """Return one record without its envelope."""
    return {
        "type": kind,
        "id": record_id,
        "attributes": attributes,
        "relationships": {"org": ORGANISATION, **relationships},
        "links": {"self": path},
    }


def listing(path: str, items: Sequence[T], show: Callable[[T], Any], page: int, size: int) -> dict[str, Any]:
    """Return one page of a list in its envelope."""
    last = max(1, -(-len(items) // size))

    def at(number: int) -> str | None:
        return f"{path}?page={number}&pageSize={size}" if 1 <= number <= last else None

    links = {"self": f"{path}?page={page}&pageSize={size}", "first": at(1), "prev": at(page - 1)}
    return {
        "meta": {},
        "data": [show(item) for item in items[(page - 1) * size : page * size]],
        "links": {**links, "next": at(page + 1), "last": at(last)},
    }


def customer_record(customer: Customer) -> dict[str, Any]:
    """Return a customer as GET, POST and PUT show it."""
    times = {"createdAt": stamp(customer.created_at), "updatedAt": stamp(customer.updated_at)}
    written = customer.attributes
    attributes: dict[str, Any] = {
        **{key: [] for key in _SHOWN_EMPTY},
        "displayName": written.get("name") or "Unknown Customer",
        **times,
        "modifiedAt": times["updatedAt"],
        "lastActivityAt": times["updatedAt"],
        "recentLocation": {"updatedAt": times["updatedAt"]},
        "lastConversation": {"tags": []},
        "conversationCounts": {"all": 0, "snoozed": 0, "open": 0, "done": 0},
        "progressiveStatus": None,
        "verified": any(item.get("verified") for item in written.get("externalIds", ())),
        **{key: value for key, value in written.items() if key != "company"},
        "rev": customer.rev,
    }
    relationships = {
        "messages": {"links": {"self": f"/v1/customers/{customer.id}/messages"}},
        "createdBy": USER,
        "modifiedBy": USER,
    }
    if written.get("company"):
        relationships["company"] = link("company", "companies", written["company"])
    path = f"/v1/customers/{customer.id}"
    return record("customer", customer.id, attributes, relationships, path)


def identity_document(customer: Customer, identity_id: str, email: str | None, at: str) -> dict[str, Any]:
    """Return the answer of the two identity calls."""
    attributes = {
        "trackingId": customer.tracking_id,
        "email": email,
        "status": "updated",
        "statusAt": at,
        "createdAt": at,
        "updatedAt": at,
    }
    owner = {"customer": link("customer", "customers", customer.id)}
    return {
        "data": record("identity", identity_id, attributes, owner, f"/v1/tracking/identity/{identity_id}")
    }


def event_record(customer: Customer, event: Event) -> dict[str, Any]:
    """Return an event as it is read back."""
    attributes = {
        "name": "kustomer.tracking.identified.event",
        "trackingEvent": f"tracking.{event.name}",
        "app": None,
        "publishedAt": stamp(event.at),
        "createdAt": stamp(event.at),
        "meta": event.meta,
        "sessionId": event.session_id,
        "trackingId": event.tracking_id,
    }
    owner = {"createdBy": None, "modifiedBy": None, "customer": link("customer", "customers", customer.id)}
    path = f"/v1/customers/{customer.id}/events/{event.id}"
    return record("customer_event", event.id, attributes, owner, path)


def session_records(customer: Customer, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return a customer's sessions, oldest first."""
    sessions: dict[str, list[Event]] = {}
    for event in events:
        sessions.setdefault(event.session_id, []).append(event)
    owner = {"customer": link("customer", "customers", customer.id)}
    path = f"/v1/customers/{customer.id}/sessions"
    return [
        record("customer_session", kept[0].id, _session(session_id, kept), owner, path)
        for session_id, kept in sessions.items()
    ]


def _session(session_id: str, events: Sequence[Event]) -> dict[str, Any]:
    return {
        "sessionId": session_id,
        "firstEventAt": stamp(events[0].at),
        "lastEventAt": stamp(events[-1].at),
        "count": len(events),
    }


def token_record(token: str, roles: Sequence[str], at: str) -> dict[str, Any]:
    """Return what `GET /v1/auth/tokens/current` says of a key."""
    attributes = {
        "lastTokenChars": token[-4:],
        "name": "sandbox key",
        "ipAddress": "127.0.0.1",
        "userAgent": "",
        "roles": list(roles),
        "createdAt": at,
        "updatedAt": at,
        "lastAccessedAt": at,
    }
    path = f"/v1/auth/tokens/{KEY_ID}"
    return record("auth_token", KEY_ID, attributes, {"user": USER}, path)


def user_record(roles: Sequence[str], at: str) -> dict[str, Any]:
    """Return what `GET /v1/users/current` says of a key's machine user."""
    attributes = {
        "name": "sandbox key",
        "userType": "machine",
        "roles": list(roles),
        "createdAt": at,
        "updatedAt": at,
    }
    return record("user", USER_ID, attributes, {}, f"/v1/users/{USER_ID}")
