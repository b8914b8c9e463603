"""Properties of any input: no 5xx, nothing accepted that cannot be read, nothing changed, nothing lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.ingest.routes import ROUTES
from towpath.ingest.split import Broken, deeper, salvaged, sound
from towpath.message import read

from .support import KEY, Hub, Reply

T = TypeVar("T")
MOST = 1000

_loop = asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def loop() -> Any:
    """One loop for all examples."""
    yield
    _loop.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    return _loop.run_until_complete(work)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["track", "Identify", "x"]) | JSON,
        "userId": JSON,
        "anonymousId": JSON,
        "messageId": JSON,
        "properties": JSON,
        "traits": JSON,
        "context": JSON,
        "integrations": JSON,
        "timestamp": JSON,
        "sentAt": JSON,
        "event": JSON,
        "zz": JSON,
    },
)
# What Python writes: NaN and Infinity as words, half surrogates as escapes.
WRITTEN = st.builds(lambda event, ascii_: json.dumps(event, ensure_ascii=ascii_), EVENTS, st.just(True)).map(
    str.encode
)
FRAGMENTS = st.sampled_from(
    [
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"NaN",
        b"1e999",
        b"\\ud800",
        b"\xff",
        b" ",
        b"\x00",
        b'"userId":"u"',
    ]
)
BYTES = st.binary(max_size=60) | st.lists(FRAGMENTS, max_size=12).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """JSON with a piece put in somewhere."""
    whole = draw(
        WRITTEN | st.lists(WRITTEN, max_size=3).map(lambda items: b'{"batch":[' + b",".join(items) + b"]}")
    )
    at = draw(st.integers(0, len(whole)))
    return whole[:at] + draw(BYTES) + whole[at + draw(st.integers(0, 4)) :]


def check(hub: Hub, reply: Reply) -> None:
    assert reply.status in (200, 400, 401, 404, 405, 413)
    for record in hub.log.records:
        read(record)
        msgspec.json.decode(record.raw)
    if reply.headers["content-type"] == "application/json" and reply.status >= 400:
        assert {"code", "message"} <= reply.json().keys()


@pytest.mark.spec("E034", "E038")
@given(body=BYTES | damaged(), path=st.sampled_from(sorted(ROUTES)))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_a_clean_answer(body: bytes, path: str) -> None:
    hub = Hub()
    check(hub, run(hub.call("POST", path, body)))


@pytest.mark.spec("E034", "E032")
@given(
    body=BYTES,
    encoding=st.sampled_from(["gzip", "deflate", "br", "\xff"]),
    auth=st.text("BasicerQ:= \xff", max_size=20),
)
@settings(max_examples=150, deadline=None)
def test_any_header_gets_a_clean_answer(body: bytes, encoding: str, auth: str) -> None:
    hub = Hub()
    headers = {
        "content-encoding": encoding,
        "authorization": auth,
        "x-forwarded-for": auth,
        "content-length": auth,
    }
    check(hub, run(hub.call("POST", "/v1/batch", body, headers, key=None)))


@pytest.mark.spec("E005", "E034")
@given(query=st.text("writeKey=&userId.properties%20ff+;wk_web", max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_query_gets_the_image(query: str) -> None:
    hub = Hub()
    reply = run(hub.call("GET", f"/pixel/v1/page?writeKey={KEY}&{query}", key=None))
    assert (reply.status, reply.headers["content-type"]) == (200, "image/gif")
    check(hub, Reply(200, {"content-type": ""}, b""))


@pytest.mark.spec("E022", "E035", "E038")
@given(
    items=st.lists(WRITTEN | BYTES.filter(lambda raw: b"," not in raw), min_size=1, max_size=5), context=JSON
)
@settings(max_examples=200, deadline=None)
def test_each_item_is_kept_unchanged_or_refused_by_its_index(items: list[bytes], context: Any) -> None:
    hub = Hub()
    body = b'{"batch":[%s],"context":%s}' % (b",".join(items), json.dumps(context).encode())
    reply = run(hub.call("POST", "/v1/batch", body))
    check(hub, reply)
    kept = [record.raw for record in hub.log.records]
    refused = {each.index: each.raw for each in hub.log.refused if each.index >= 0}
    if 0 < len(kept) + len(refused) == len(items):
        merged = [items[i].strip(b" \t\r\n") for i in range(len(items)) if i not in refused]
        assert [each.strip(b" \t\r\n") for each in merged] == kept
        assert all(refused[index] == items[index].strip(b" \t\r\n") for index in refused)
    else:
        assert any(
            b"\\" in item or b'"' in item or {*item} & {*b"{}[]"} or not item.strip() for item in items
        )


@pytest.mark.spec("E035")
@given(
    events=st.lists(EVENTS, max_size=5),
    beside=st.dictionaries(st.sampled_from(["sentAt", "context", "a"]), JSON),
)
@settings(max_examples=200, deadline=None)
def test_both_splitters_agree_on_sound_json(events: list[Any], beside: dict[str, Any]) -> None:
    body = json.dumps({"batch": events, **beside}, indent=1).encode()
    if (fast := sound(body)) is not None:
        slow = salvaged(body, MOST)
        assert [bytes(item) for item in fast.items] == [bytes(item) for item in slow.items]
        assert (fast.sent_at, fast.context) == (slow.sent_at, slow.context)


@given(body=BYTES | damaged())
@settings(max_examples=150, deadline=None)
def test_the_slow_splitter_ends_and_breaks_only_as_it_says(body: bytes) -> None:
    try:
        found = salvaged(body, MOST)
    except Broken:
        return
    assert all(bytes(item) in body for item in found.items)


def nesting(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(nesting, inner), default=0)


@pytest.mark.spec("E033")
@given(value=JSON, limit=st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_depth_is_what_it_is(value: Any, limit: int) -> None:
    assert deeper(json.dumps(value).encode(), limit) == (nesting(value) > limit)
