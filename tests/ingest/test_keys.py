"""Who may send: write keys in header, query and body, their exact answers, rotation, and the rate limit."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from towpath.errors import TowpathError

from .support import KEY, Hub, basic, source

EVENT = {"userId": "u1", "type": "track"}
PATHS = ["/v1/track", "/v1/batch"]


def content(path: str, **more: str) -> dict[str, object]:
    return {"batch": [EVENT], **more} if "batch" in path else {**EVENT, **more}


@pytest.mark.spec("E030")
@pytest.mark.parametrize("path", PATHS)
async def test_no_key(hub: Hub, path: str) -> None:
    reply = await hub.post(path, content(path), key=None)
    assert (reply.status, reply.text()) == (401, "failed to read writekey from header\n")


@pytest.mark.spec("E030")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("where", ["header", "query", "body"])
async def test_unknown_key(hub: Hub, path: str, where: str) -> None:
    reply = await hub.post(
        path + ("?writeKey=nope" if where == "query" else ""),
        content(path, **({"writeKey": "nope"} if where == "body" else {})),
        key="nope" if where == "header" else None,
    )
    assert (reply.status, reply.text()) == (401, "invalid write key\n")
    assert hub.log.records == []


@pytest.mark.spec("E030")
@pytest.mark.parametrize("path", ["/beacon/v1/batch", "/beacon/v1/batch?writeKey="])
async def test_no_key_in_the_query(hub: Hub, path: str) -> None:
    reply = await hub.post(path, {"batch": [EVENT]}, key=None)
    assert (reply.status, reply.text()) == (401, "failed to read writekey from query params\n")


@pytest.mark.spec("E030", "P035")
@pytest.mark.parametrize("path", PATHS)
async def test_key_in_query_or_body(hub: Hub, path: str) -> None:
    assert (await hub.post(f"{path}?writeKey={KEY}", content(path), key=None)).status == 200
    assert (await hub.post(path, content(path, writeKey=KEY), key=None)).status == 200
    assert len(hub.log.records) == 2


@pytest.mark.spec("E030")
@pytest.mark.parametrize(
    ("value", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY} ", 200),
        (f"BASIC {base64.b64encode(KEY.encode()).decode()}", 200),
        (f"Basic {base64.b64encode(f'{KEY}:password'.encode()).decode()}", 200),
        ("Basic !!!", 401),
        ("Basic Og==", 401),
        ("Digest x", 401),
        ("", 401),
        ("Basic \xff", 401),
    ],
)
async def test_authorization_headers(hub: Hub, value: str, status: int) -> None:
    reply = await hub.post("/v1/track", EVENT, {"authorization": value}, key=None)
    assert reply.status == status
    if status == 401:
        assert reply.text() == "failed to read writekey from header\n"


@pytest.mark.spec("E030")
async def test_an_unreadable_header_leaves_the_body_its_say(hub: Hub) -> None:
    reply = await hub.post("/v1/track", {**EVENT, "writeKey": KEY}, {"authorization": "Basic Og=="}, key=None)
    assert reply.status == 200


@pytest.mark.spec("E030")
@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"writeKey":{}}'])
async def test_a_body_that_cannot_be_read_gives_no_key(hub: Hub, body: bytes) -> None:
    reply = await hub.post("/v1/track", body, key=None)
    assert (reply.status, reply.text()) == (401, "failed to read writekey from header\n")
    reply = await hub.post("/v1/batch", body, key=None)
    assert reply.status == 401


@pytest.mark.spec("E030")
async def test_key_beside_a_broken_item(hub: Hub) -> None:
    reply = await hub.post(
        "/v1/batch", b'{"batch":[{"userId":NaN},{"type":"page","userId":1}],"writeKey":"wk_web"}', key=None
    )
    assert reply.json()["accepted"] == 1


@pytest.mark.spec("E030")
async def test_disabled_source() -> None:
    hub = Hub({"web": source(enabled=False)})
    reply = await hub.post("/v1/track", EVENT)
    assert (reply.status, reply.text()) == (404, "source is disabled\n")
    reply = await hub.call("GET", f"/sourceConfig/?writeKey={KEY}", key=None)
    assert (reply.status, reply.text()) == (404, "source is disabled\n")


@pytest.mark.spec("E031")
async def test_keys_rotate_and_are_revoked_at_once(hub: Hub) -> None:
    hub.ingest.replace({"web": source(write_keys=[KEY, "wk_next"])})
    assert [(await hub.post("/v1/track", EVENT, key=key)).status for key in (KEY, "wk_next")] == [200, 200]
    hub.ingest.replace({"web": source(write_keys=["wk_next"])})
    assert [(await hub.post("/v1/track", EVENT, key=key)).status for key in (KEY, "wk_next")] == [401, 200]
    first, second, third = (record.envelope.write_key_id for record in hub.log.records)
    assert second == third != first


@pytest.mark.spec("E031")
@pytest.mark.parametrize(("key", "status"), [("wk_a", 200), ("wk_b", 200), ("wk_c", 200), ("nope", 401)])
async def test_every_key_is_compared_whichever_it_is(
    monkeypatch: pytest.MonkeyPatch, key: str, status: int
) -> None:
    hub = Hub({"web": source(write_keys=["wk_a", "wk_b"]), "app": source(write_keys=["wk_c"])})
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert (await hub.call("GET", "/sourceConfig/", key=key)).status == status
    assert len(set(compared)) == len(compared) == 3
    assert key.encode() not in compared


@pytest.mark.spec("E031", "D08")
async def test_the_key_itself_is_kept_nowhere_beside_the_event(hub: Hub) -> None:
    await hub.post("/v1/track", EVENT)
    envelope = hub.log.records[0].envelope
    assert len(envelope.write_key_id) == 8
    assert KEY not in repr(envelope)


async def test_two_sources_with_one_key_are_an_error_and_change_nothing(hub: Hub) -> None:
    with pytest.raises(TowpathError, match="web and app share a write key"):
        hub.ingest.replace({"web": source(), "app": source()})
    assert (await hub.post("/v1/track", EVENT)).status == 200


@pytest.mark.spec("D13")
async def test_source_and_trust_stand_beside_the_event() -> None:
    hub = Hub({"web": source(), "backend": source(write_keys=["wk_b"], trust="server")})
    await hub.post("/v1/delete", EVENT)
    await hub.post("/v1/delete", EVENT, key="wk_b")
    assert [(m.source, m.trust) for m in hub.log.messages()] == [("web", "client"), ("backend", "server")]


@pytest.mark.spec("E036")
async def test_rate_limit_answers_429_with_the_wait() -> None:
    hub = Hub({"web": source(rate="10/s"), "free": source(write_keys=["free"])})
    batch = {"batch": [EVENT] * 40}
    assert (await hub.post("/v1/batch", batch)).status == 200, "a second's worth is there, the rest is owed"
    reply = await hub.post("/v1/track", EVENT)
    assert (reply.status, reply.text()) == (429, "max requests limit reached\n")
    assert reply.headers["retry-after"] == "3"
    assert (await hub.post("/v1/track", EVENT, key="free")).status == 200
    hub.clock.time += 2.9
    assert (await hub.post("/v1/track", EVENT)).status == 429
    hub.clock.time += 0.2
    assert (await hub.post("/v1/track", EVENT)).status == 200


@pytest.mark.spec("E036")
async def test_a_reload_hands_out_no_new_allowance() -> None:
    hub = Hub({"web": source(rate="60/m")})
    assert (await hub.post("/v1/track", EVENT)).status == 200
    hub.ingest.replace({"web": source(rate="60/m")})
    assert (await hub.post("/v1/track", EVENT)).status == 429
    hub.ingest.replace({"web": source(rate="120/m")})
    assert (await hub.post("/v1/track", EVENT)).status == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"write_keys": []},
        {"write_keys": [" "]},
        {"write_keys": ["a:b"]},
        {"rate": "fast"},
        {"rate": "0/s"},
        {"verify": "required"},
        {"verify": "optional", "verify_secret": ""},
        {"trust": "everybody"},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        source(**settings)


@pytest.mark.parametrize(
    ("rate", "per_s"), [("500/s", 500.0), ("90/m", 1.5), (" 7200 / h ", 2.0), (None, None)]
)
def test_rates(rate: str | None, per_s: float | None) -> None:
    assert source(rate=rate).events_per_s == per_s


@pytest.mark.spec("D08")
def test_settings_do_not_show_their_secrets() -> None:
    shown = repr(source(verify="required", verify_secret="s3cret"))
    assert KEY not in shown
    assert "s3cret" not in shown


def test_basic_header_is_what_senders_send() -> None:
    assert basic("k") == {"authorization": "Basic azo="}
