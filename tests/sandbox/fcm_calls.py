"""An FCM simulator on a clock that stands, and the calls of its API, made without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from towpath.sandbox.exchange import Incoming
from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.firebase import PROJECT
from towpath.sandbox.google import GRANT_TYPE

from .conftest import SetClock

MESSAGING = "https://www.googleapis.com/auth/firebase.messaging"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class Got(NamedTuple):
    """An answer."""

    status: int
    json: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def code(self) -> str:
        """The code of the FcmError; empty where there is none."""
        details = self.error.get("details", [])
        return next((each["errorCode"] for each in details if each["@type"] == FCM_ERROR), "")

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Field and sentence of each breach the BadRequest names."""
        found = [each for each in self.error.get("details", []) if each["@type"] == BAD_REQUEST]
        listed = [breach for each in found for breach in each.get("fieldViolations", [])]
        return [(each.get("field", ""), each["description"]) for each in listed]


class Fcm:
    """One simulated project; `settings` are those of the simulator."""

    def __init__(self, **settings: Any) -> None:
        self.clock = SetClock()
        self.simulator = FcmSimulator(clock=self.clock, **settings)
        self.state = self.simulator.state
        self.token = self.simulator.tokens.give(PROJECT, MESSAGING)

    def send(self, message: Any = None, *, token: str | None = None, **request: Any) -> Got:
        """Send a message, with a good token; `request` has further fields of the body."""
        body = request if message is None else {"message": message, **request}
        return self.post(json.dumps(body).encode(), token=token)

    def to(self, address: str, **message: Any) -> Got:
        """Send a message with a title to a token."""
        return self.send({"token": address, "notification": {"title": "Hi"}, **message})

    def post(
        self, body: bytes, *, token: str | None = None, project: str = PROJECT, scheme: str = "Bearer"
    ) -> Got:
        given = self.token if token is None else token
        headers = [(b"authorization", f"{scheme} {given}".encode())] if given else []
        path = f"/v1/projects/{project}/messages:send"
        return self.call(Incoming("POST", path, "", headers, body, len(body)))

    def exchange(self, assertion: str, grant_type: str = GRANT_TYPE) -> Got:
        """Ask for an access token."""
        body = urlencode({"grant_type": grant_type, "assertion": assertion}).encode()
        return self.call(Incoming("POST", "/token", "", [], body, len(body)))

    def call(self, request: Incoming) -> Got:
        answer = self.simulator.answer(request)
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        plain = headers["content-type"].startswith("text/html")
        return Got(answer.status, None if plain else json.loads(answer.body), headers)
