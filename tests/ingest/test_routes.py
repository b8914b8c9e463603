"""Paths and methods: each call's route, the browser SDKs' documents, CORS, and what is answered elsewhere."""

from __future__ import annotations

import pytest

from towpath.ingest.pixel import GIF
from towpath.ingest.routes import ROUTES

from .support import KEY, Hub, source

KINDS = ["identify", "track", "page", "screen", "group", "alias", "delete"]


@pytest.mark.spec("E001", "E002")
@pytest.mark.parametrize("kind", KINDS)
async def test_the_path_sets_the_type(hub: Hub, kind: str) -> None:
    reply = await hub.post(f"/v1/{kind}", {"type": "screen", "userId": "u1", "traits": {"a": 1}})
    assert (reply.status, reply.body) == (200, b'{"success":true}')
    assert [message.type for message in hub.log.messages()] == [kind]


@pytest.mark.spec("E004")
@pytest.mark.parametrize(
    ("short", "kind"),
    [("i", "identify"), ("t", "track"), ("p", "page"), ("s", "screen"), ("g", "group"), ("a", "alias")],
)
async def test_short_paths(hub: Hub, short: str, kind: str) -> None:
    assert (await hub.post(f"/v1/{short}", {"userId": "u1"})).status == 200
    assert hub.log.messages()[0].type == kind


@pytest.mark.spec("E007")
async def test_merge_is_alias(hub: Hub) -> None:
    assert (await hub.post("/v1/merge", {"userId": "u1", "previousId": "a1"})).status == 200
    assert hub.log.messages()[0].type == "alias"


@pytest.mark.spec("E003", "E004", "E005")
@pytest.mark.parametrize(
    "path", ["/v1/batch", "/v1/import", "/v1/b", "/v1/batch/", f"/beacon/v1/batch?writeKey={KEY}"]
)
async def test_batches_keep_each_items_type(hub: Hub, path: str) -> None:
    items = [{"type": kind, "userId": "u1"} for kind in KINDS]
    reply = await hub.post(path, {"batch": items}, key=None if "?" in path else KEY)
    assert reply.status == 200
    assert [message.type for message in hub.log.messages()] == KINDS


@pytest.mark.spec("E005")
@pytest.mark.parametrize("kind", ["track", "page"])
async def test_pixel_turns_parameters_into_fields(hub: Hub, kind: str) -> None:
    query = f"writeKey={KEY}&userId=u%201&event=Seen&properties.price=3&properties.tags.a=x&context.page.url=http://x/"
    reply = await hub.call("GET", f"/pixel/v1/{kind}?{query}", key=None)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "image/gif", GIF.body)
    message = hub.log.messages()[0]
    assert (message.type, message.user_id, message.event) == (kind, "u 1", "Seen")
    assert message.properties == {"price": "3", "tags": {"a": "x"}}
    assert message.context == {"page": {"url": "http://x/"}}
    assert b"writeKey" not in hub.log.records[0].raw


@pytest.mark.spec("E005", "E035")
@pytest.mark.parametrize(
    ("query", "code"),
    [
        (f"writeKey={KEY}&event=x", "no_id"),
        (f"writeKey={KEY}&userId=%ff", "invalid_query"),
        ("writeKey=wrong&userId=u", None),
        ("userId=u", None),
        ("", None),
    ],
)
async def test_pixel_always_answers_the_image(hub: Hub, query: str, code: str | None) -> None:
    reply = await hub.call("GET", f"/pixel/v1/track?{query}", key=None)
    assert (reply.status, reply.body) == (200, GIF.body)
    assert hub.log.records == []
    assert [refused.code for refused in hub.log.refused] == ([code] if code else [])


@pytest.mark.spec("E005")
async def test_pixel_answers_the_image_when_nothing_can_be_stored(hub: Hub) -> None:
    hub.log.failure = OSError("gone")
    reply = await hub.call("GET", f"/pixel/v1/page?writeKey={KEY}&userId=u", key=None)
    assert (reply.status, reply.body) == (200, GIF.body)


@pytest.mark.spec("E005")
async def test_pixel_with_a_name_as_value_and_parent(hub: Hub) -> None:
    await hub.call("GET", f"/pixel/v1/page?writeKey={KEY}&userId=u&properties=x&properties.a=1", key=None)
    assert hub.log.messages()[0].properties == {"a": "1"}


@pytest.mark.spec("E006")
@pytest.mark.parametrize("path", ["/sourceConfig/", "/sourceConfig"])
async def test_source_config_has_what_the_sdk_checks(hub: Hub, path: str) -> None:
    reply = await hub.call("GET", f"{path}?p=cdn&v=3&writeKey={KEY}", key=None)
    found = reply.json()["source"]
    assert reply.status == 200
    assert (found["id"], found["enabled"], found["destinations"]) == ("web", True, [])
    assert isinstance(found["config"], dict)
    assert (found["writeKey"], found["updatedAt"][-1]) == (KEY, "Z"), "mobile SDKs read nothing without"
    assert reply.json()["consentManagementMetadata"] == {"providers": []}
    assert (await hub.call("GET", path)).json() == reply.json()
    assert (await hub.call("GET", path, key="nope")).text() == "invalid write key\n"
    assert (await hub.call("GET", path, key=None)).status == 401


@pytest.mark.spec("E006")
async def test_project_settings_point_the_sdk_at_us(hub: Hub) -> None:
    reply = await hub.call("GET", f"/v1/projects/{KEY}/settings", headers={"host": "hub.test:81"}, key=None)
    found = reply.json()
    assert found["integrations"] == {"Segment.io": found["integrations"]["Segment.io"]}
    sender = found["integrations"]["Segment.io"]
    assert (sender["apiKey"], sender["apiHost"], sender["protocol"]) == (KEY, "hub.test:81/v1", "http")
    assert found["plan"]["track"]["__default"]["enabled"] is True
    assert (await hub.call("GET", "/v1/projects/nope/settings", key=None)).text() == "invalid write key\n"
    assert (await hub.call("GET", "/v1/projects//settings", key=None)).status == 404


@pytest.mark.spec("E006", "D16")
async def test_project_settings_use_the_public_url() -> None:
    hub = Hub(public_url="https://events.example.com/in")
    reply = await hub.call("GET", f"/v1/projects/{KEY}/settings", key=None)
    sender = reply.json()["integrations"]["Segment.io"]
    assert (sender["apiHost"], sender["protocol"]) == ("events.example.com/in/v1", "https")


@pytest.mark.spec("E007")
async def test_fixed_documents(hub: Hub) -> None:
    assert (await hub.call("GET", "/health", key=None)).json() == {"status": "ok"}
    assert (await hub.call("HEAD", "/", key=None)).status == 200
    assert (await hub.call("GET", "/version", key=None)).json()["name"] == "towpath"
    assert "Disallow: /" in (await hub.call("GET", "/robots.txt", key=None)).text()
    assert (await hub.call("GET", "/openapi.json", key=None)).json()["openapi"].startswith("3.1")


@pytest.mark.spec("E007")
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/webhook"), ("GET", "/v1/webhook"), ("POST", "/v1/audiencelist")]
)
async def test_what_is_not_part_of_the_api_says_so(hub: Hub, method: str, path: str) -> None:
    reply = await hub.call(method, path)
    assert reply.status == 404
    assert "not part of this API" in reply.text()


@pytest.mark.spec("E007")
@pytest.mark.parametrize(
    "path", ["/v1/nope", "/v1", "/v1/projects/{writeKey}/settings/", "/v1/batch//x", "//", "/admin"]
)
async def test_unknown_paths(hub: Hub, path: str) -> None:
    reply = await hub.call("POST", path, b"{}", {"content-length": "2"})
    assert reply.status in (404, 405)
    assert reply.headers["connection"] == "close", "the body was not read"


@pytest.mark.spec("E007")
async def test_wrong_methods_name_the_right_ones(hub: Hub) -> None:
    reply = await hub.call("GET", "/v1/track")
    assert (reply.status, reply.headers["allow"]) == (405, "POST, OPTIONS")
    reply = await hub.call("DELETE", "/health")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert (await hub.call("OPTIONS", "/health")).status == 405


@pytest.mark.spec("E037", "D16")
async def test_preflight(hub: Hub) -> None:
    asked = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,anonymousid,sentat,rsa-retry-attempt",
    }
    for path, route in ROUTES.items():
        reply = await hub.call("OPTIONS", path.replace("{writeKey}", KEY), headers=asked, key=None)
        if not route.cors:
            assert reply.status == 405
            assert "access-control-allow-origin" not in reply.headers
            continue
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
        assert "POST" in reply.headers["access-control-allow-methods"] or route.methods[0] == "GET"
        assert reply.headers["access-control-max-age"] == "900"
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.spec("E037")
async def test_every_answer_of_an_ingest_route_may_be_read_by_the_page(hub: Hub) -> None:
    hub.ingest.replace({"web": source(), "off": source(write_keys=["off"], enabled=False)})
    replies = [
        await hub.post("/v1/track", {"userId": "u"}),
        await hub.post("/v1/track", {}),
        await hub.post("/v1/track", {"userId": "u"}, key="nope"),
        await hub.post("/v1/track", {"userId": "u"}, key="off"),
        await hub.call("GET", "/v1/track"),
    ]
    assert [reply.status for reply in replies] == [200, 400, 401, 404, 405]
    assert {reply.headers["access-control-allow-origin"] for reply in replies} == {"*"}
    assert {reply.headers["access-control-expose-headers"] for reply in replies} == {"retry-after"}


async def test_a_header_list_that_cannot_be_echoed_becomes_a_star(hub: Hub) -> None:
    reply = await hub.call("OPTIONS", "/v1/t", headers={"access-control-request-headers": "x\x01y"})
    assert reply.headers["access-control-allow-headers"] == "*"
