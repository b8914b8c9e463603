"""Pushes a second and CPU per push: towpath's sender beside firebase-admin's two, and how it keeps a pace.

The three take turns, each in a process of its own, with the same messages to the same FCM: a server on this
machine that answers every message with a name, over TLS and HTTP/2 in as few steps as possible, so that it is
the sender that is measured. firebase-admin is as it is but for the address; its `send_each` speaks HTTP/1.1.
CPU is that of the sending process, after a warm-up. Then the sender alone is held to a rate, and each answer
takes 60 ms. Run: python bench/fcm.py [--messages 4000] [--rounds 3] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from towpath.clock import SystemClock
from towpath.device import Address
from towpath.http import Http
from towpath.notice import encoded
from towpath.push.sender import Account, Sender
from towpath.sandbox.google import service_account
from towpath.sandbox.http2_certificate import Certificate
from towpath.transport import PyreqwestTransport
from towpath.transport_http2 import Http2Transport

LESS_CPU = 20.0
TIMES_THE_RATE = 10.0
PACE_PER_S = 10_000.0
LATENCY_MS = 60
WITHIN = 0.05
WARM_UP = 500
WARM_UP_S = 3.0
CHUNK = 500
"""Messages of one call of firebase-admin's: the most it takes."""
AT_A_TIME = 400
PATIENCE_S = 300.0
WORDS = {"title": "Your order has shipped", "body": "Track it in the app: arriving Thursday"}
DATA = {"campaign_id": "c_1042", "deep_link": "shop://orders/88213"}

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NAME = json.dumps({"name": "projects/demo-towpath/messages/0:1750000000000000%31bd1c9631bd1c96"}).encode()
GRANT = json.dumps({"access_token": "ya29." + "a" * 200, "expires_in": 3599, "token_type": "Bearer"}).encode()
DATA_FRAME, HEADERS_FRAME, SETTINGS_FRAME, PING_FRAME, WINDOW_FRAME = 0, 1, 4, 6, 8
END_STREAM = ACK = 1
END_HEADERS = 4
WINDOW_BYTES = 1 << 20


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


# :status 200 of the static table, and a literal that enters no table: the same bytes on every connection.
HEAD = b"\x88\x00\x0ccontent-type\x10application/json"


class Fcm(asyncio.Protocol):
    """One connection of the FCM of the bench. Knows of a request only that it is over."""

    transport: asyncio.Transport

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.unacknowledged = 0
        self.http2 = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.http2 = transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        if self.http2:
            settings = frame(SETTINGS_FRAME, 0, 0, (3).to_bytes(2, "big") + (100).to_bytes(4, "big"))
            transport.write(settings + frame(WINDOW_FRAME, 0, 0, (1 << 24).to_bytes(4, "big")))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        answers = b"".join(self.frames() if self.http2 else self.requests())
        if self.delay_s:
            self.loop.call_later(self.delay_s, self.write, answers)
        else:
            self.write(answers)

    def write(self, answers: bytes) -> None:
        if answers and not self.transport.is_closing():
            self.transport.write(answers)

    def frames(self) -> Iterator[bytes]:
        data, at = self.buffer.removeprefix(PREFACE), 0
        while len(data) >= at + 9 and len(data) >= (end := at + 9 + int.from_bytes(data[at : at + 3], "big")):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
            if kind in (DATA_FRAME, HEADERS_FRAME) and flags & END_STREAM:
                yield frame(HEADERS_FRAME, END_HEADERS, stream, HEAD)
                yield frame(DATA_FRAME, END_STREAM, stream, NAME)
            elif kind in (SETTINGS_FRAME, PING_FRAME) and not flags & ACK:
                payload = data[at + 9 : end] if kind == PING_FRAME else b""
                self.transport.write(frame(kind, ACK, 0, payload))
            if kind == DATA_FRAME:
                self.unacknowledged += end - at - 9
            at = end
        self.buffer = data[at:]
        if self.unacknowledged > WINDOW_BYTES:
            self.transport.write(frame(WINDOW_FRAME, 0, 0, self.unacknowledged.to_bytes(4, "big")))
            self.unacknowledged = 0

    def requests(self) -> Iterator[bytes]:
        while (head_end := self.buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self.buffer[:head_end].lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self.buffer) < head_end + size:
                return
            self.buffer = self.buffer[head_end + size :]
            body = GRANT if head.startswith(b"post /token") else NAME
            yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            yield b"content-length: %d\r\n\r\n" % len(body) + body


async def serve(delay_ms: int) -> None:
    """Serve until the process ends; prints the port."""
    certificate = Certificate.fresh()
    context = certificate.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    made = await asyncio.get_running_loop().create_server(
        lambda: Fcm(delay_ms / 1000), "127.0.0.1", 0, ssl=context, backlog=1024
    )
    print(json.dumps([made.sockets[0].getsockname()[1], certificate.authority]), flush=True)
    await made.serve_forever()


@contextmanager
def server(delay_ms: int = 0) -> Iterator[Mapping[str, str]]:
    """Run the FCM of the bench; yields the environment by which its clients find and trust it."""
    command = [sys.executable, __file__, "--serve", str(delay_ms)]
    with (
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            port, authority = json.loads(process.stdout.readline())
            root, key = Path(place) / "root.pem", Path(place) / "key.json"
            root.write_text(authority)
            key.write_text(service_account(f"https://localhost:{port}"))
            trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(root))
            yield {"BENCH_URL": f"https://localhost:{port}", "BENCH_KEY": str(key), **trust}
        finally:
            process.terminate()


# -- the contestants, each in a process of its own --------------------------------------------------------


def admin_messages(numbers: range) -> list[Any]:
    from firebase_admin import messaging  # type: ignore[import-untyped]

    return [
        messaging.Message(
            fid=f"dddddddddddddddddddddd{number:08d}",
            notification=messaging.Notification(**WORDS),
            data=DATA,
            android=messaging.AndroidConfig(priority="high", ttl=86_400),
        )
        for number in numbers
    ]


def admin_service() -> Any:
    """firebase-admin's own service at another address: its pool of connections is bound to the real one."""
    import firebase_admin
    from firebase_admin import credentials, messaging

    url = os.environ["BENCH_URL"]
    messaging._MessagingService.FCM_URL = url + "/v1/projects/{0}/messages:send"  # noqa: SLF001
    app = firebase_admin.initialize_app(credentials.Certificate(os.environ["BENCH_KEY"]))
    session = messaging._get_messaging_service(app)._client.session  # noqa: SLF001
    session.mount(url, session.get_adapter("https://fcm.googleapis.com"))
    return messaging


async def admin_async(messages: int) -> dict[str, float]:
    messaging = admin_service()

    async def send(numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, CHUNK):
            some = range(start, min(start + CHUNK, numbers.stop))
            result = await messaging.send_each_async(admin_messages(some))
            assert result.success_count == len(some), [each.exception for each in result.responses][:1]

    return await measured(send, messages)


async def admin_threads(messages: int) -> dict[str, float]:
    messaging = admin_service()

    async def send(numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, CHUNK):
            some = range(start, min(start + CHUNK, numbers.stop))
            result = messaging.send_each(admin_messages(some))
            assert result.success_count == len(some), [each.exception for each in result.responses][:1]

    return await measured(send, messages)


async def ours(messages: int) -> dict[str, float]:
    sender, door = open_sender(rate_per_s=1e6)
    template = message()

    async def send(numbers: range) -> None:
        left = iter(numbers)

        async def work() -> None:
            for number in left:
                address = Address("fid", f"dddddddddddddddddddddd{number:08d}")
                verdict = await sender.send(template.body(address))
                assert verdict.kind == "accepted", verdict

        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))

    try:
        return await measured(send, messages)
    finally:
        await sender.close()
        await door.close()


async def paced(seconds: int) -> dict[str, float]:
    """As many senders as the sender wants to have under way, for so long; what each second carried."""
    sender, door = open_sender(rate_per_s=PACE_PER_S)
    template, numbers, clock = message(), count(), time.perf_counter
    began = clock()
    ends = began + WARM_UP_S + seconds
    seconds_of: list[int] = [0] * (seconds + 2)
    usage = waited = 0.0

    async def work() -> None:
        while clock() < ends:
            verdict = await sender.send(template.body(Address("fid", f"d{next(numbers):020d}")))
            assert verdict.kind == "accepted", verdict
            slot = math.floor(clock() - began - WARM_UP_S)
            if slot >= 0:
                seconds_of[slot] += 1

    async def warm() -> None:
        nonlocal usage, waited
        await asyncio.sleep(WARM_UP_S)
        usage, waited = cpu_s(), waited_s()

    await asyncio.gather(warm(), *(work() for _ in range(sender.in_flight)))
    whole = seconds_of[:seconds]
    found = {
        "rate": sum(whole) / seconds,
        "lowest": float(min(whole)),
        "highest": float(max(whole)),
        "cpu": (cpu_s() - usage) / sum(whole) * 1e4,
        "p95_ms": 1000 * sender.health.p95_s,
        "waited": min(1.0, (waited_s() - waited) / seconds),
    }
    await sender.close()
    await door.close()
    return found


def open_sender(rate_per_s: float) -> tuple[Sender, PyreqwestTransport]:
    url, root = os.environ["BENCH_URL"], Path(os.environ["SSL_CERT_FILE"]).read_bytes()
    key = Path(os.environ["BENCH_KEY"]).read_text(encoding="utf-8")
    account = Account(key, url=url, rate_per_s=rate_per_s, headroom=0.0, ramp_s=0.0)
    door, clock = PyreqwestTransport(root_certificate=root), SystemClock()
    made = Sender(
        account, Http(door, clock), clock, connect=lambda rate: Http2Transport(rate, root_certificate=root)
    )
    return made, door


def message() -> Any:
    return encoded({"notification": WORDS, "data": DATA, "android": {"priority": "HIGH", "ttl": "86400s"}})


async def measured(send: Callable[[range], Awaitable[None]], messages: int) -> dict[str, float]:
    await send(range(WARM_UP))
    began, used = time.perf_counter(), cpu_s()
    await send(range(WARM_UP, WARM_UP + messages))
    took = time.perf_counter() - began
    return {"rate": messages / took, "cpu": (cpu_s() - used) / messages * 1e4}


def waited_s() -> float:
    """Seconds that this thread could have run and had no core, as others had them; Linux alone tells."""
    told = Path("/proc/thread-self/schedstat")
    return int(told.read_text().split()[1]) / 1e9 if told.exists() else 0.0


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


CONTESTANTS: Mapping[str, Callable[[int], Any]] = {
    "firebase-admin send_each_async": admin_async,
    "firebase-admin send_each": admin_threads,
    "towpath": ours,
    "towpath, paced": paced,
}
PEERS = ("firebase-admin send_each_async", "firebase-admin send_each")


def contest(name: str, size: int) -> None:
    """Run one contestant here; prints what it measured as JSON."""
    warnings.simplefilter("ignore")
    loop = uvloop.new_event_loop if name.startswith("towpath") else None
    with asyncio.Runner(loop_factory=loop) as runner:
        print(json.dumps(runner.run(CONTESTANTS[name](size))))


# -- the bench --------------------------------------------------------------------------------------------


def run(name: str, size: int, environment: Mapping[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--contestant", name, "--size", str(size)]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def race(messages: int, rounds: int) -> bool:
    """Let them take turns; whether the goals are missed."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in (*PEERS, "towpath")}
    with server() as environment:
        for _ in range(rounds):
            for name, found in results.items():
                found.append(run(name, messages, environment))
    rates = {name: median(each["rate"] for each in found) for name, found in results.items()}
    cpu = {name: median(each["cpu"] for each in found) for name, found in results.items()}
    for name in results:
        less, times = cpu[name] / cpu["towpath"], rates["towpath"] / rates[name]
        beside = (
            f"   towpath: {less:5.1f} times less CPU, {times:5.1f} times the rate" if name in PEERS else ""
        )
        print(f"{name:32} {rates[name]:8,.0f}/s {cpu[name]:7.3f} s CPU for 10,000{beside}")
    missed = cpu[PEERS[0]] / cpu["towpath"] < LESS_CPU or rates["towpath"] / rates[PEERS[0]] < TIMES_THE_RATE
    goals = f"{LESS_CPU:g} times less CPU and {TIMES_THE_RATE:g} times the rate of {PEERS[0]}"
    print(f"goals: {goals}{': MISSED' if missed else ''}")
    return missed


def shape(seconds: int) -> bool:
    """Hold the sender to a pace while answers take their time; whether it misses it."""
    with server(LATENCY_MS) as environment:
        found = run("towpath, paced", seconds, environment)
    off = found["rate"] / PACE_PER_S - 1
    missed = abs(off) > WITHIN
    print(
        f"paced to {PACE_PER_S:,.0f}/s, answers after {LATENCY_MS} ms: {found['rate']:,.0f}/s ({off:+.1%}) "
        f"in {seconds} s, a second {found['lowest']:,.0f} to {found['highest']:,.0f}, p95 "
        f"{found['p95_ms']:.0f} ms, {found['cpu']:.3f} s CPU for 10,000\n"
        f"goal: within {WITHIN:.0%}{': MISSED' if missed else ''}; {found['waited']:.0%} of the time others "
        "had the core that the sender could have used"
    )
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    if options.contestant:
        contest(options.contestant, options.size)
        return 0
    print(
        f"fcm, {options.rounds} rounds of {options.messages:,} messages, medians; "
        f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores for sender and server"
    )
    missed = race(options.messages, options.rounds)
    return int(shape(options.seconds) or missed)


if __name__ == "__main__":
    sys.exit(main())
