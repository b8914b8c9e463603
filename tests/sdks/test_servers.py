"""The four server SDKs, unchanged, against a towpath process: what arrives is what was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from towpath.message import parse_time
from towpath.sandbox.proxy import FaultProxy, Mode

from .servers import SERVERS, Server, drive
from .support import Fault, Front, Kept, Source, Towpath

EACH = pytest.mark.parametrize("server", SERVERS, ids=[server.name for server in SERVERS])
Modules = Callable[[], Path]

CONTEXT = {"ip": "203.0.113.9", "traits": {"plan": "pro"}, "externalId": [{"type": "kustomerId", "id": "k1"}]}
ORDER = {"total": 19.5, "name": "é€ ☃", "items": [{"sku": "a", "n": 2}], "gift": False, "note": None}


def every_call(person: str) -> list[dict[str, Any]]:
    """Every call of a server SDK, with all that it can carry."""
    stranger = f"anon-{person}"
    return [
        {"type": "track", "anonymousId": stranger, "event": "Looked", "properties": {"page": 1}},
        {
            "type": "identify",
            "userId": person,
            "anonymousId": stranger,
            "traits": {"email": "a@example.com", "age": 33, "address": {"city": "Köln"}},
        },
        {
            "type": "track",
            "userId": person,
            "event": "Order Completed",
            "properties": ORDER,
            "context": CONTEXT,
            "integrations": {"All": False, "Hook": True},
            "timestamp": "2026-01-02T03:04:05.678+00:00",
        },
        {"type": "page", "userId": person, "category": "Shop", "name": "Cart", "properties": {"url": "/c"}},
        {"type": "screen", "userId": person, "name": "Settings", "properties": {"size": 2}},
        {"type": "group", "userId": person, "groupId": "g1", "traits": {"plan": "x", "seats": 4}},
        {"type": "alias", "userId": person, "previousId": f"old-{person}"},
    ]


def changed(sent: Mapping[str, Any], kept: Kept) -> dict[str, Any]:
    """What of a call is not as it was sent; identify's traits may come in `context` (E010)."""
    found = dict(kept.message)
    if sent["type"] == "identify":
        found["traits"] = {**found["context"].get("traits", {}), **(found.get("traits") or {})}
    return {name: found.get(name) for name, value in sent.items() if not _holds(name, value, found.get(name))}


def _holds(name: str, value: Any, found: Any) -> bool:
    if name == "timestamp":
        return parse_time(found) == parse_time(value)
    if isinstance(value, dict) and isinstance(found, dict):
        # SDKs add to these: their library to the context, name and category to a page's properties.
        return {part: found.get(part) for part in value} == value
    return bool(found == value)


def tracks(person: str, count: int, filling: str = "") -> list[dict[str, Any]]:
    filled = {"filling": filling}
    return [
        {"type": "track", "userId": person, "event": f"e{n:04}", "properties": filled} for n in range(count)
    ]


def once_each(source: Source, calls: list[dict[str, Any]], *, in_turn: bool = True) -> None:
    """All calls are kept, each once; in their order where the SDK sends in turn."""
    found = source.lines()
    events = [line["event"] for line in found]
    assert (events if in_turn else sorted(events)) == [call["event"] for call in calls]
    assert len({line["message_id"] for line in found}) == len(calls)


@pytest.mark.spec("E003", "E008", "E010", "E011", "E022", "E026", "E030", "E032", "E034", "E039", "D04")
@EACH
async def test_all_that_is_sent_is_kept_linked_and_delivered(
    hub: Towpath, front: Front, modules: Modules, server: Server
) -> None:
    source, person = hub.source("server"), f"user-{server.name}"
    sent = every_call(person)
    assert await drive(server, modules, front.url, source.key, sent) == []
    kept = source.kept()
    assert [row.type for row in kept] == [call["type"] for call in sent]
    assert [changed(call, row) for call, row in zip(sent, kept, strict=True)] == [{}] * len(sent)
    assert [row.message_id for row in kept] == [row.message["messageId"] for row in kept]
    assert {row.trust for row in kept} == {"server"}
    for request in front.posts():
        assert (request.path, request.key, request.status) == ("/v1/batch", source.key, 200)
        assert (request.headers.get("Content-Encoding") == "gzip") == server.gzips
        assert request.headers["User-Agent"].startswith(server.client.partition("/")[0])
    wanted = [row.message_id for row in kept]
    assert [body["messageId"] for body in await source.delivered(len(sent))] == wanted
    for alias in (f"anon-{person}", f"old-{person}"):
        assert f"u:{person}" in hub.person(alias).values(), "one person from the link on"


@pytest.mark.spec("E003", "E033", "E039", "D07")
@EACH
async def test_many_batches_of_large_events(
    hub: Towpath, front: Front, modules: Modules, server: Server
) -> None:
    source, calls = hub.source("server"), tracks("u1", 300, "x" * 3000)
    assert await drive(server, modules, front.url, source.key, calls, batch=90) == []
    assert len(front.posts()) >= 4
    for request in front.posts():
        events = [event["event"] for event in request.json()["batch"]]
        assert events == sorted(events)
    once_each(source, calls, in_turn=server.in_turn)


@pytest.mark.spec("E036", "E039", "D07")
@EACH
async def test_what_meets_faults_comes_again_and_is_kept_once(
    hub: Towpath, front: Front, modules: Modules, server: Server
) -> None:
    source, calls = hub.source("server"), tracks("u1", 6)
    front.faults += [Fault(503), Fault(429, retry_after="1")]
    assert await drive(server, modules, front.url, source.key, calls, batch=6) == []
    assert [request.status for request in front.posts()][:3] == [503, 429, 200]
    once_each(source, calls)


@pytest.mark.spec("E039", "D05", "D07")
@EACH
async def test_an_answer_that_is_lost_doubles_nothing(hub: Towpath, modules: Modules, server: Server) -> None:
    source, calls = hub.source("server"), tracks("u1", 6)
    host, _, port = hub.address.rpartition(":")
    async with FaultProxy(host, int(port)) as proxy:
        proxy.mode = Mode(drop_answer=True, times=1)
        assert await drive(server, modules, proxy.url, source.key, calls, batch=6) == []
        assert proxy.struck == {"drop_answer": 1}
    once_each(source, calls)


@pytest.mark.spec("E036", "E039")
@EACH
async def test_a_source_over_its_rate_gets_everything_a_little_later(
    hub: Towpath, front: Front, modules: Modules, server: Server
) -> None:
    source, calls = hub.source("paced"), tracks("u1", 4)
    front.faults.append(Fault(over=source.key))
    assert await drive(server, modules, front.url, source.key, calls, batch=4) == []
    assert front.posts()[0].status == 429
    once_each(source, calls)


@pytest.mark.spec("E030", "E034", "E039")
@EACH
async def test_a_wrong_key_is_an_error_at_once(
    hub: Towpath, front: Front, modules: Modules, server: Server
) -> None:
    errors = await drive(server, modules, front.url, "wk_nobody", tracks("u1", 1))
    assert len(errors) == 1
    assert [request.status for request in front.posts()] == [401]
