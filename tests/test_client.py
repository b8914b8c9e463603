"""The Python client against a live hub: everything is kept, or `on_error` hears of it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest

import towpath.client as analytics
from towpath.client import BATCH_BYTES, Client, Event, Unsent
from towpath.ingest.answers import Send
from towpath.ingest.body import Receive

from .ingest.support import KEY, Hub, served, source

KINDS = ["identify", "track", "page", "screen", "group", "alias"]


class Errors(list[tuple[Exception, list[Event]]]):
    """What `on_error` heard."""

    def __call__(self, error: Exception, events: list[Event]) -> None:
        self.append((error, events))

    def events(self) -> list[Any]:
        return [event.get("event") for _, events in self for event in events]


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def port(hub: Hub) -> Iterator[int]:
    with served(hub.ingest) as found:
        yield found


@pytest.fixture
def errors() -> Errors:
    return Errors()


def connect(port: int, errors: Errors, **settings: Any) -> Client:
    return Client(KEY, f"http://127.0.0.1:{port}", on_error=errors, backoff_s=0.01, **settings)


@pytest.mark.spec("E040")
def test_every_call_is_kept(hub: Hub, port: int, errors: Errors) -> None:
    client = connect(port, errors)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert client.identify("u1", {"plan": "x", "tags": {"a"}, "born": moment.date()}, anonymous_id="a1")
    assert client.track(
        "u1", "Bought", {"price": 3.5}, timestamp=moment, message_id="m1", context={"ip": "::1"}
    )
    assert client.page("u1", "Shop", "Cart", {"url": "https://x"}, integrations={"All": False})
    assert client.screen(None, None, "Cart", anonymous_id="a1")
    assert client.group("u1", "g1", {"plan": "x"})
    assert client.alias("a1", "u1")
    assert client.flush(10)
    client.close()
    assert errors == []
    found = {message.type: message for message in hub.log.messages()}
    assert [message.type for message in hub.log.messages()] == KINDS
    assert found["identify"].traits == {"plan": "x", "tags": ["a"], "born": "2026-01-01"}
    assert found["track"].occurred_at == moment
    assert (found["track"].message_id, found["track"].context["ip"]) == ("m1", "::1")
    assert (found["page"].category, found["page"].integrations) == ("Shop", {"All": False})
    assert (found["screen"].user_id, found["screen"].anonymous_id, found["screen"].name) == (
        None,
        "a1",
        "Cart",
    )
    assert (found["group"].group_id, found["alias"].previous_id) == ("g1", "a1")


@pytest.mark.spec("E040")
def test_batches_keep_order_and_their_size(hub: Hub, port: int, errors: Errors) -> None:
    client = connect(port, errors)
    for number in range(250):
        client.track("u1", number, {"text": "x" * 10_000})  # type: ignore[arg-type]
    client.close()
    assert [message.event for message in hub.log.messages()] == list(range(250))
    assert errors == []
    assert BATCH_BYTES // 10_000 < 100, "bytes, not events, bound these batches"


@pytest.mark.spec("E040", "E036")
def test_what_could_not_be_taken_comes_again(hub: Hub, errors: Errors) -> None:
    statuses: list[int] = []

    async def busy(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def noted(message: MutableMapping[str, Any]) -> None:
            if "status" in message:
                statuses.append(message["status"])
                # The wait the server asks for is not this test's matter.
                message["headers"] = [each for each in message["headers"] if each[0] != b"retry-after"]
            await send(message)

        hub.log.failure = OSError("busy") if len(statuses) < 3 else None
        await hub.ingest(scope, receive, noted)

    with served(busy) as port:
        client = connect(port, errors)
        client.track("u1", "Bought")
        assert client.flush(10)
        client.close()
    assert statuses == [503, 503, 503, 200]
    assert errors == []
    assert len(hub.log.records) == 1


@pytest.mark.spec("E040")
def test_retry_after_is_kept_to(hub: Hub, port: int, errors: Errors, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.ingest.replace({"web": source(rate="1/m")})
    client = connect(port, errors)
    waits: list[float] = []

    def wait(delay_s: float | None = None) -> bool:
        waits.append(delay_s or 0)
        hub.clock.time += delay_s or 0
        return False

    client.track("u1", "first")
    assert client.flush(10)
    monkeypatch.setattr(client._stop, "wait", wait)
    client.track("u1", "second")
    assert client.flush(10)
    client.close()
    assert waits == [1.0]
    assert (len(hub.log.records), errors) == (2, [])


@pytest.mark.spec("E040", "E035")
def test_refused_events_are_told_one_by_one(hub: Hub, port: int, errors: Errors) -> None:
    client = connect(port, errors)
    client.track("u1", "good")
    client.track("", "nobody's")
    client.track("u1", "half \ud800 text")
    client.track("u1", "large", {"text": "x" * 70_000})
    assert client.flush(10)
    client.close()
    assert [message.event for message in hub.log.messages()] == ["good"]
    assert errors.events() == ["nobody's", "half \ud800 text", "large"]
    assert [str(error).split(": ")[1] for error, _ in errors] == ["no_id", "invalid_text", "too_large"]


@pytest.mark.spec("E040")
def test_a_batch_refused_as_a_whole_is_told(port: int, errors: Errors) -> None:
    client = Client("wrong", f"http://127.0.0.1:{port}", on_error=errors)
    client.track("u1", "Bought")
    assert client.flush(10)
    client.close()
    assert errors.events() == ["Bought"]
    error = errors[0][0]
    assert isinstance(error, Unsent)
    assert (error.status, error.text) == (401, "invalid write key")


@pytest.mark.spec("E040")
def test_what_cannot_be_written_is_told_at_once(port: int, errors: Errors) -> None:
    client = connect(port, errors)
    assert not client.track("u1", "not a number", {"price": float("nan")})
    endless: dict[str, Any] = {}
    endless["self"] = endless
    assert not client.track("u1", "endless", endless)
    assert errors.events() == ["not a number", "endless"]
    with pytest.raises(TypeError):
        client.track("u1", "x", {}, typo=1)
    client.close()


@pytest.mark.spec("E040")
def test_a_full_queue_and_a_closed_client_are_told(errors: Errors) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(silent.getsockname()[1], errors, queue_events=1, flush_after_s=60, timeout_s=0.2)
        assert client.track("u1", "waits")
        assert not client.track("u1", "too many")
        assert errors.events() == ["too many"]
        client.close(timeout_s=0)
        assert errors.events() == ["too many", "waits"]
        assert not client.track("u1", "late")
        client.close()
    assert errors.events() == ["too many", "waits", "late"]


@pytest.mark.spec("E040")
def test_nobody_there_until_it_gives_up(errors: Errors) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    client = connect(port, errors, give_up_s=0.05)
    client.track("u1", "Bought")
    assert client.flush(10)
    client.close()
    assert errors.events() == ["Bought"]
    assert "no answer" in str(errors[0][0])


@pytest.mark.spec("E040")
def test_flush_has_an_end(errors: Errors) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(silent.getsockname()[1], errors, timeout_s=0.2)
        client.track("u1", "Bought")
        assert not client.flush(0.05)
        client.close(timeout_s=0)
    assert errors.events() == ["Bought"]


def test_an_on_error_that_fails_ends_nothing(port: int, hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    def fails(error: Exception, events: list[Event]) -> None:
        raise RuntimeError("in on_error")

    client = Client(KEY, f"http://127.0.0.1:{port}", on_error=fails)
    client.track("", "bad")
    client.track("u1", "good")
    assert client.flush(10)
    client.close()
    assert "on_error failed" in caplog.text
    assert len(hub.log.records) == 1


def test_without_on_error_it_is_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    client = Client("wrong", f"http://127.0.0.1:{port}")
    client.track("u1", "Bought")
    client.close()
    assert "1 events were not kept: 401: invalid write key" in caplog.text


@pytest.mark.parametrize("host", ["events.example.com", "ftp://x", "http://"])
def test_a_host_that_is_no_url(host: str) -> None:
    with pytest.raises(ValueError, match="host must be a URL"):
        Client(KEY, host)


@pytest.mark.spec("E040")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_dead_thread_left_is_told(port: int) -> None:
    told: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    def leave(error: Exception, events: list[Event]) -> None:
        told.extend(event["event"] for event in events)
        if threading.current_thread() is client._thread:
            sys.exit()

    client = Client(KEY, f"http://127.0.0.1:{port}", on_error=leave, give_up_s=0, flush_after_s=0)
    client.track("u1", "first")
    client._thread.join(10)
    client.track("u1", "second")
    client.close()
    client.close()
    assert told == ["first", "second"]


def run(script: str, port: int) -> str:
    """Run a program with a client of its own; what it printed."""
    head = "import os, signal, sys, threading\nfrom towpath.client import Client\n"
    made = f"client = Client({KEY!r}, 'http://127.0.0.1:{port}', flush_after_s=60, on_error=print)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + made + script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.spec("E040")
def test_what_is_queued_is_sent_when_the_program_ends(hub: Hub, port: int) -> None:
    assert run("client.track('u1', 'last')", port) == ""
    assert [message.event for message in hub.log.messages()] == ["last"]


FORK = """
client.track("u1", "sent before"); client.flush()
client.track("u1", "queued before")
held, done = threading.Event(), threading.Event()
def hold():
    with client._changed:
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    client.track("u2", "of the child")
    sys.exit()
status = os.waitpid(child, 0)[1]
done.set()
holder.join()
client.track("u1", "after")
sys.exit(status != 0)
"""


@pytest.mark.spec("E040")
def test_parent_and_child_of_a_fork_both_send_their_own(hub: Hub, port: int) -> None:
    assert run(FORK, port) == ""
    sent = [message.event for message in hub.log.messages()]
    assert sent == ["sent before", "of the child", "queued before", "after"]


@pytest.mark.spec("E040")
def test_a_fork_while_an_answer_is_awaited(hub: Hub, port: int) -> None:
    script = """
import socket, time
silent = socket.create_server(("127.0.0.1", 0))
client._wire._connection.port = silent.getsockname()[1]
client.track("u1", "on its way")
threading.Thread(target=client.flush, args=(0.01,)).start()
asked = silent.accept()[0]
asked.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n")
while client._wire._connection._HTTPConnection__response is None:
    time.sleep(0.001)
child = os.fork()
if not child:
    signal.alarm(20)
    client.track("u1", "of the child")
    client.close()
    sys.exit()
status = os.waitpid(child, 0)[1]
asked.close()
silent.close()
client.close(timeout_s=0)
sys.exit(status != 0)
"""
    assert run(script, port).count("on its way") == 1, "told by the parent alone"
    assert [message.event for message in hub.log.messages()] == ["of the child"]


@pytest.mark.spec("E040")
def test_a_client_closed_before_a_fork_stays_closed(hub: Hub, port: int) -> None:
    script = """
client.close()
child = os.fork()
if not child:
    client.track("u1", "late")
    client.close()
    sys.exit()
sys.exit(os.waitpid(child, 0)[1] != 0)
"""
    assert run(script, port).startswith("the client is closed [{")
    assert hub.log.records == []


@pytest.mark.spec("E040")
def test_many_threads(hub: Hub, port: int, errors: Errors) -> None:
    client = connect(port, errors)

    def send(user: int) -> None:
        for number in range(100):
            client.track(f"{user}", number)  # type: ignore[arg-type]

    threads = [threading.Thread(target=send, args=(user,)) for user in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    kept = [(message.user_id, message.event) for message in hub.log.messages()]
    assert len(kept) == len(set(kept)) == 800
    for user in range(8):
        assert [event for who, event in kept if who == f"{user}"] == list(range(100))


@pytest.mark.spec("E040")
def test_it_stands_in_for_segments_module(
    hub: Hub, port: int, errors: Errors, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="write_key"):
        analytics.track("u1", "too early")
    monkeypatch.setattr(analytics, "write_key", KEY)
    monkeypatch.setattr(analytics, "host", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(analytics, "on_error", errors)
    analytics.identify("u1", {"email": "a@example.com"})
    analytics.track("u1", "Bought", {"price": 1})
    analytics.page("u1", "Shop", "Cart")
    analytics.screen("u1", "App", "Cart")
    analytics.group("u1", "g1")
    analytics.alias("a1", "u1")
    analytics.flush()
    assert [message.type for message in hub.log.messages()] == KINDS
    analytics.shutdown()
    analytics.shutdown()
    assert (analytics.default_client, errors) == (None, [])
