"""Events: what is kept of them, which are refused and how, and what stands beside a batch."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from towpath.log import LogFailed, LogFull
from towpath.message import format_time

from .support import SENT, Hub

GOOD = {"type": "track", "userId": "u1", "event": "Bought"}


@pytest.mark.spec("E009", "E010", "E011", "E022")
async def test_every_field_is_kept_byte_for_byte(hub: Hub) -> None:
    raw = (
        b' {"userId" : "u1", "type":"page","category":"Shop","name":"Cart",'
        b'"properties":{"a":1.50,"\\u00e9":"\\/"},"context":{"traits":{"plan":"x"},'
        b'"externalId":[{"type":"kustomerId","id":"k1"}]},"x":[1e2, 12345678901234567890123]} '
    )
    assert (await hub.post("/v1/page", raw)).status == 200
    assert (await hub.batch(raw)).status == 200
    assert hub.log.records[0].raw == raw
    assert hub.log.records[1].raw == raw.strip()
    message = hub.log.messages()[1]
    assert (message.category, message.name, message.properties) == ("Shop", "Cart", {"a": 1.5, "é": "/"})
    assert message.context_traits == {"plan": "x"}
    assert message.context["externalId"] == [{"type": "kustomerId", "id": "k1"}]


@pytest.mark.spec("E010")
async def test_identify_keeps_both_kinds_of_traits(hub: Hub) -> None:
    await hub.post(
        "/v1/identify", {"userId": "u", "traits": {"a": 1}, "context": {"traits": {"a": 2, "b": 3}}}
    )
    message = hub.log.messages()[0]
    assert {**message.context_traits, **message.traits} == {"a": 1, "b": 3}


@pytest.mark.spec("E020")
@pytest.mark.parametrize(
    "ids",
    [
        {},
        {"userId": ""},
        {"userId": "  "},
        {"userId": None, "anonymousId": None},
        {"userId": {}},
        {"anonymousId": []},
    ],
)
async def test_no_id_is_refused(hub: Hub, ids: dict[str, Any]) -> None:
    reply = await hub.post("/v1/track", {"event": "x", **ids})
    assert (reply.status, reply.text()) == (400, "request neither has anonymousId nor userId\n")
    reply = await hub.batch({"type": "track", **ids}, GOOD)
    assert reply.json() == {
        "success": True,
        "accepted": 1,
        "refused": [{"index": 0, "code": "no_id", "reason": "request neither has anonymousId nor userId"}],
    }


@pytest.mark.spec("E021")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" u1 ", "u1"),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (10**30, str(10**30)),
        ("é", "é"),
    ],
)
async def test_ids_of_any_scalar(hub: Hub, given: Any, kept: str) -> None:
    body = json.dumps({"type": "track", "userId": given, "anonymousId": given}).encode()
    assert (await hub.post("/v1/track", body)).status == 200
    assert (await hub.batch(body)).status == 200
    assert {(message.user_id, message.anonymous_id) for message in hub.log.messages()} == {(kept, kept)}


@pytest.mark.spec("E021")
@pytest.mark.parametrize("more", [{}, {"traits": None}], ids=["as the spec has it", "loosely"])
async def test_all_ids_are_trimmed(hub: Hub, more: dict[str, Any]) -> None:
    ids = {"userId": " u ", "anonymousId": " a ", "previousId": " p ", "groupId": "\tg\n"}
    await hub.batch({"type": "alias", **ids, **more}, {**GOOD, "previousId": " ", "groupId": "", **more})
    full, empty = hub.log.messages()
    assert (full.user_id, full.anonymous_id, full.previous_id, full.group_id) == ("u", "a", "p", "g")
    assert (empty.previous_id, empty.group_id) == (None, None)


@pytest.mark.spec("E021")
@pytest.mark.parametrize("kind", ["track", "TRACK", " Track "])
async def test_type_ignores_case(hub: Hub, kind: str) -> None:
    assert (await hub.batch({**GOOD, "type": kind})).body == b'{"success":true}'
    assert hub.log.messages()[0].type == "track"


@pytest.mark.spec("E035")
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("order", "unknown_type"),
        (5, "unknown_type"),
        (None, "no_type"),
        ("", "no_type"),
        ({}, "unknown_type"),
    ],
)
async def test_a_type_that_is_none(hub: Hub, kind: Any, code: str) -> None:
    reply = await hub.batch(GOOD, {**GOOD, "type": kind})
    assert [(item["index"], item["code"]) for item in reply.json()["refused"]] == [(1, code)]


@pytest.mark.spec("E022")
async def test_message_ids(hub: Hub) -> None:
    given = ["m1", " m2 ", 5, None, "", {}, "x" * 1024, "x" * 1024 + "a", "x" * 1024 + "b"]
    await hub.batch(*[{**GOOD, "messageId": each} for each in given])
    kept = [record.message_id for record in hub.log.records]
    assert kept[:3] == ["m1", "m2", "5"]
    assert len({*kept}) == len(given), "made ids and cut ids differ"
    assert [len(each) for each in kept[3:]] == [36, 36, 36, 1024, 1024, 1024]
    assert kept[6] == "x" * 1024
    await hub.batch({**GOOD, "messageId": "x" * 1024 + "a"})
    assert hub.log.records[-1].message_id == kept[7], "the same id is a duplicate"
    assert b"messageId" not in msgspec.json.encode(hub.log.records[0].envelope)


@pytest.mark.spec("E022", "E023")
async def test_what_stands_beside_the_event(hub: Hub) -> None:
    await hub.post("/v1/track", GOOD)
    envelope, message = hub.log.records[0].envelope, hub.log.messages()[0]
    assert (envelope.source, envelope.ip, envelope.received_at) == ("web", "203.0.113.7", SENT)
    assert format_time(message.occurred_at) == "2025-10-09T08:53:20.000Z"


@pytest.mark.spec("E023", "E024")
async def test_clock_skew_is_taken_out_with_the_batchs_sent_at(hub: Hub) -> None:
    await hub.batch({**GOOD, "originalTimestamp": "2020-01-01T00:00:00Z"}, sentAt="2020-01-01T00:01:00Z")
    assert hub.log.messages()[0].occurred_at.timestamp() == SENT - 60


@pytest.mark.spec("E024")
async def test_batch_fields_fill_in(hub: Hub) -> None:
    beside = {"sentAt": "2025-01-01T00:00:00Z", "context": {"a": 1, "b": 1}, "integrations": {"All": False}}
    own = {"sentAt": "2024-01-01T00:00:00Z", "context": {"b": 2}, "integrations": {"All": True}}
    assert (await hub.batch(GOOD, {**GOOD, **own}, **beside)).status == 200
    lacking, having = hub.log.messages()
    assert (lacking.sent_at, lacking.context, lacking.integrations) == tuple(beside.values())
    assert (having.sent_at, having.integrations) == (own["sentAt"], own["integrations"])
    assert having.context == {"a": 1, "b": 2}


@pytest.mark.spec("E024", "E035")
@pytest.mark.parametrize("name", ["context", "integrations"])
@pytest.mark.parametrize(
    "value", [5, "x", [1], b"NaN", b'{"a":1e999}', b"[" * 300 + b"]" * 300, b'"' + b"x" * 70000 + b'"']
)
async def test_batch_fields_that_cannot_be_used_are_named(hub: Hub, name: str, value: Any) -> None:
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    body = b'{"%s":%s,"batch":[%s]}' % (name.encode(), raw, msgspec.json.encode(GOOD))
    reply = await hub.post("/v1/batch", body)
    found = reply.json()
    assert (reply.status, found["accepted"]) == (200, 1)
    assert [(item["index"], item["code"]) for item in found["refused"]] == [(-1, f"invalid_{name}")]
    assert hub.log.messages()[0].context == {}


@pytest.mark.spec("E024")
async def test_batch_fields_that_are_null_or_empty_are_absent(hub: Hub) -> None:
    reply = await hub.batch(GOOD, sentAt=None, context=None, integrations={})
    assert reply.body == b'{"success":true}'
    assert (hub.log.messages()[0].sent_at, hub.log.messages()[0].context) == (None, {})


BAD: list[tuple[bytes, str]] = [
    (b'{"type":"track","userId":"u","properties":{"x":NaN}}', "invalid_json"),
    (b'{"type":"track","userId":"u","x":[-Infinity]}', "invalid_json"),
    (b'{"type":"track","userId":"u","properties":{"x":1e999}}', "invalid_number"),
    (b'{"type":"track","userId":"u","unknown":1e999}', "invalid_number"),
    (b'{"type":"track","userId":' + b"9" * 5000 + b"}", "invalid_number"),
    (b'{"type":"track","userId":"u","x":"\\ud800"}', "invalid_text"),
    (b'{"type":"track","userId":"u","x":"\\udc00 "}', "invalid_text"),
    (b'{"type":"track","userId":"u","x":"\xff"}', "invalid_text"),
    (b'{"type":"track","userId":"u","x\xed\xa0\x80":1}', "invalid_text"),
    (b'{"type":"track","userId":"u","x":' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
    (b'{"type":"track","userId":"u",}', "invalid_json"),
    (b'{"type":"track" "userId":"u"}', "invalid_json"),
    (b'{"type":"track","userId":"u","x":tru}', "invalid_json"),
    (b'{"type":"track","userId":"a\nb"}', "invalid_json"),
    (b'{"type":"track","userId":01}', "invalid_json"),
    (b"5", "not_an_object"),
    (b"null", "not_an_object"),
    (b'"[{"', "not_an_object"),
    (b"[]", "not_an_object"),
    (b"{}", "no_type"),
]


@pytest.mark.spec("E035", "E038")
@pytest.mark.parametrize(("bad", "code"), BAD)
async def test_one_bad_event_never_refuses_its_batch(hub: Hub, bad: bytes, code: str) -> None:
    reply = await hub.batch(GOOD, bad, {**GOOD, "event": 'a],[\\"{'}, sentAt="2025-01-01T00:00:00Z")
    found = reply.json()
    assert (reply.status, found["accepted"]) == (200, 2)
    assert [(item["index"], item["code"]) for item in found["refused"]] == [(1, code)]
    assert found["refused"][0]["reason"]
    assert [(refused.source, refused.index, refused.raw) for refused in hub.log.refused] == [("web", 1, bad)]
    assert [message.event for message in hub.log.messages()] == ["Bought", 'a],[\\"{']
    assert hub.log.messages()[0].sent_at == "2025-01-01T00:00:00Z"


@pytest.mark.spec("E034", "E035", "E038")
@pytest.mark.parametrize(("bad", "code"), BAD)
async def test_a_single_bad_event_is_400_and_kept(hub: Hub, bad: bytes, code: str) -> None:
    reply = await hub.post("/v1/track", bad)
    assert reply.status == 400
    assert reply.text().endswith("\n")
    assert reply.text().count("\n") == 1
    assert [refused.code for refused in hub.log.refused] == ["no_id" if code == "no_type" else code]


@pytest.mark.spec("E034", "E035")
async def test_a_batch_of_which_nothing_can_be_kept_is_400(hub: Hub) -> None:
    reply = await hub.batch({"type": "track"}, b"{nonsense}")
    found = reply.json()
    assert reply.status == 400
    assert (found["code"], found["accepted"]) == ("nothing_accepted", 0)
    assert found["message"]
    assert [(item["index"], item["code"]) for item in found["refused"]] == [(0, "no_id"), (1, "invalid_json")]
    assert len(hub.log.refused) == 2


@pytest.mark.spec("E035")
@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"",
        b"   ",
        b"[1,2]",
        b'{"batch":[{"userId":"u"}',
        b'{"batch":[{"userId":"u}]}',
        b'{"batch":[]} {}',
        b'{"batch":{"userId":"u"}}',
        b'{"batch":5}',
        b'{"batch":"x"}',
        b'{"batch":[}]}{',
        b'{5:1,"batch":[{}]}',
        b"{",
        b"[",
        b'{"',
        b"}",
        b"{]",
        b"\xef\xbb\xbf{}",
    ],
)
async def test_a_request_whose_events_cannot_be_told_apart_is_400(hub: Hub, body: bytes) -> None:
    reply = await hub.post("/v1/batch", body)
    assert reply.status == 400
    assert hub.log.records == []
    if reply.headers["content-type"] == "application/json":
        assert {"code", "message"} <= reply.json().keys()
        assert hub.log.refused[0].index <= 0


@pytest.mark.spec("E035")
@pytest.mark.parametrize("body", [b"{}", b'{"batch":[]}', b'{"batch":[ ],"x":NaN}', b'{"x":NaN}'])
async def test_an_empty_batch(hub: Hub, body: bytes) -> None:
    reply = await hub.post("/v1/batch", body)
    assert (reply.status, reply.text()) == (400, "empty batch payload\n")


@pytest.mark.spec("E035")
async def test_a_large_batch_with_one_bad_event_is_split_too(hub: Hub) -> None:
    good = [{**GOOD, "properties": {"text": 'q"\\ué]}' * 20}} for _ in range(2000)]
    reply = await hub.batch(*good, BAD[0][0], *good)
    found = reply.json()
    assert (found["accepted"], [item["index"] for item in found["refused"]]) == (4000, [2000])


async def test_strange_keys_are_only_keys(hub: Hub) -> None:
    raw = b'{"__proto__":{"userId":"x"},"constructor":1,"type":"track","userId":"a","userId":"b","":0}'
    assert (await hub.batch(raw)).status == 200
    assert hub.log.messages()[0].user_id == "b", "the last one wins, here as when it is read"
    assert hub.log.records[0].raw == raw


async def test_a_name_written_with_escapes_is_the_name_in_both_splitters(hub: Hub) -> None:
    for extra in (b"", b',"x":NaN'):
        body = b'{"b\\u0061tch":[{"type":"track","userId":"u"}],"\xff":1%s}' % extra
        reply = await hub.post("/v1/batch", body)
        assert reply.status == 200
    assert len(hub.log.records) == 2


@pytest.mark.spec("E036")
@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
async def test_what_cannot_be_stored_is_retried_later(hub: Hub, path: str) -> None:
    body = {"batch": [GOOD]} if path == "/v1/batch" else GOOD
    kinds = ((LogFull(), 507, "full"), (LogFailed(), 503, "disk"), (OSError("broken"), 503, "unavailable"))
    for failure, status, why in kinds:
        hub.log.failure = failure
        reply = await hub.post(path, body)
        assert reply.status == status
        assert int(reply.headers["retry-after"]) > 0
        assert why in reply.text()
        assert "nothing of this request was kept" in reply.text()
    hub.log.failure = None
    assert (await hub.post(path, body)).status == 200


@pytest.mark.spec("E022", "D16")
@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.9, 10.0.0.2", "198.51.100.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "junk", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("::ffff:10.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("203.0.113.7", "198.51.100.9", "203.0.113.7"),
        ("", "198.51.100.9", ""),
    ],
)
async def test_only_trusted_proxies_are_believed(peer: str, forwarded: str, seen: str) -> None:
    hub = Hub(trusted_proxies=["10.0.0.0/8"])
    await hub.post("/v1/track", GOOD, {"x-forwarded-for": forwarded} if forwarded else {}, client=peer)
    assert hub.log.records[0].envelope.ip == seen
