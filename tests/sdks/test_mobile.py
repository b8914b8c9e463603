"""Web, mobile and server sources in cloud mode; mobile SDKs' requests in the shapes their code gives.

Written after the public sources of analytics-swift, analytics-kotlin, rudder-sdk-ios, rudder-sdk-android,
rudder-sdk-kotlin and rudder-sdk-swift, which need a phone or its simulator to run.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from .support import Source, Towpath

PHONE = {
    "app": {"name": "Shop", "version": "3.1", "build": "301", "namespace": "com.example.shop"},
    "device": {"id": "D1", "manufacturer": "Maker", "model": "M1", "type": "android", "token": "fcm-token"},
    "os": {"name": "Android", "version": "15"},
    "network": {"wifi": True, "cellular": False, "carrier": "Carrier"},
    "screen": {"width": 1080, "height": 2400, "density": 2.75},
    "locale": "de-DE",
    "timezone": "Europe/Berlin",
}
OPENED = {"version": "3.1", "build": "301", "from_background": False}


class Mobile(NamedTuple):
    """How one SDK asks for its settings and sends its batches."""

    name: str
    settings: str
    path: str
    headers: Mapping[str, str]
    basic: bool = True
    key_inside: bool = False
    gzips: bool = False
    chunked: bool = False


_ANONYMOUS = {"AnonymousId": base64.b64encode(b"anon-phone").decode()}
SEGMENT = "/v1/projects/{key}/settings"
MOBILES = [
    Mobile(
        "analytics-swift",
        SEGMENT,
        "/v1/b",
        {"Content-Type": "application/json; charset=utf-8", "User-Agent": "analytics-ios/1.9.1"},
        basic=False,
        key_inside=True,
    ),
    Mobile(
        "analytics-kotlin",
        SEGMENT,
        "/v1/b",
        {"Content-Type": "text/plain", "User-Agent": "analytics-kotlin/1.22.0"},
        basic=False,
        key_inside=True,
        gzips=True,
        chunked=True,
    ),
    Mobile("analytics-android 4", SEGMENT, "/v1/import", {"Content-Type": "application/json"}, gzips=True),
    Mobile(
        "rudder-sdk-ios 1",
        "/sourceConfig?p=ios&v=1.31.1",
        "/v1/batch",
        {"Content-Type": "Application/json", **_ANONYMOUS},
    ),
    Mobile(
        "rudder-sdk-android 1",
        "/sourceConfig?p=android&v=1.27.0&bv=35",
        "/v1/batch",
        {"Content-Type": "application/json", **_ANONYMOUS},
        gzips=True,
    ),
    Mobile(
        "rudder-sdk-kotlin, rudder-sdk-swift",
        "/sourceConfig?p=android&v=1.2.0&bv=35",
        "/v1/batch",
        {"Content-Type": "application/json", "Connection": "keep-alive", **_ANONYMOUS},
        gzips=True,
    ),
]
EACH = pytest.mark.parametrize("mobile", MOBILES, ids=[mobile.name for mobile in MOBILES])


def events(person: str) -> list[dict[str, Any]]:
    """What an app sends on its first day."""
    said: list[dict[str, Any]] = [
        {"type": "track", "event": "Application Opened", "properties": OPENED},
        {"type": "screen", "name": "Start", "category": "", "properties": {"name": "Start"}},
        {"type": "identify", "userId": person, "traits": {"email": "a@example.com"}},
        {"type": "track", "userId": person, "event": "Order Completed", "properties": {"total": 9.99}},
        {"type": "group", "userId": person, "groupId": "g1", "traits": {"plan": "x"}},
        {"type": "alias", "userId": person, "previousId": f"anon-{person}"},
    ]
    shared = {"anonymousId": f"anon-{person}", "context": PHONE, "integrations": {}}
    return [
        {**event, **shared, "messageId": f"{person}-{n}", "timestamp": f"2026-01-02T03:04:0{n}.000Z"}
        for n, event in enumerate(said)
    ]


def ask(hub: Towpath, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """One request over a connection of its own; an iterator as body is sent in chunks."""
    with closing(http.client.HTTPConnection(hub.address, timeout=30)) as connection:
        connection.request(method, path, body, headers, encode_chunked=not isinstance(body, bytes | None))
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def basic(source: Source) -> str:
    return "Basic " + base64.b64encode(f"{source.key}:".encode()).decode()


def upload(hub: Towpath, mobile: Mobile, source: Source, batch: list[dict[str, Any]]) -> tuple[int, Any]:
    """Send a batch as this SDK does."""
    inside = {"writeKey": source.key} if mobile.key_inside else {}
    body = json.dumps({"batch": batch, "sentAt": "2026-01-02T03:05:00.000Z", **inside}).encode()
    headers = dict(mobile.headers)
    if mobile.basic:
        headers["Authorization"] = basic(source)
    if mobile.gzips:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    if not mobile.chunked:
        return ask(hub, "POST", mobile.path, body, **headers)
    pieces = iter([body[:100], body[100:]])
    return ask(hub, "POST", mobile.path, pieces, **headers, **{"Transfer-Encoding": "chunked"})


@pytest.mark.spec("E003", "E004", "E008", "E026", "E030", "E032")
@EACH
async def test_what_a_mobile_sdk_sends_is_kept_and_delivered(hub: Towpath, mobile: Mobile) -> None:
    source = hub.source("mobile")
    sent = events(source.name)
    assert upload(hub, mobile, source, sent) == (200, {"success": True})
    assert upload(hub, mobile, source, sent)[0] == 200, "an answer that was lost"
    kept = source.kept()
    assert [row.message for row in kept] == sent
    assert {row.trust for row in kept} == {"client"}
    bodies = await source.delivered(len(sent))
    assert [body["messageId"] for body in bodies] == [event["messageId"] for event in sent]
    assert bodies[0]["context"]["device"]["token"] == "fcm-token"
    anonymous = f"anon-{source.name}"
    assert hub.person(anonymous)[f"a:{anonymous}"] == f"u:{source.name}"


@pytest.mark.spec("E006", "E008")
@EACH
def test_a_mobile_sdk_starts_without_a_destination_on_the_phone(hub: Towpath, mobile: Mobile) -> None:
    source = hub.source("mobile")
    path = mobile.settings.format(key=source.key)
    headers = {"Authorization": basic(source)} if mobile.settings != SEGMENT else {}
    status, found = ask(hub, "GET", path, **headers)
    assert status == 200
    if mobile.settings == SEGMENT:
        assert list(found["integrations"]) == ["Segment.io"]
        assert found["integrations"]["Segment.io"]["apiHost"] == f"{hub.address}/v1"
        objects = [found[name] for name in ("plan", "edgeFunction", "middlewareSettings", "metrics")]
        assert all(isinstance(each, dict) for each in objects), "analytics-kotlin decodes them as objects"
        return
    own = found["source"]
    assert (own["destinations"], own["enabled"], own["writeKey"]) == ([], True, source.key)
    # rudder-sdk-kotlin and -swift decode these as text that must be there, or read nothing at all.
    assert all(isinstance(own[name], str) for name in ("id", "name", "writeKey", "workspaceId", "updatedAt"))
    assert own["config"]["statsCollection"] == {"errors": {"enabled": False}, "metrics": {"enabled": False}}
    assert found["consentManagementMetadata"]["providers"] == []


@pytest.mark.spec("E008")
async def test_web_mobile_and_server_are_all_delivered_from_here(hub: Towpath) -> None:
    """One connection from all three: the hub delivers, whatever the kind of source."""
    ways = {"web": Mobile("", "", "/v1/batch", {"Content-Type": "text/plain"}), "mobile": MOBILES[1]}
    ways["server"] = ways["web"]
    for kind, way in ways.items():
        source = hub.source(kind)
        assert upload(hub, way, source, events(source.name))[0] == 200
        bodies = await source.delivered(6)
        assert [body["type"] for body in bodies] == [event["type"] for event in events("")]
        assert {row.trust for row in source.kept()} == {"server" if kind == "server" else "client"}
