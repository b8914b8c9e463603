"""Tracking calls as Intilery's clients make them."""

from __future__ import annotations

from typing import Any

import pytest

from .support import KEY, Hub

PATH = "/track/acme/main/BRAND/v1"
REGISTER = {
    "userId": "dev-1",
    "event": "register push",
    "type": "track",
    "properties": {"deviceId": "dev-1", "fcmToken": "tok-1", "deviceType": "iOS"},
}


@pytest.mark.spec("P035")
@pytest.mark.parametrize("action", ["identify", "track", "page", "screen"])
async def test_the_path_is_the_call_and_the_header_the_key(hub: Hub, action: str) -> None:
    headers = {"auth-token": KEY}
    reply = await hub.post(f"{PATH}/{action}", {"userId": "u1"}, headers, key=None)
    assert reply.status == 200
    assert [message.type for message in hub.log.messages()] == [action]


@pytest.mark.spec("P035")
@pytest.mark.parametrize("path", [f"{PATH}/track", "/v1/track", "/v1/batch"])
async def test_the_seeds_own_body_with_its_key_is_taken(hub: Hub, path: str) -> None:
    body: dict[str, Any] = {**REGISTER, "writeKey": KEY}
    whole = {"batch": [REGISTER], "writeKey": KEY} if path.endswith("batch") else body
    assert (await hub.post(path, whole, key=None)).status == 200
    message = hub.log.messages()[0]
    assert (message.user_id, message.event) == ("dev-1", "register push")
    assert message.properties == REGISTER["properties"]


@pytest.mark.spec("P035")
async def test_a_wrong_key_is_refused(hub: Hub) -> None:
    reply = await hub.post(f"{PATH}/track", REGISTER, {"auth-token": "other"}, key=None)
    assert reply.status == 401
    assert (await hub.post("/v1/track", REGISTER, key=None)).status == 401
    assert hub.log.records == []


@pytest.mark.spec("P050")
async def test_fields_at_the_root_are_the_events_own(hub: Hub) -> None:
    event = {"userId": "u1", "event": "send_push", "assetId": "welcome", "basket": {"total": 3}}
    event |= {"properties": {"basket": {"total": 4}}}
    assert (await hub.post(f"{PATH}/track", event)).status == 200
    message = hub.log.messages()[0]
    assert message.properties == {"assetId": "welcome", "basket": {"total": 4}}
    assert message.event == "send_push"


@pytest.mark.spec("P035")
@pytest.mark.parametrize("body", [b"{", b"[]", b'{"userId": "u", "properties": 3, "x": 1}', b"\xff"])
async def test_what_cannot_be_read_is_refused_as_anywhere(hub: Hub, body: bytes) -> None:
    there = await hub.call("POST", f"{PATH}/track", body, headers={"auth-token": KEY})
    here = await hub.call("POST", "/v1/track", body)
    assert (there.status, there.body) == (here.status, here.body)


@pytest.mark.spec("P035")
@pytest.mark.parametrize("path", ["/track/acme/main/v1/track", f"{PATH}/alias", f"{PATH}/track/more"])
async def test_other_paths_are_none(hub: Hub, path: str) -> None:
    assert (await hub.post(path, REGISTER)).status == 404
