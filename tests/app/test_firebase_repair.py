"""A document that a destination refused and that is repaired arrives whole, through the whole program."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path

import pytest

from towpath.sandbox.customerio import DEFAULT
from towpath.sandbox.firebase import PROJECT, CloudEvent, document_event
from towpath.sandbox.serve import sandbox

from .support import ask, hub, until

AT = 1_767_261_600.0
TOKEN = "0123456789abcdef"
CONFIG = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  app: {{type: firebase, project: {project}, push_token: {token}, collections: [users]}}
destinations:
  cio: {{type: customerio, site_id: {site}, api_key: {key}, base_url: "{url}", rate: 1000}}
connections:
  - {{from: app, to: [cio], start: earliest}}
"""


def push(address: str, event: CloudEvent) -> int:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {"content-type": "application/cloudevents+json", "authorization": f"Bearer {TOKEN}"}
        connection.request("POST", "/webhooks/app", json.dumps(event).encode(), headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.spec("F051", "F053", "P5")
async def test_a_repaired_document_arrives_whole(tmp_path: Path) -> None:
    async with sandbox() as box:
        values = {"project": PROJECT, "token": TOKEN, "site": DEFAULT.site_id, "key": DEFAULT.api_key}
        file = tmp_path / "towpath.yaml"
        file.write_text(CONFIG.format(url=box.customerio_url, **values))
        async with hub(file) as server:
            wrong = {"attributes": {"first_name": "Ada", "plan": "gold", "bio": "x" * 2000}}
            right = {"attributes": {"first_name": "Ada", "plan": "gold", "bio": "short"}}
            first = document_event("users/ada", wrong, AT)
            assert await asyncio.to_thread(push, server.address, first) == 200

            async def dead() -> bool:
                return bool(await ask(file, "GET", "/dlq"))

            await until(dead)
            feed = server.app.sources.stations["app"].feed

            async def owed() -> bool:
                value = feed.facts.view().find("d/(default)/users/ada")
                return value is not None and value.endswith(b"\xc3")  # the last field, `owed`, is true

            await until(owed)
            second = document_event("users/ada", right, AT + 10, before=wrong, created_at=AT)
            assert await asyncio.to_thread(push, server.address, second) == 200
            await until(lambda: box.customerio.person(id="ada"))
            person = box.customerio.person(id="ada") or {}
            assert {name: person[name] for name in ("first_name", "plan", "bio", "created_at")} == {
                "first_name": "Ada",
                "plan": "gold",
                "bio": "short",
                "created_at": int(AT),
            }
