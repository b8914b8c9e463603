"""A Customer.io simulator with the calls of its three APIs, made without a network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.exchange import Incoming

from .conftest import SetClock


class Got(NamedTuple):
    """An answer; `json` is None where there is no body."""

    status: int
    json: Any
    headers: Mapping[str, str]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


TRACK = basic(DEFAULT.site_id, DEFAULT.api_key)
APP = f"Bearer {DEFAULT.app_api_key}"
PIPELINES = basic(DEFAULT.write_key, "")


class Workspace:
    """One simulated workspace on a clock that stands; `settings` are those of the simulator."""

    def __init__(self, **settings: Any) -> None:
        self.clock = SetClock()
        settings = {"app_per_s": 10_000, **settings}
        self.simulator = CustomerIoSimulator(clock=self.clock, **settings)
        self.state = self.simulator.state

    def call(
        self, method: str, path: str, body: Any = None, *, key: str, raw: bytes | None = None, **headers: str
    ) -> Got:
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {"authorization": key, "content_type": "application/json", "host": "box", **headers}
        sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
        bare, _, query = path.partition("?")
        answer = self.simulator.answer(Incoming(method, bare, query, sent, data, len(data)))
        found = {name.decode(): value.decode() for name, value in answer.headers}
        said = json.loads(answer.body) if answer.body and "json" in found["content-type"] else None
        return Got(answer.status, said, found)

    def track(self, method: str, path: str, body: Any = None, **more: Any) -> Got:
        return self.call(method, f"/api/v1{path}", body, **{"key": TRACK, **more})

    def identify(self, identifier: str, **attributes: Any) -> Got:
        return self.track("PUT", f"/customers/{identifier}", attributes)

    def event(self, identifier: str, name: str, **more: Any) -> Got:
        return self.track("POST", f"/customers/{identifier}/events", {"name": name, **more})

    def entity(self, kind: str, action: str, identifiers: Any = None, **more: Any) -> Got:
        named = {} if identifiers is None else {"identifiers": identifiers}
        return self.call(
            "POST", "/api/v2/entity", {"type": kind, "action": action, **named, **more}, key=TRACK
        )

    def batch(self, *items: Any) -> Got:
        return self.call("POST", "/api/v2/batch", {"batch": items}, key=TRACK)

    def app(self, method: str, path: str, body: Any = None, **query: Any) -> Got:
        given = f"?{urlencode(query)}" if query else ""
        return self.call(method, f"/v1{path}{given}", body, key=APP)

    def pipelines(self, call: str, body: Any, *, strict: bool = True, key: str = PIPELINES) -> Got:
        return self.call("POST", f"/v1/{call}", body, key=key, x_strict_mode=str(int(strict)))

    def activities(self, kind: str = "", **query: Any) -> list[Any]:
        given = {"type": kind} if kind else {}
        found = self.app("GET", "/activities", limit=100, **given, **query)
        activities: list[Any] = found.json["activities"]
        return activities

    def reasons(self) -> list[str]:
        """The reasons of the Attribute Update Failures, newest first."""
        return [each["data"]["reason"] for each in self.activities("failed_attribute_change")]

    def cio_id(self, **identifier: str) -> str:
        found = self.simulator.find(**identifier)
        assert found is not None
        return found.cio_id

    def names(self, **identifier: str) -> list[str]:
        """The names of a person's events in their order."""
        return [event.name for event in self.simulator.events(**identifier)]
