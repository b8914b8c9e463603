"""Python client: queue events, send them in batches from one background thread, never lose one silently.

    from towpath.client import Client
    client = Client("wk_web", "https://events.example.com")
    client.track("u1", "Bought", {"price": 3.5})

or, where Segment's library was used: `import towpath.client as analytics`, set `analytics.write_key` and
`analytics.host`, and call `analytics.track(…)` as before.
"""

from __future__ import annotations

import atexit
import base64
import gzip
import http.client
import json
import logging
import os
import random
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

Event: TypeAlias = dict[str, Any]
Fields: TypeAlias = Mapping[str, Any] | None
OnError: TypeAlias = Callable[[Exception, list[Event]], object]

BATCH_BYTES = 500_000
BATCH_EVENTS = 100
LONGEST_WAIT_S = 300.0
_RETRYABLE = frozenset({408, 425, 429})

_log = logging.getLogger("towpath.client")


class Unsent(Exception):
    """Events that were not kept: the last answer's `status` and `text`, or 0 and why none came."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(f"{status}: {text}" if status else text)
        self.status = status
        self.text = text


class _Later(Exception):
    """The batch may be taken later; `after_s` is the server's wish."""

    def __init__(self, error: Unsent, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


class Client:
    """Sends events for one write key; safe to use from many threads.

    `on_error(error, events)` hears of every event that was not kept, from the background thread or the
    caller's; without it they are logged. `give_up_s` is how long one batch is tried, `backoff_s` the first
    wait between tries. After a fork both processes may go on: what was queued before stays the parent's.
    """

    def __init__(
        self,
        write_key: str,
        host: str = "http://127.0.0.1:8080",
        *,
        on_error: OnError | None = None,
        flush_after_s: float = 0.5,
        queue_events: int = 100_000,
        timeout_s: float = 15.0,
        give_up_s: float = 12 * 3600.0,
        backoff_s: float = 0.5,
    ) -> None:
        self._connect = partial(_Wire, write_key, host, timeout_s)
        self._on_error = on_error
        self._flush_after_s = flush_after_s
        self._queue_events = queue_events
        self._give_up_s = give_up_s
        self._backoff_s = backoff_s
        self._closing = False
        self._begin()
        atexit.register(self.close, 10.0)
        _clients.add(self)

    def _begin(self) -> None:
        self._wire = self._connect()
        self._queue: deque[bytes] = deque()
        self._sending = 0
        self._hurry = False
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="towpath-client", daemon=True)
        if not self._closing:
            self._thread.start()

    def _begin_again(self) -> None:
        """Start afresh in a forked child: it has no thread, and locks and socket are as the parent's were."""
        self._wire.abandon()
        self._begin()

    def identify(self, user_id: str | None = None, traits: Fields = None, **more: Any) -> bool:
        """Say who a person is. Returns whether the event was queued, as all calls do; else `on_error` has it.

        All calls also take anonymous_id, context, timestamp, integrations and message_id.
        """
        return self._call("identify", more, userId=user_id, traits=traits or {})

    def track(
        self, user_id: str | None = None, event: str = "", properties: Fields = None, **more: Any
    ) -> bool:
        """Say what a person did."""
        return self._call("track", more, userId=user_id, event=event, properties=properties or {})

    def page(
        self,
        user_id: str | None = None,
        category: str | None = None,
        name: str | None = None,
        properties: Fields = None,
        **more: Any,
    ) -> bool:
        """Say which page a person saw."""
        shown = {"category": category, "name": name, "properties": properties or {}}
        return self._call("page", more, userId=user_id, **shown)

    def screen(
        self,
        user_id: str | None = None,
        category: str | None = None,
        name: str | None = None,
        properties: Fields = None,
        **more: Any,
    ) -> bool:
        """Say which screen a person saw."""
        shown = {"category": category, "name": name, "properties": properties or {}}
        return self._call("screen", more, userId=user_id, **shown)

    def group(
        self, user_id: str | None = None, group_id: str = "", traits: Fields = None, **more: Any
    ) -> bool:
        """Say which group a person belongs to."""
        return self._call("group", more, userId=user_id, groupId=group_id, traits=traits or {})

    def alias(self, previous_id: str, user_id: str, **more: Any) -> bool:
        """Say that `previous_id` is the same person as `user_id`."""
        return self._call("alias", more, previousId=previous_id, userId=user_id)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Send what is queued now; True once nothing is waiting, False when the time is over before."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._queue and not self._sending, timeout_s)

    def close(self, timeout_s: float = 30.0) -> None:
        """Send what is queued, at most this long, and end; what is left goes to `on_error`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:  # it is where a closed client was forked
            self._thread.join(timeout_s)
            self._stop.set()
            self._thread.join()
        self._wire.close()
        atexit.unregister(self.close)
        # Whatever ended the thread early, `sys.exit` in `on_error` for one, left these behind.
        if left := [*self._queue]:
            self._queue.clear()
            self._lost(Unsent("the client was closed before it could be sent"), _events(left))

    def _call(self, kind: str, more: Mapping[str, Any], **fields: Any) -> bool:
        event = _event(kind, fields, **more)
        try:
            raw = json.dumps(event, default=_plain, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return self._lost(Unsent(f"event is no JSON: {error}"), [event])
        with self._changed:
            if not self._closing and len(self._queue) < self._queue_events:
                self._queue.append(raw)
                self._changed.notify_all()
                return True
        return self._lost(Unsent("the client is closed" if self._closing else "the queue is full"), [event])

    def _lost(self, error: Exception, events: list[Event]) -> Literal[False]:
        if self._on_error is None:
            _log.error("%d events were not kept: %s", len(events), error)
            return False
        try:
            self._on_error(error, events)
        except Exception:
            _log.exception("on_error failed for %d events: %s", len(events), error)
        return False

    # The background thread

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._deliver(batch)
            except Exception as error:  # a bug must not end the thread with events in the queue
                self._lost(error, _events(batch))
            with self._changed:
                self._sending = 0
                self._changed.notify_all()

    def _next(self) -> list[bytes]:
        """Wait for events, then a little for more; empty when the client is closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            full = lambda: self._hurry or self._closing or len(self._queue) >= BATCH_EVENTS  # noqa: E731
            self._changed.wait_for(full, self._flush_after_s)
            batch: list[bytes] = []
            size = 0
            while (
                self._queue
                and len(batch) < BATCH_EVENTS
                and (not batch or size + len(self._queue[0]) < BATCH_BYTES - 200)
            ):
                batch.append(self._queue.popleft())
                size += len(batch[-1]) + 1
            self._hurry = self._hurry and bool(self._queue)
            self._sending = len(batch)
            return batch

    def _deliver(self, batch: list[bytes]) -> None:
        started, wait_s = time.monotonic(), self._backoff_s
        if self._stop.is_set():
            self._lost(Unsent("the client was closed before it could be sent"), _events(batch))
            return None
        while True:
            try:
                return self._report(batch, self._wire.send(batch))
            except Unsent as error:
                self._lost(error, _events(batch))
                return None
            except _Later as later:
                chosen = min(later.after_s or wait_s * random.uniform(0.5, 1), LONGEST_WAIT_S)  # noqa: S311 jitter
                if time.monotonic() - started + chosen > self._give_up_s or self._stop.wait(chosen):
                    self._lost(later.error, _events(batch))
                    return None
                wait_s = min(wait_s * 2, 60.0)

    def _report(self, batch: list[bytes], refused: Iterable[Mapping[str, Any]]) -> None:
        """Tell `on_error` which events of an accepted batch the server refused."""
        for item in refused:
            index = item.get("index")
            events = _events(batch[index : index + 1]) if isinstance(index, int) and index >= 0 else []
            self._lost(Unsent(f"{item.get('code')}: {item.get('reason')}", 200), events)


class _Wire:
    """The connection: one batch, one answer."""

    def __init__(self, write_key: str, host: str, timeout_s: float) -> None:
        url = urlsplit(host)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"host must be a URL like https://events.example.com, not {host!r}")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(url.hostname, url.port, timeout=timeout_s)
        self._path = url.path.rstrip("/") + "/v1/batch"
        key = base64.b64encode(f"{write_key}:".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {key}",
            "Content-Encoding": "gzip",
            "Content-Type": "application/json",
            "User-Agent": "towpath-python",
        }

    def send(self, batch: list[bytes]) -> list[Mapping[str, Any]]:
        """Post a batch; returns the items refused. Raises `Unsent` for good, `_Later` for now."""
        body = b'{"batch":[' + b",".join(batch) + b'],"sentAt":"' + _now().encode() + b'"}'
        try:
            self._connection.request("POST", self._path, gzip.compress(body, 6), self._headers)
            answer = self._connection.getresponse()
            said = answer.read(4 << 20)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise _Later(Unsent(f"no answer: {str(error) or type(error).__name__}")) from error
        if answer.status == 200:
            return _refused(said)
        problem = Unsent(said.decode(errors="replace")[:500].strip(), answer.status)
        if answer.status in _RETRYABLE or answer.status >= 500:
            raise _Later(problem, _seconds(answer.getheader("Retry-After")))
        raise problem

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def abandon(self) -> None:
        """Let the socket go in a forked child.

        Not by `close`: an answer that the parent's thread was reading at the fork is locked for ever here.
        """
        if self._connection.sock is not None:
            self._connection.sock.close()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _begin_again() -> None:
    global _creating  # noqa: PLW0603 a lock held at the fork stays held in the child
    _creating = threading.Lock()
    for client in [*_clients]:
        client._begin_again()  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_again)


def _event(
    kind: str,
    fields: Mapping[str, Any],
    *,
    anonymous_id: str | None = None,
    context: Fields = None,
    timestamp: datetime | str | None = None,
    integrations: Fields = None,
    message_id: str | None = None,
) -> Event:
    library = {"library": {"name": "towpath-python"}}
    given = {"anonymousId": anonymous_id, "integrations": integrations, **fields}
    return {
        "type": kind,
        "messageId": message_id or str(uuid.uuid4()),
        "timestamp": timestamp or _now(),
        "context": {**library, **(context or {})},
        **{name: value for name, value in given.items() if value is not None},
    }


def _plain(value: object) -> object:
    """What JSON does not know, as the SDKs write it."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.astimezone().isoformat()  # a naive time is local time
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _events(batch: Iterable[bytes]) -> list[Event]:
    return [json.loads(raw) for raw in batch]


def _refused(said: bytes) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(said)
    except ValueError:
        return []
    return found.get("refused", []) if isinstance(found, dict) else []


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.strip().isdecimal() else None


# Segment's module-level interface

write_key: str | None = None
host = "http://127.0.0.1:8080"
on_error: OnError | None = None
default_client: Client | None = None
_creating = threading.Lock()


def _default() -> Client:
    global default_client  # noqa: PLW0603 this is the interface it stands in for
    with _creating:
        if default_client is None:
            if not write_key:
                raise ValueError("set towpath.client.write_key first")
            default_client = Client(write_key, host, on_error=on_error)
        return default_client


def identify(*args: Any, **more: Any) -> bool:
    """Call `Client.identify` of the default client."""
    return _default().identify(*args, **more)


def track(*args: Any, **more: Any) -> bool:
    """Call `Client.track` of the default client."""
    return _default().track(*args, **more)


def page(*args: Any, **more: Any) -> bool:
    """Call `Client.page` of the default client."""
    return _default().page(*args, **more)


def screen(*args: Any, **more: Any) -> bool:
    """Call `Client.screen` of the default client."""
    return _default().screen(*args, **more)


def group(*args: Any, **more: Any) -> bool:
    """Call `Client.group` of the default client."""
    return _default().group(*args, **more)


def alias(*args: Any, **more: Any) -> bool:
    """Call `Client.alias` of the default client."""
    return _default().alias(*args, **more)


def flush() -> None:
    """Send what is queued and wait for it."""
    _default().flush()


def join() -> None:
    """End the default client; the next call makes a new one."""
    global default_client
    with _creating:
        client, default_client = default_client, None
    if client is not None:
        client.close()


def shutdown() -> None:
    """Send what is queued and end."""
    join()
