"""Exports of the simulated App API: asked for, done later, fetched by a link that lasts 15 minutes."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
from collections.abc import Callable
from typing import Any

from .customerio_exchange import Answered, Call, Endpoint, Refusal, app_error
from .customerio_search import Search
from .customerio_state import CustomerIoState, Record, shown

LINK_S = 15 * 60
_LINK_KEY = b"links of the sandbox"
_OF_DELIVERIES = ("campaign_id", "newsletter_id", "action_id", "transactional_message_id")


class Exports:
    """Endpoints under `/v1/exports`, and the files behind the links."""

    def __init__(self, state: CustomerIoState, search: Search, delay_s: float) -> None:
        self._state = state
        self._search = search
        self._delay_s = delay_s
        self._files: dict[int, Callable[[], str]] = {}
        self._done_at: dict[int, float] = {}
        self.endpoints: list[tuple[str, str, Endpoint]] = [
            ("GET", "/v1/exports", self._list),
            ("GET", "/v1/exports/*", self._one),
            ("GET", "/v1/exports/*/download", self._link),
            ("POST", "/v1/exports/customers", self._customers),
            ("POST", "/v1/exports/deliveries", self._deliveries),
        ]

    def download(self, call: Call) -> str:
        """Return the CSV behind a link. Raises `Refusal` when it is over or was never given."""
        number, expires = call.values[0], call.query("expires")
        if call.request.header(b"authorization"):
            # As of a file store: the link is signed, and a second way to be let in is one too many.
            raise Refusal(400, None)
        signed = hmac.compare_digest(call.query("signature"), _signature(number, expires))
        if not signed or not expires.isdecimal() or int(expires) < self._state.now():
            raise Refusal(403, None)
        return self._files[int(number)]()

    def _list(self, _call: Call) -> Answered:
        self._settle()
        return 200, {"exports": self._state.exports}

    def _one(self, call: Call) -> Answered:
        return 200, {"export": self._export(call)}

    def _export(self, call: Call) -> Record:
        self._settle()
        for export in self._state.exports:
            if str(export["id"]) == call.values[0]:
                return export
        raise app_error(404, "not found")

    def _link(self, call: Call) -> Answered:
        export = self._export(call)
        if export["status"] != "done" or export["id"] not in self._files:
            raise app_error(404, "not found")
        export["downloads"] += 1
        lasts_s = -1 if self._state.export_fate == "expired" else LINK_S
        number, expires = str(export["id"]), str(self._state.now() + lasts_s)
        host = call.request.header(b"host")
        query = f"expires={expires}&signature={_signature(number, expires)}"
        return 200, {"url": f"http://{host}/exports/{number}.csv?{query}"}

    def _customers(self, call: Call) -> Answered:
        given = call.body()
        if not isinstance(given, dict) or "filters" not in given:
            raise app_error(400, "filters is required")
        people = self._search.people(given["filters"])
        asked = given.get("attributes")
        columns = asked or sorted({name for person in people for name in person.attributes})
        rows = [
            [person.cio_id, *(shown(person.attributes.get(name, "")) for name in columns)]
            for person in people
        ]
        return self._made("customers", "Customers", ["cio_id", *columns], rows)

    def _deliveries(self, call: Call) -> Answered:
        given = call.body()
        named = [name for name in _OF_DELIVERIES if isinstance(given, dict) and given.get(name) is not None]
        if not named:
            raise app_error(400, f"one of {', '.join(_OF_DELIVERIES)} is required")
        since, until = (int(str(given.get(name) or 0)) for name in ("start", "end"))
        found = [
            message
            for message in self._state.messages
            if since <= message["created"] <= (until or message["created"])
            and all(message.get(name) == given[name] for name in named)
        ]
        columns = ["id", "created", "recipient", "subject", "type"]
        rows = [[message.get(name, "") for name in columns] for message in found]
        return self._made("deliveries", "Full deliveries export (created via the api)", columns, rows)

    def _made(self, kind: str, description: str, columns: list[str], rows: list[list[Any]]) -> Answered:
        now, number = self._state.now(), self._state.serial()
        export: Record = {
            "id": number,
            "user_id": 0,
            "user_email": "person@example.com",
            "total": len(rows),
            "deduplicate_id": f"{number}:{now}",
            "type": kind,
            "failed": False,
            "status": "pending",
            "description": description,
            "downloads": 0,
            "created_at": now,
            "updated_at": now,
        }
        self._state.exports.append(export)
        self._files[number] = lambda: _csv(columns, rows)
        self._done_at[number] = self._state.clock.now() + self._delay_s
        return 200, {"export": dict(export)}

    def _settle(self) -> None:
        for export in self._state.exports:
            due = export["id"] in self._done_at and self._done_at[export["id"]] <= self._state.clock.now()
            fate = self._state.export_fate
            if due and export["status"] == "pending" and fate != "pending":
                failed = fate == "failed"
                export.update(status="failed" if failed else "done", failed=failed)
                export.update(updated_at=self._state.now())


def _signature(number: str, expires: str) -> str:
    return hmac.new(_LINK_KEY, f"{number}:{expires}".encode(), hashlib.sha256).hexdigest()


def _csv(columns: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
