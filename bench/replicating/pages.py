"""A Customer.io of prepared pages in a process of its own: deliveries, activities, campaigns, segments.

Whatever it answers is a slice of bytes made before, so that it never is what limits a reader. With
`latency_s` an answer takes that long, with `per_s` more requests in a second are 429. Unlike the real one it
does not cut a read of /messages without bounds to half a year: readers that do not know better get all.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

import httptools
import msgspec
import uvloop
from msgspec import Struct

DAY_S = 86_400
SPAN_DAYS = 360
PERSONS = 20_000
MESSAGES_PAGE, ACTIVITIES_PAGE = 1000, 100
CAMPAIGNS, SEGMENTS = 200, 100
Record = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class Shelf:
    """Records newest first as one text, any run of which is a page."""

    def __init__(self, key: str, records: Iterator[tuple[int, Record]]) -> None:
        rows = [(at, _encode(record)) for at, record in records]
        self._key = key.encode()
        self._text = b",".join(row for _, row in rows)
        self._starts = [0]
        for _, row in rows:
            self._starts.append(self._starts[-1] + len(row) + 1)
        self._ages = [-at for at, _ in rows]

    def page(self, query: Mapping[str, str], largest: int) -> bytes:
        """Answer a request: `limit`, `start`, and both bounds of the time, which are inclusive."""
        first, end = 0, len(self._ages)
        if "end_ts" in query:
            first = bisect_left(self._ages, -int(query["end_ts"]))
        if "start_ts" in query:
            end = bisect_right(self._ages, -int(query["start_ts"]))
        first = _place(query["start"]) if query.get("start") else first
        last = min(first + min(int(query.get("limit", "50")), largest), end)
        rows = self._text[self._starts[first] : self._starts[last] - 1] if last > first else b""
        following = _token(last) if last < end else b""
        return b'{"%s":[%s],"next":"%s"}' % (self._key, rows, following)


class Site:
    """What there is: `answer` gives the body for a path."""

    def __init__(self, messages: int, activities: int, people: int) -> None:
        now, chance = int(time.time()), random.Random(7)
        self._shelves = {
            "/v1/messages": (Shelf("messages", _messages(messages, now, chance)), MESSAGES_PAGE),
            "/v1/activities": (Shelf("activities", _activities(activities, now, chance)), ACTIVITIES_PAGE),
        }
        workspace = {"id": 1, "name": "Bench", "people": people, "messages_sent": messages}
        self._lists = {
            "/v1/campaigns": _encode({"campaigns": [_campaign(n, now) for n in range(CAMPAIGNS)]}),
            "/v1/segments": _encode({"segments": [_segment(n, now) for n in range(SEGMENTS)]}),
            "/v1/workspaces": _encode({"workspaces": [workspace]}),
        }

    def answer(self, path: str, query: Mapping[str, str]) -> bytes | None:
        """Return a page; None where there is nothing."""
        if path in self._lists:
            return self._lists[path]
        if path not in self._shelves:
            return None
        shelf, largest = self._shelves[path]
        return shelf.page(query, largest)


class Meter:
    """How many requests came, when, and how many were too many."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._window: deque[float] = deque()
        self.clear()

    def clear(self) -> None:
        self.requests = self.refused = 0
        self.first = self.last = 0.0

    def takes(self) -> bool:
        """Count a request; False when it is too many in a second."""
        now = time.monotonic()
        while self._window and self._window[0] <= now - 1.0:
            self._window.popleft()
        if self._per_s and len(self._window) >= self._per_s:
            self.refused += 1
            return False
        self._window.append(now)
        self.first = self.first or now
        self.last = now
        self.requests += 1
        return True

    def told(self) -> bytes:
        return _encode(Served(self.requests, self.refused, self.last - self.first))


class Served(Struct, frozen=True):
    """Requests answered, requests refused with 429, and seconds from the first to the last."""

    requests: int
    refused: int
    span_s: float


class Connection(asyncio.Protocol):
    """One connection; requests on it are answered one after another."""

    def __init__(self, site: Site, meter: Meter, latency_s: float) -> None:
        self._site = site
        self._meter = meter
        self._latency_s = latency_s
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode().partition("?")
        if path in ("/stats", "/clear"):
            self._write(b"200 OK", self._meter.told())
            if path == "/clear":
                self._meter.clear()
            return
        if not self._meter.takes():
            detail = {"detail": "rate limited to 10 requests per 1s (reference a1b2c3)", "status": "429"}
            self._write(b"429 Too Many Requests", _encode({"errors": [detail]}), b"retry-after: 1\r\n")
            return
        body = self._site.answer(path, dict(parse_qsl(query)))
        found = (b"404 Not Found", b"{}") if body is None else (b"200 OK", body)
        if self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, self._write, *found)
        else:
            self._write(*found)

    def _write(self, status: bytes, body: bytes, more: bytes = b"") -> None:
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.writelines([head % (status, more, len(body)), body])


async def serve(site: Site, latency_s: float, per_s: int) -> None:
    """Serve until the process is ended; the port is the first line it says."""
    meter, loop = Meter(per_s), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(site, meter, latency_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def serving(
    messages: int, activities: int, *, people: int = 0, latency_s: float = 0, per_s: int = 0
) -> Iterator[str]:
    """Run the server in a process of its own; gives its URL."""
    numbers: Sequence[float] = (messages, activities, people, latency_s, per_s)
    command = [sys.executable, str(Path(__file__)), *map(str, numbers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def served(url: str, path: str = "/stats") -> Served:
    """Ask the server what it served; `/clear` begins anew."""
    with urllib.request.urlopen(url + path) as answer:
        return Served(**json.load(answer))


# -- records -----------------------------------------------------------------------------------------------


def _token(place: int) -> bytes:
    return base64.urlsafe_b64encode(b"%d" % place)


def _place(token: str) -> int:
    return int(base64.urlsafe_b64decode(token))


def _person(number: int) -> Record:
    return {"id": f"u{number}", "email": f"person{number}@example.com", "cio_id": f"a3{number:010x}"}


def _messages(count: int, now: int, chance: random.Random) -> Iterator[tuple[int, Record]]:
    """Deliveries of a year less five days, about 610 bytes each."""
    for number in range(count):
        created = now - 1 - number * SPAN_DAYS * DAY_S // count
        yield created, _message(number, created, chance)


def _message(number: int, created: int, chance: random.Random) -> Record:
    kind = chance.choice(["email", "email", "email", "push", "in_app", "sms"])
    person, campaign = chance.randrange(PERSONS), chance.random() < 0.7
    metrics = {"created": created, "sent": created + 1}
    for metric, share, later_s in (
        *(("delivered", 0.97, 3), ("opened", 0.4, 500)),
        *(("clicked", 0.1, 700), ("bounced", 0.02, 3)),
    ):
        if chance.random() < share:
            metrics[metric] = created + later_s
    return {
        "id": f"dgSC{number:020d}==",
        "deduplicate_id": f"dgSC{number:020d}==:{created}",
        "msg_template_id": chance.randrange(400),
        "action_id": chance.randrange(2000) if campaign else None,
        "customer_id": f"u{person}",
        "customer_identifiers": _person(person),
        "recipient": f"person{person}@example.com" if kind == "email" else f"tok-{person}",
        "subject": f"Hello {person}, your weekly update #{number % 52}",
        "metrics": metrics,
        "created": created,
        "failure_message": None,
        "newsletter_id": None if campaign else chance.randrange(300),
        "content_id": None if campaign else chance.randrange(300),
        "campaign_id": chance.randrange(CAMPAIGNS) if campaign else None,
        "broadcast_id": None,
        "parent_action_id": None,
        "trigger_event_id": None,
        "type": kind,
        "forgotten": False,
    }


def _activities(count: int, now: int, chance: random.Random) -> Iterator[tuple[int, Record]]:
    """What happened in the last 29 days."""
    for number in range(count):
        at = now - 1 - number * 29 * DAY_S // count
        kind = chance.choice(["opened_email", "sent_email", "event", "attribute_change", "page"])
        by_mail, person = "email" in kind, chance.randrange(PERSONS)
        delivery_id = f"dgSC{number:020d}=="
        if by_mail:
            data: Record = {
                "delivery_id": delivery_id,
                "ip_address": "192.0.2.1",
                "user_agent": "Mozilla/5.0",
            }
        else:
            data = {"plan": "pro", "n": number, "url": f"https://example.com/p/{number % 99}"}
        yield (
            at,
            {
                "id": f"01H{number:023d}",
                "customer_id": f"u{person}",
                "customer_identifiers": _person(person),
                "delivery_id": delivery_id if by_mail else None,
                "delivery_type": "email" if by_mail else None,
                "timestamp": at,
                "type": kind,
                "name": "purchase" if kind == "event" else None,
                "data": data,
            },
        )


def _campaign(number: int, now: int) -> Record:
    return {
        "id": number,
        "deduplicate_id": f"{number}:1",
        "name": f"c{number}",
        "type": "segment",
        "state": "running",
        "active": True,
        "created": now - SPAN_DAYS * DAY_S + number,
        "updated": now - SPAN_DAYS * DAY_S + number * 1000,
        "tags": ["a", "b"],
        "actions": [{"id": number * 10 + each, "type": "email"} for each in range(4)],
        "trigger_segment_ids": [1, 2],
        "first_started": now - SPAN_DAYS * DAY_S,
        "created_by": "x@example.com",
    }


def _segment(number: int, now: int) -> Record:
    at = {"created_at": now - SPAN_DAYS * DAY_S, "updated_at": now - SPAN_DAYS * DAY_S + number}
    named = {"id": number, "name": f"s{number}", "type": "dynamic", "state": "finished"}
    return {**named, **at, "tags": None, "conditions": {"and": []}}


if __name__ == "__main__":
    counts = [int(float(each)) for each in sys.argv[1:4]]
    uvloop.run(serve(Site(*counts), float(sys.argv[4]), int(float(sys.argv[5]))))
