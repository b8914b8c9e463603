"""Customer.io's reports through the running program: posted, kept, delivered; a forged one has no effect."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from towpath.cli.client import Client

from ..app.support import HOOK, ask, delivered, until, world

KEY = "signing-key-of-a-test"
TEXT = HOOK.replace(
    "destinations:", f"  reports: {{{{type: customerio_webhooks, signing_keys: [{KEY}]}}}}\ndestinations:"
).replace("from: web", "from: reports")


def report(event_id: str, metric: str = "opened", **identifiers: str) -> dict[str, Any]:
    """A report about a person."""
    data = {"delivery_id": "RPIL", "campaign_id": 5, "identifiers": identifiers or {"id": "42"}}
    return {"event_id": event_id, "object_type": "email", "metric": metric, "timestamp": 1, "data": data}


def post(address: str, body: bytes, path: str, key: str = KEY) -> tuple[int, str]:
    """Post as Customer.io does."""
    now = str(int(time.time()))
    digest = hmac.new(key.encode(), b"v0:" + now.encode() + b":" + body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {"X-CIO-Timestamp": now, "X-CIO-Signature": digest, "Content-Type": "application/json"}
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.spec("C080", "C081", "C106", "C116", "D07")
async def test_reports_are_answered_at_once_and_delivered(tmp_path: Path) -> None:
    async with world(tmp_path, TEXT) as (running, _, file):

        async def send(body: Any, path: str = "/webhooks/customerio", key: str = KEY) -> tuple[int, str]:
            raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
            return await asyncio.to_thread(post, running.address, raw, path, key)

        first = report("01A")
        assert await send(first) == (200, "OK")
        assert await send([first, report("01B", email="ann@example.com")], "/webhooks/reports") == (200, "OK")
        assert await send(report("01C", "never_heard_of")) == (200, "OK")
        assert await send(report("01D", id="")) == (200, "OK")
        assert await send(b"no json") == (200, "OK")
        assert (await send(report("01E"), key="forged"))[0] == 401
        await until(lambda: delivered(file))
        assert (await delivered(file))["delivered"] == 3
        events = await asyncio.to_thread(Client(file).get, "/events")
        assert {(row["message_id"], row["event"], row["user_id"]) for row in events} == {
            ("01A", "Email Opened", "42"),
            ("01B", "Email Opened", "ann@example.com"),
            ("01C", "Customer.io email never_heard_of", "42"),
        }
        refused = await asyncio.to_thread(Client(file).get, "/refusals")
        assert {row["code"] for row in refused} == {"no_person", "unreadable"}
        status = await ask(file, "GET", "/status")
        assert status["heard"]["reports"]["unauthorized"] == 1
        assert status["sources"]["reports"]["accepted"] == 3
        assert status["sources"]["reports"]["duplicates"] == 1
