"""Header blocks: what is written can be read by others, enters no table and no log; what is read is kept."""

from __future__ import annotations

import logging

import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from towpath.http import Request, Unsendable
from towpath.http2.blocks import LIST_BYTES, HeadReader, HeadWriter
from towpath.http2.frames import Breach
from towpath.url import read_url

pytestmark = pytest.mark.spec("P051")
URL = "https://fcm.test/v1/projects/p/messages:send?x=1"
NAMES = st.from_regex(r"x-[a-z0-9-]{0,30}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=300)


def written(headers: dict[str, str], body: bytes = b"{}", method: str = "POST", url: str = URL) -> bytes:
    return HeadWriter().write(Request(method, url, headers, body), read_url(url))


def read(block: bytes) -> dict[str, str]:
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    fields = decoder.decode(block, raw=True)
    assert not decoder.header_table.dynamic_entries
    return {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in fields}


@given(st.dictionaries(NAMES, VALUES, max_size=8), st.binary(max_size=20))
def test_others_read_what_is_written(headers: dict[str, str], body: bytes) -> None:
    found = read(written(headers, body))
    assert {name: found[name] for name in headers} == headers
    assert found[":path"] == "/v1/projects/p/messages:send?x=1"
    assert found["content-length"] == str(len(body))


def test_no_table_anywhere_keeps_a_credential() -> None:
    block = written({"authorization": "Bearer secret", "x-key": "k" * 200})
    fields = {bytes(field[0]): field for field in Decoder().decode(block, raw=True)}
    for name in (b"authorization", b"x-key", b":path"):
        assert isinstance(fields[name], NeverIndexedHeaderTuple)


@pytest.mark.spec("D11")
def test_no_log_shows_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert read(written({"authorization": "Bearer secret"}))["authorization"] == "Bearer secret"
    caplog.clear()
    written({"authorization": "Bearer secret"})
    assert caplog.text == ""


def test_what_belongs_to_a_connection_is_left_out() -> None:
    found = read(written({"connection": "close", "host": "a.test", "content-length": "99", "te": "trailers"}))
    assert found.keys() == {":method", ":scheme", ":authority", ":path", "accept", "content-length"}
    assert (found[":authority"], found["content-length"]) == ("a.test", "2")


@pytest.mark.parametrize("headers", [{"x-a": "b\nc"}, {"x-a\r": "b"}, {"x-a": "\u20ac"}, {"x-\u20ac": "b"}])
def test_what_no_header_can_have_is_not_sent(headers: dict[str, str]) -> None:
    with pytest.raises(Unsendable):
        written(headers)


def test_one_writer_tells_requests_apart() -> None:
    writer, headers = HeadWriter(), {"authorization": "Bearer one"}

    def one(request: Request) -> dict[str, str]:
        return read(writer.write(request, read_url(request.url)))

    first = Request("POST", URL, headers, b"{}")
    assert one(first)["authorization"] == "Bearer one"
    headers["authorization"] = "Bearer two"
    assert one(first)["authorization"] == "Bearer two"
    assert one(Request("GET", URL, headers))[":method"] == "GET"
    assert one(Request("POST", "https://b.test/c", headers, b"123"))[":path"] == "/c"


def test_what_is_read_again_is_not_decoded_again() -> None:
    reader, encoder = HeadReader(), Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([(":status", "200"), ("x-a", "b")])
    assert reader.read(block) is reader.read(block)
    assert reader.read(block).headers == {"x-a": "b"}
    for number in range(1000):
        head = reader.read(encoder.encode([(":status", "200"), ("x-a", str(number))]))
        assert head.headers == {"x-a": str(number)}
    assert len(reader._known) <= 256


def test_headers_larger_than_we_said_are_a_breach() -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    with pytest.raises(Breach):
        HeadReader().read(encoder.encode([(":status", "200"), ("x-a", "b" * LIST_BYTES)]))


@given(st.binary(max_size=60))
def test_no_block_does_more_than_end_the_connection(block: bytes) -> None:
    try:
        head = HeadReader().read(block)
    except Breach:
        return
    assert head.fault or all(name == name.lower() for name in head.headers)
