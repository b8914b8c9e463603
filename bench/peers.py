"""Deliveries side by side in one run: towpath, Celery + Redis, taskiq + Redis; the contestants take turns.

All do the same job: messages put in first, then one HTTP request for each over kept-alive connections to the
same thin receiver, acknowledged after it. The peers get two or more settings; the best of each counts. They
are installed into build/peers from bench/peers.lock; redis-server is Debian's.
Run: python bench/peers.py [--messages 4000] [--rounds 2] [--only NAME] [--fsync everysec]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import structlog
import uvloop
from msgspec import Struct

from deliver import EVENT, deliver
from towpath.transport_http1 import Http1Transport

HERE = Path(__file__).parent
PLACE = HERE.parent / "build" / "peers"
FLOORS = {"celery": 20.0, "taskiq": 4.0}
PERSONS = 500
TIMES = 5
PATIENCE_S = 60.0
STALE_S = 20.0
TICK_S = os.sysconf("SC_CLK_TCK")

CELERY = """
import json, os, sys
from http.client import HTTPConnection
from celery import Celery

HOST, PORT = os.environ["RECEIVER"].split(":")
app = Celery("peers", broker=os.environ["REDIS"])
app.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=32, task_serializer="json",
    accept_content=["json"], worker_send_task_events=False, broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False, task_store_errors_even_if_ignored=False,
)
idle = []  # kept-alive connections, taken and put back


@app.task(name="send", acks_late=True, ignore_result=True)
def send(event):
    body = {"customer": event["userId"], "event": event["event"], "meta": event["properties"]}
    line = "/?%s.%s" % (event["userId"], event["properties"]["order_id"][1:])
    connection = idle.pop() if idle else HTTPConnection(HOST, int(PORT))
    connection.request("POST", line, json.dumps(body).encode(), {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    idle.append(connection)


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for line in sys.stdin:
            send.apply_async((json.loads(line),), producer=producer)
"""

TASKIQ = """
import asyncio, json, os, sys
from taskiq import TaskiqEvents
from taskiq_redis import ListQueueBroker, RedisStreamBroker

URL = "http://" + os.environ["RECEIVER"]
KIND = os.environ["BROKER"]
broker = (ListQueueBroker if KIND == "list" else RedisStreamBroker)(os.environ["REDIS"])
session = None


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def begin(state):
    global session
    if os.environ["CLIENT"] == "pyreqwest":
        from pyreqwest.client import ClientBuilder

        session = ClientBuilder().no_proxy().http1_only().pool_max_idle_per_host(256).build()
    else:
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@broker.task(task_name="send")
async def send(event: dict) -> None:
    body = {"customer": event["userId"], "event": event["event"], "meta": event["properties"]}
    url = "%s/?%s.%s" % (URL, event["userId"], event["properties"]["order_id"][1:])
    if os.environ["CLIENT"] == "pyreqwest":
        answer = await session.post(url).body_json(body).build().send()
        assert answer.status == 200
        return
    async with session.post(url, json=body) as answer:
        assert answer.status == 200
        await answer.read()


async def fill():
    await broker.startup()
    for line in sys.stdin:
        await send.kiq(json.loads(line))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill())
"""


class Unavailable(Exception):
    """Something the comparison needs cannot be had; says what, and how to get it."""


class Stuck(Exception):
    """A peer's run came to no end; it counts as none."""


class Contestant(Struct, frozen=True):
    """A peer with one setting: its worker's command line, and what its environment says."""

    peer: str
    setting: str
    module: str
    worker: Sequence[str]
    environment: dict[str, str] = {}
    late: bool = True

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.peer} {self.setting}"


class Score(Struct, frozen=True):
    """One run: deliveries a second, CPU of the workers and of Redis for each, broken orders."""

    rate: float
    cpu_us: float
    redis_us: float
    violations: int


def contestants() -> list[Contestant]:
    """The peers with their settings."""
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    pools = [("prefork", 2), ("prefork", 4), ("threads", 32), ("gevent", 64)]
    found = [
        Contestant(
            "celery", f"{pool} {size}", "tasks_celery",
            ["celery", "-A", "tasks_celery", "worker", *quiet, "-P", pool, "-c", str(size)],
        )
        for pool, size in pools
    ]  # fmt: skip
    for broker, client, workers, tasks in (
        ("stream", "aiohttp", 1, 64), ("stream", "aiohttp", 2, 64), ("stream", "pyreqwest", 1, 64),
        ("stream", "pyreqwest", 2, 256), ("list", "pyreqwest", 2, 64),
    ):  # fmt: skip
        command = ["taskiq", "worker", "tasks_taskiq:broker", "--workers", str(workers)]
        command += ["--max-async-tasks", str(tasks), "--ack-type", "when_executed", "--log-level", "ERROR"]
        setting = f"{broker} {client} {workers}×{tasks}"
        given = {"BROKER": broker, "CLIENT": client}
        found.append(Contestant("taskiq", setting, "tasks_taskiq", command, given, late=broker == "stream"))
    return found


# -- what it needs -----------------------------------------------------------------------------------------


def install() -> Path:
    """Make the peers' environment once; its directory of programs."""
    programs, lock = PLACE / "bin", HERE / "peers.lock"
    done = PLACE / "installed"
    if not done.exists() or done.read_bytes() != lock.read_bytes():
        venv.create(PLACE, with_pip=True, clear=True)
        command = [str(programs / "pip"), "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        ran = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True, check=False)
        if ran.returncode:
            raise Unavailable(f"the peers could not be installed: {ran.stderr.strip()[-500:]}")
        done.write_bytes(lock.read_bytes())
    return programs


@contextmanager
def redis(directory: Path, fsync: str) -> Iterator[tuple[str, int]]:
    """A Redis of our own on loopback, appending to disk; its URL and process id."""
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("redis-server is not installed; on Debian: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", fsync, "--loglevel", "warning"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        answers_at(port)
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        process.terminate()
        process.wait()


def answers_at(port: int) -> None:
    """Wait until something listens there. Raises `Unavailable`."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Unavailable(f"nothing listens at 127.0.0.1:{port}")


# -- the receiver ------------------------------------------------------------------------------------------


class Receiver:
    """Reads the body and says yes, as that of bench/deliver.py; keeps when which request came."""

    def __init__(self) -> None:
        self.came: list[tuple[float, bytes]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            body = self.report()
            if scope["path"] == "/clear":
                self.came.clear()
        else:
            while (await receive()).get("more_body"):
                pass
            self.came.append((time.perf_counter(), scope["query_string"]))
            body = b"{}"
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    def report(self) -> bytes:
        """How many came, in how many seconds, and how often somebody's order was broken."""
        last, violations = dict[bytes, int](), 0
        for _, query in self.came:
            person, _, number = query.rpartition(b".")
            violations += last.get(person, -1) >= int(number or 1 << 60)
            last[person] = int(number or 0)
        span_s = self.came[-1][0] - self.came[0][0] if self.came else 0.0
        return json.dumps({"count": len(self.came), "span_s": span_s, "violations": violations}).encode()


def serve(descriptor: int) -> None:
    """Be the receiver on a listening socket handed down."""
    import uvicorn

    config = uvicorn.Config(
        Receiver(), log_level="error", lifespan="off", loop="uvloop", http="httptools",
        timeout_keep_alive=300,  # no peer meets a connection that was closed while it lay idle
    )  # fmt: skip
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


@contextmanager
def receiver() -> Iterator[str]:
    """A receiver in a process of its own; host:port."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        descriptor = listening.fileno()
        command = [sys.executable, __file__, "--serve", str(descriptor)]
        process = subprocess.Popen(command, pass_fds=[descriptor])
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()


def ask(address: str, path: str = "/") -> dict[str, Any]:
    """What the receiver has seen."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


# -- one run -----------------------------------------------------------------------------------------------


def events(messages: int) -> list[str]:
    """The events of bench/deliver.py, one a line."""
    chance = Random(7)
    return [EVENT % (f"{n:032x}", chance.randrange(PERSONS), n) for n in range(messages)]


def cpu_s(group: int) -> float:
    """CPU seconds of a process group and of its ended children, by now."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[2]) == group:
            total += sum(int(field) for field in fields[11:15])
    return total / TICK_S


def own_cpu_s(process: int) -> float:
    """CPU seconds of one process by now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK_S


def compete(peer: Contestant, programs: Path, address: str, messages: int, fsync: str) -> Score:
    """Fill the queue, start the workers, and wait until everything has come."""
    with tempfile.TemporaryDirectory() as place, redis(Path(place), fsync) as (url, redis_id):
        directory = Path(place)
        (directory / "tasks_celery.py").write_text(CELERY)
        (directory / "tasks_taskiq.py").write_text(TASKIQ)
        given = {"BROKER": "stream", "CLIENT": "aiohttp", **os.environ, **peer.environment}
        given |= {"REDIS": url, "RECEIVER": address, "PYTHONPATH": place}
        fill = [str(programs / "python"), f"{peer.module}.py"]
        lines = "\n".join(events(messages)).encode()
        filled = subprocess.run(fill, input=lines, cwd=place, env=given, capture_output=True, check=False)
        if filled.returncode:
            raise Unavailable(f"{peer.name} could not be filled: {filled.stderr.decode()[-500:]}")
        ask(address, "/clear")
        command = [str(programs / peer.worker[0]), *peer.worker[1:]]
        with (directory / "worker.txt").open("wb") as output:
            worker = subprocess.Popen(
                command, cwd=place, env=given, stdout=output, stderr=output, start_new_session=True
            )
            try:
                return watch(worker.pid, redis_id, address, messages)
            except Stuck as error:
                raise Stuck(f"{error} {(directory / 'worker.txt').read_text()[-500:]}") from error
            finally:
                end(worker)


def watch(group: int, redis_id: int, address: str, messages: int) -> Score:
    """Wait until all have come; CPU counts from the first look at which some had."""
    deadline_s, begun = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < deadline_s:
        seen = ask(address)
        if begun is None and seen["count"]:
            begun = (seen["count"], cpu_s(group), own_cpu_s(redis_id))
        if begun is not None and seen["count"] >= messages:
            rest = max(1, seen["count"] - begun[0])
            workers, store = cpu_s(group) - begun[1], own_cpu_s(redis_id) - begun[2]
            rate = (seen["count"] - 1) / seen["span_s"]
            return Score(rate, workers / rest * 1e6, store / rest * 1e6, seen["violations"])
        time.sleep(0.1)
    raise Stuck(f"stuck: {ask(address)['count']:,} of {messages:,} came within {PATIENCE_S:.0f} s")


def end(worker: subprocess.Popen[bytes]) -> None:
    """Stop a worker and the processes it started, which are a group of their own."""
    worker.terminate()
    with suppress(subprocess.TimeoutExpired):
        worker.wait(STALE_S)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def ours(address: str, messages: int) -> Score:
    """The same job by towpath."""
    import deliver as bench

    bench.seen.clear()
    gc.collect()
    with tempfile.TemporaryDirectory() as directory:
        work = deliver(f"http://{address}/", Path(directory), messages, PERSONS, Http1Transport())
        wall_s, used_s = uvloop.run(work)
    violations = sum(orders != sorted(orders) for orders in bench.seen.values())
    return Score(messages / wall_s, used_s / messages * 1e6, 0.0, violations)


# -- the whole ---------------------------------------------------------------------------------------------


def tell(name: str, score: Score) -> None:
    """One line of the table, with the load of the machine."""
    print(
        f"{name:32} {score.rate:8,.0f}/s  {score.cpu_us:7,.0f} us CPU + {score.redis_us:5,.0f} us Redis"
        f"  {score.violations:6,} order violations  load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def ratios(found: dict[str, list[tuple[Score, Score]]]) -> bool:
    """Print how many times faster towpath was than the best setting of each peer; whether that is enough.

    By the medians of a setting's runs, and of the runs of ours right before each.
    """
    met = True
    for peer, floor in FLOORS.items():
        settings = {name: runs for name, runs in found.items() if name.startswith(peer)}
        if not settings:
            continue
        best = max(settings, key=lambda name: median(run.rate for _, run in settings[name]))
        runs = settings[best]
        times = median(mine.rate for mine, _ in runs) / median(run.rate for _, run in runs)
        spent_us = median(run.cpu_us + run.redis_us for _, run in runs)
        cpu = spent_us / median(mine.cpu_us for mine, _ in runs)
        met &= times >= floor
        figures = {"peer": best, "times_faster": round(times, 1), "times_less_cpu": round(cpu, 1)}
        print(json.dumps({**figures, "floor": floor, "met": times >= floor}, ensure_ascii=False))
    return met


def run(options: argparse.Namespace) -> int:
    """All contestants, as many rounds as asked for, ours before each."""
    programs = install()
    chosen = [peer for peer in contestants() if options.only in peer.name]
    found: dict[str, list[tuple[Score, Score]]] = {}
    print(f"{options.messages:,} messages for each peer, {TIMES} times as many for towpath (short runs)")
    print(f"Redis appends to disk, fsync {options.fsync}; {os.cpu_count()} cores for workers and receiver")
    with receiver() as address:
        answers_at(int(address.rpartition(":")[2]))
        for _ in range(options.rounds):
            for peer in chosen:
                mine = ours(address, options.messages * TIMES)
                tell("towpath", mine)
                try:
                    score = compete(peer, programs, address, options.messages, options.fsync)
                except Stuck as error:
                    print(f"{peer.name:32} {error}", flush=True)
                    continue
                tell(peer.name + ("" if peer.late else " (not acknowledged)"), score)
                if mine.violations:
                    return 1
                if peer.late:
                    found.setdefault(peer.name, []).append((mine, score))
    return 0 if ratios(found) else 1


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--messages", type=int, default=4000)
    given.add_argument("--rounds", type=int, default=2)
    given.add_argument("--only", default="", help="a part of the contestants' names")
    given.add_argument("--fsync", choices=["everysec", "always"], default="everysec")
    given.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    gc.set_threshold(50_000, 20, 50)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        return run(options)
    except Unavailable as error:
        print(f"no comparison: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
