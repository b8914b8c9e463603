"""`Http.request`: statuses become outcomes, secrets stay out, stopping and budgets are heeded."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from towpath import __version__
from towpath.destinations._kustomer_people import Customer, customer_in
from towpath.http import (
    BODY_LIMIT_BYTES,
    LARGEST_READ_BYTES,
    READ_LIMIT_BYTES,
    Exchange,
    Http,
    Reply,
    Stopping,
    TransportError,
    Undelivered,
    Unsendable,
    retry_after,
)
from towpath.outcome import Outcome, Paused, Rejected, Retry
from towpath.testing import FakeClock, FakeTransport
from towpath.transport_http1 import Http1Transport
from towpath.vendors.kustomer import KustomerApi

from .wire import serve

URL = "https://api.example.com/v1/things"
TOKEN = "Bearer sk_live_0123456789"
SECRET = "sk_live_0123456789"


class Throttled:
    """A throttle that notes what it is told, and opens when a test says so."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.learned: list[tuple[int, Mapping[str, str]]] = []
        self.waiting = asyncio.Event()
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def acquire(self) -> None:
        self.waiting.set()
        await self.gate.wait()

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        self.learned.append((status, headers))


def door(answer: Any, **options: Any) -> tuple[Http, FakeTransport]:
    network = FakeTransport(("*", "*", answer))
    return Http(network, FakeClock(), headers={"Authorization": TOKEN}, **options), network


async def refused(answer: Any, url: str = URL, **call: Any) -> Undelivered:
    http, _ = door(answer)
    with pytest.raises(Undelivered) as raised:
        await http.request("POST", url, **call)
    return raised.value


async def test_a_request_carries_json_credentials_and_who_asks() -> None:
    http, network = door(Reply(201, body=b'{"id":1}'))
    reply = await http.request("POST", URL, json={"a": [1, "é"]}, headers={"X-Mine": "1"})
    [request] = network.requests
    assert reply.json() == {"id": 1}
    assert msgspec.json.decode(request.body) == {"a": [1, "é"]}
    assert request.headers == {
        "user-agent": f"towpath/{__version__} (+https://github.com/towpath/towpath)",
        "content-type": "application/json",
        "authorization": TOKEN,
        "x-mine": "1",
    }


async def test_bytes_are_sent_as_they_are() -> None:
    http, network = door(Reply(200))
    await http.request("POST", URL, body=b"\x00raw", headers={"content-type": "text/plain"})
    assert network.requests[0].body == b"\x00raw"
    assert network.requests[0].headers["content-type"] == "text/plain"


@pytest.mark.spec("D03")
async def test_an_allowed_status_is_returned() -> None:
    http, _ = door(Reply(404))
    assert (await http.request("GET", URL, allow=(404,))).status == 404


@pytest.mark.spec("D02", "D03")
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, Rejected),
        (307, Rejected),
        (400, Rejected),
        (401, Paused),
        (403, Paused),
        (404, Rejected),
        (408, Retry),
        (409, Rejected),
        (410, Rejected),
        (413, Rejected),
        (422, Rejected),
        (423, Retry),
        (425, Retry),
        (429, Retry),
        (500, Retry),
        (503, Retry),
        (599, Retry),
    ],
)
async def test_statuses_become_outcomes(status: int, expected: type[Outcome]) -> None:
    error = await refused(Reply(status, body=b"why"), json={"a": 1})
    assert isinstance(error.outcome, expected)
    assert getattr(error.outcome, "code", None) == status
    assert error.exchange is not None
    assert (error.exchange.method, error.exchange.url, error.exchange.status) == ("POST", URL, status)
    assert (error.exchange.body, error.exchange.answer) == ('{"a":1}', "why")


@pytest.mark.spec("D05", "P5")
@pytest.mark.parametrize("status", [200, 201, 207])
@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"OK", b'{"a":', b"{} <script>", b"[" * 20_000])
async def test_a_page_where_the_vendor_speaks_json_is_no_answer(status: int, body: bytes) -> None:
    page = Reply(status, body=body)
    error = await refused(page, json={}, speaks_json=True)
    assert isinstance(error.outcome, Retry)
    assert "no answer of api.example.com's own" in error.outcome.reason
    assert error.exchange is not None
    assert error.exchange.status == status
    assert await door(page)[0].request("POST", URL, json={}) == page


@pytest.mark.parametrize(
    "reply",
    [
        *(Reply(200), Reply(204), Reply(200, body=b" {}\n"), Reply(200, body=b"[]")),
        *(Reply(200, body=b'{"data": "', cut=True), Reply(404, body=b"<html>")),
    ],
)
async def test_json_and_nothing_are_answers(reply: Reply) -> None:
    assert await door(reply)[0].request("POST", URL, allow=[404], speaks_json=True) == reply


@pytest.mark.spec("D03")
async def test_no_answer_is_retried() -> None:
    error = await refused(TransportError("reset", sent=True))
    assert error.outcome == Retry("reset", code=0)
    assert error.exchange is not None
    assert error.exchange.status == 0


@pytest.mark.spec("D02", "D03")
async def test_what_can_never_be_sent_is_rejected() -> None:
    assert (await refused(Unsendable("refused: 10.0.0.1"))).outcome == Rejected("refused: 10.0.0.1")


@pytest.mark.spec("D03")
@pytest.mark.parametrize("value", ["a\r\nx-injected: 1", "a\nb", "a\0b", "é"])
async def test_a_line_break_in_a_header_is_rejected_unsent(value: str) -> None:
    http, network = door(Reply(200))
    for headers in ({"x-id": value}, {value: "1"}):
        with pytest.raises(Undelivered) as raised:
            await http.request("POST", URL, headers=headers)
        assert isinstance(raised.value.outcome, Rejected)
    assert network.requests == []


@pytest.mark.spec("D03", "D11")
@pytest.mark.parametrize("tail", ["\r\nx: 1", "a b", "\t", "\0", "\x7f"])
async def test_a_line_break_or_space_in_a_url_is_rejected_unsent(tail: str) -> None:
    http, network = door(Reply(200))
    with pytest.raises(Undelivered) as raised:
        await http.request("POST", URL + tail)
    assert isinstance(raised.value.outcome, Rejected)
    assert network.requests == []


@pytest.mark.spec("D03")
async def test_an_account_limit_is_told_from_a_limit_on_one_object() -> None:
    account = await refused(Reply(429, {"x-ratelimit-remaining": "0", "retry-after": "3"}))
    one_object = await refused(Reply(429, {"x-ratelimit-remaining": "940"}))
    assert account.outcome == Retry("429", 3.0, throttled=True, code=429)
    assert one_object.outcome == Retry("429", None, throttled=False, code=429)


NOW = FakeClock().now()


@pytest.mark.spec("D03")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("86401", 86_400.0),
        ("9" * 5_000, 86_400.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("²", None),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 0.0),
        (formatdate(NOW + 10**7, usegmt=True), 86_400.0),
        ("Mon, 99 Foo 2026 99:99:99 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after(value, NOW) == expected


@pytest.mark.spec("D03")
@given(some.text())
def test_retry_after_never_fails(value: str) -> None:
    wish = retry_after(value, NOW)
    assert wish is None or 0 <= wish <= 86_400


# Stopping


async def test_nothing_is_sent_while_stopping() -> None:
    http, network = door(Reply(200))
    http.stopping = True
    with pytest.raises(Stopping):
        await http.request("POST", URL)
    assert network.requests == []


async def test_a_stop_ends_the_wait_for_allowance_with_nothing_sent() -> None:
    throttle = Throttled(is_open=False)
    http, network = door(Reply(200), throttles={"": throttle})
    task = asyncio.ensure_future(http.request("POST", URL))
    await throttle.waiting.wait()
    http.stopping = True
    with pytest.raises(Stopping):
        await task
    assert network.requests == []


async def test_a_stop_between_allowance_and_sending_is_seen() -> None:
    throttle = Throttled(is_open=False)
    http, network = door(Reply(200), throttles={"": throttle})
    task = asyncio.ensure_future(http.request("POST", URL))
    await throttle.waiting.wait()
    throttle.gate.set()
    http.stopping = True
    with pytest.raises(Stopping):
        await task
    assert network.requests == []


async def test_a_cancellation_while_waiting_stays_one() -> None:
    throttle = Throttled(is_open=False)
    http, _ = door(Reply(200), throttles={"": throttle})
    task = asyncio.ensure_future(http.request("POST", URL))
    await throttle.waiting.wait()
    http.stopping = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_caller_can_go_on_after_a_stop() -> None:
    throttle = Throttled(is_open=False)
    http, _ = door(Reply(200), throttles={"": throttle})

    async def caller() -> str:
        try:
            await http.request("POST", URL)
        except Stopping:
            await asyncio.sleep(0)  # a task with a pending cancellation could not
        return "went on"

    task = asyncio.ensure_future(caller())
    await throttle.waiting.wait()
    http.stopping = True
    http.stopping = True  # said twice, counts once
    assert await task == "went on"


async def test_what_is_under_way_is_finished_during_a_stop() -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slowly(_: object) -> Reply:
        asked.set()
        await answered.wait()
        return Reply(200)

    http, _ = door(slowly)
    task = asyncio.ensure_future(http.request("POST", URL))
    await asked.wait()
    http.stopping = True
    answered.set()
    assert (await task).status == 200


# Budgets


async def test_the_bucket_is_asked_and_told() -> None:
    slow, other = Throttled(), Throttled()
    http, _ = door(Reply(503, {"x-ratelimit-remaining": "1"}), throttles={"slow": slow, "": other})
    with pytest.raises(Undelivered):
        await http.request("POST", URL, bucket="slow")
    assert slow.learned == [(503, {"x-ratelimit-remaining": "1"})]
    assert not other.waiting.is_set()


# Secrets


@pytest.mark.spec("D08")
async def test_credentials_and_secrets_are_masked_wherever_they_appear() -> None:
    said = f"bad token {SECRET} ({TOKEN}) whsec_c2VjcmV0 user:pass%2Fword".encode()
    basic = base64.b64encode(b"user:pass/word").decode()
    http, _ = door(Reply(400, body=said), secrets=["whsec_c2VjcmV0"])
    with pytest.raises(Undelivered) as raised:
        await http.request(
            "POST",
            f"https://u:{SECRET}@api.example.com/{SECRET}/x?api_key=abc&q=1&sig=xyz&next={SECRET}",
            json={"key": SECRET, "also": "whsec_c2VjcmV0"},
            headers={"proxy-authorization": f"Basic {basic}"},
        )
    exchange = raised.value.exchange
    assert exchange is not None
    assert exchange.url == "https://api.example.com/***/x?api_key=***&q=1&sig=***&next=***"
    assert exchange.body == '{"key":"***","also":"***"}'
    shown = repr(raised.value.outcome) + repr(exchange)
    assert not [text for text in (SECRET, "whsec_c2VjcmV0", "pass%2Fword", "abc", "xyz") if text in shown]


@pytest.mark.spec("D08")
async def test_a_transport_that_names_the_url_gives_no_secret_away() -> None:
    url = f"{URL}?token=hidden-value"
    error = await refused(TransportError(f"error sending request for url ({url}): reset", sent=True), url)
    assert "hidden-value" not in repr(error.outcome) + repr(error.exchange)
    assert "reset" in repr(error.outcome)


@pytest.mark.spec("D08")
async def test_the_first_words_of_an_answer_are_the_reason_without_secrets() -> None:
    error = await refused(Reply(422, body=f"no {SECRET}".encode()))
    assert error.outcome == Rejected("422: no ***", 422)


@pytest.mark.spec("D08")
@pytest.mark.parametrize("shown", [4, 9, len(SECRET) - 1])
async def test_a_secret_that_the_reason_would_cut_in_two_is_masked_before(shown: int) -> None:
    error = await refused(Reply(422, body=b"x" * (500 - shown) + SECRET.encode() + b" tail"))
    assert isinstance(error.outcome, Rejected)
    assert SECRET[:4] not in error.outcome.reason
    assert error.outcome.reason.startswith("422: xxx")
    assert len(error.outcome.reason) <= len("422: ") + 500


@pytest.mark.spec("D08", "D02")
async def test_a_destination_s_own_verdict_on_a_reply_is_redacted_by_the_door() -> None:
    said = f'{{"error":"bad key {SECRET}"}}'.encode()
    http, network = door(Reply(200, body=said), secrets=["whsec_c2VjcmV0"])
    call: dict[str, Any] = {"json": {"key": "whsec_c2VjcmV0"}, "headers": {"x-api-key": "of-this-call"}}
    url = f"{URL}?token=hidden-value"
    reply = await http.request("POST", url, **call)
    verdict = Rejected(f"200: {reply.json()['error']} of-this-call", 200)
    error = http.undelivered(verdict, reply, "POST", url, **call)
    assert error.outcome == Rejected("200: bad key *** ***", 200)
    assert error.exchange == Exchange(
        "POST", f"{URL}?token=***", '{"key":"***"}', 200, '{"error":"bad key ***"}'
    )
    assert len(network.requests) == 1
    later = http.undelivered(Retry("later", 5.0, code=200), reply, "GET", URL)
    assert later.outcome == Retry("later", 5.0, code=200)


@pytest.mark.spec("D08")
async def test_a_secret_cut_in_two_by_the_limit_is_not_kept_in_half() -> None:
    body = b"x" * (BODY_LIMIT_BYTES - 9) + SECRET.encode()
    exchange = (await refused(Reply(400, body=body[:BODY_LIMIT_BYTES]), body=b"{}")).exchange
    assert exchange is not None
    assert SECRET[:4] not in exchange.answer


async def test_an_exchange_keeps_at_most_the_limit_of_text() -> None:
    exchange = (await refused(Reply(400, body=b"\xff" * BODY_LIMIT_BYTES), body=b"y" * 10**6)).exchange
    assert exchange is not None
    assert len(exchange.body.encode()) <= BODY_LIMIT_BYTES
    assert len(exchange.answer.encode()) <= BODY_LIMIT_BYTES


@pytest.mark.spec("D08")
async def test_a_secret_cut_in_two_is_not_kept_in_half_where_others_were_masked_before_it() -> None:
    body = SECRET.encode() * 99 + b"x" * BODY_LIMIT_BYTES
    for end in range(BODY_LIMIT_BYTES, BODY_LIMIT_BYTES + 9 * len(SECRET), len(SECRET) // 2):
        exchange = (await refused(Reply(400, body=body[:end] + SECRET.encode()), body=b"{}")).exchange
        assert exchange is not None
        assert SECRET[:4] not in exchange.answer
    cut = (await refused(Reply(400, body=b"why " + SECRET[:9].encode(), cut=True), body=b"{}")).exchange
    assert cut is not None
    assert SECRET[:4] not in cut.answer


@pytest.mark.parametrize(
    ("method", "asked", "limit"),
    [
        ("GET", None, READ_LIMIT_BYTES),
        ("POST", None, BODY_LIMIT_BYTES),
        ("PUT", None, BODY_LIMIT_BYTES),
        ("POST", READ_LIMIT_BYTES, READ_LIMIT_BYTES),
        ("GET", LARGEST_READ_BYTES, LARGEST_READ_BYTES),
    ],
)
async def test_a_caller_says_how_much_of_an_answer_it_reads(
    method: str, asked: int | None, limit: int
) -> None:
    http, network = door(Reply(200))
    await http.request(method, URL, limit_bytes=asked)
    assert network.requests[0].limit_bytes == limit


@pytest.mark.parametrize("asked", [0, -1, LARGEST_READ_BYTES + 1])
async def test_nobody_may_read_without_a_bound(asked: int) -> None:
    http, network = door(Reply(200))
    with pytest.raises(ValueError, match="limit_bytes"):
        await http.request("GET", URL, limit_bytes=asked)
    assert network.requests == []


async def test_a_cut_answer_is_no_json_and_says_that_it_was_cut() -> None:
    http, _ = door(Reply(200, body=b"12345", cut=True))
    reply = await http.request("GET", URL)
    assert (reply.json(), reply.cut, reply.text()) == (None, True, "12345")


@pytest.mark.spec("K061")
async def test_a_customer_of_more_than_64_kib_is_found() -> None:
    about = {"id": "C1", "attributes": {"externalId": "u1", "custom": {"notes": "x" * 5 * BODY_LIMIT_BYTES}}}
    found = msgspec.json.encode({"data": about})
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(found)}\r\n\r\n".encode()
    transport = Http1Transport()
    async with serve(head + found) as wire:
        api = KustomerApi(Http(transport, FakeClock()), wire.url)
        assert customer_in(await api.find_customer("email", "a@b.io")) == Customer("C1", "u1")
        await transport.close()


def test_odd_answers_read_as_nothing() -> None:
    assert Reply(200, body=b"\xff").json() is None
    assert Reply(200, body=b"[" * 10_000).json() is None
    assert Reply(200, body=b"").json() is None
    assert Reply(200, body="é".encode() * 600).text() == "é" * 500


@pytest.mark.spec("D08", "P5")
@pytest.mark.parametrize("given", [{"json": {"name": "Ann", "key": SECRET}}, {"body": b'{"name":"Ann"}'}])
async def test_a_compressed_body_can_be_read_in_its_dead_letter(given: dict[str, Any]) -> None:
    network = FakeTransport(("POST", "*", Reply(400, body=b"no")))
    http = Http(network, FakeClock(), secrets=[SECRET])
    with pytest.raises(Undelivered) as refused:
        await http.request("POST", URL, gzip=True, **given)
    (sent,) = network.requests
    assert sent.headers["content-encoding"] == "gzip"
    assert gzip.decompress(sent.body).startswith(b'{"name":"Ann"')
    exchange = refused.value.exchange
    assert exchange is not None
    assert '"name":"Ann"' in exchange.body
    assert SECRET not in exchange.body


async def test_compressing_is_the_same_every_time_and_needs_a_body() -> None:
    network = FakeTransport(("*", "*", Reply(200)))
    http = Http(network, FakeClock())
    for _ in range(2):
        await http.request("POST", URL, json=[1] * 100, gzip=True)
    await http.request("GET", URL, gzip=True)
    first, second, bare = network.requests
    assert first.body == second.body
    assert "content-encoding" not in bare.headers
