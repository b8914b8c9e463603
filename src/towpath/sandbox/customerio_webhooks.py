"""Reporting webhooks of the simulated Customer.io: signed, in order, behind a failed one for up to a week."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Struct

from .customerio_state import CustomerIoState, Person, Record, ulid

if TYPE_CHECKING:
    from towpath.http import Transport

SIGNING_KEY = "sandbox-signing-key"
TIMEOUT_S = 4.0
KEPT_S = 7 * 86_400
HOUR_S = 3600
FIRST_RETRY_S = 10.0
"""Customer.io says "exponential backoff" without numbers; this and the factor of two are ours."""
AN_HOUR_FOR = frozenset({400, 401, 402, 403, 404, 405, 410, 429, 500, 502, 521})
CUSTOMER_EVENTS = {
    "subscribed": "customer_subscribed",
    "unsubscribed": "customer_unsubscribed",
    "cio_subscription_preferences_changed": "customer_subscription_preferences_changed",
}
_METRICS = {
    "email": "drafted attempted sent delivered opened clicked converted unsubscribed bounced dropped spammed "
    "failed undeliverable deferred",
    "push": "drafted attempted sent delivered opened clicked converted bounced dropped failed undeliverable",
    "in_app": "drafted attempted sent opened clicked converted failed undeliverable",
    "sms": "drafted attempted sent delivered clicked converted bounced failed undeliverable replied dropped",
    "whatsapp": "drafted attempted sent delivered opened clicked converted bounced failed undeliverable "
    "replied dropped",
    "slack": "drafted attempted sent clicked failed undeliverable converted",
    "webhook": "drafted attempted sent clicked failed undeliverable converted",
}
EVENTS = frozenset(CUSTOMER_EVENTS.values()) | {
    f"{channel}_{metric}" for channel, metrics in _METRICS.items() for metric in metrics.split()
}
_ONCE = frozenset({"opened", "clicked"})

Post: TypeAlias = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]
"""Posts a body, returns the status. Raises `TimeoutError` after 4 s, `OSError` for no or a cut connection."""


class Attempt(Struct, frozen=True):
    """One POST to an endpoint; status 0 is no answer. `at` is Unix seconds."""

    endpoint: str
    event_id: str
    status: int
    at: float


class _Waiting(Struct):
    event_id: str
    body: bytes
    since: float
    stamp: int
    attempts: int = 0


class _Queue(Struct):
    webhooks: deque[_Waiting] = msgspec.field(default_factory=deque)
    due: float = 0.0
    seen: set[tuple[str, str]] = set()


class Webhooks:
    """Sends what happens to the endpoints in `state.reporting_webhooks`, to each in order.

    `emit` queues one; `deliver` posts all that is due by the clock and stops at an endpoint's first failure;
    `sending` does so by itself while a block runs. `sent` are the attempts, `given_up` counts what a week was
    not enough for. `post` takes the place of the network in tests.
    """

    def __init__(self, state: CustomerIoState, *, signing_key: str = SIGNING_KEY) -> None:
        self.signing_key = signing_key
        self.sent: list[Attempt] = []
        self.given_up = 0
        self.post: Post | None = None
        self._state = state
        self._queues: dict[int, _Queue] = {}
        self._woken = asyncio.Event()
        state.notify = self._notified

    def emit(self, object_type: str, metric: str, person: Person | None = None, **data: Any) -> str:
        """Queue an event about a person for every endpoint that asked for it; returns its event_id."""
        now = self._state.clock.now()
        event_id = ulid(self._state.serial(), now)
        known = {} if person is None else _known(person)
        for webhook in self._state.reporting_webhooks:
            if _wants(webhook, object_type, metric):
                queue = self._queues.setdefault(webhook["id"], _Queue())
                self._queue(queue, webhook, event_id, object_type, metric, {**known, **data})
        self._woken.set()
        return event_id

    def waiting(self) -> int:
        """How many webhooks no endpoint has taken yet."""
        return sum(len(queue.webhooks) for queue in self._queues.values())

    def due(self) -> float | None:
        """When the next is to be posted, in Unix seconds; None when none waits."""
        return min((queue.due for queue in self._queues.values() if queue.webhooks), default=None)

    async def deliver(self) -> None:
        """Post what is due. A failure keeps the endpoint's later webhooks behind the failed one."""
        due = self.due()
        if due is None or due > self._state.clock.now():
            return
        if self.post is not None:
            await self._deliver(self.post)
            return
        from towpath.transport import PyreqwestTransport  # the sandbox starts without it

        transport = PyreqwestTransport()
        try:
            await self._deliver(_posting(transport))
        finally:
            await transport.close()

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Post whatever is due while the block runs."""
        task = asyncio.create_task(self._send_on())
        try:
            yield
        finally:
            while not task.done():  # a request under way may swallow the first cancellation
                task.cancel()
                await asyncio.wait([task], timeout=0.1)

    async def _send_on(self) -> None:
        while True:
            self._woken.clear()
            await self.deliver()
            due = self.due()
            waits = [asyncio.ensure_future(self._woken.wait())]
            if due is not None:
                delay_s = max(0.0, due - self._state.clock.now())
                waits.append(asyncio.ensure_future(self._state.clock.sleep(delay_s)))  # type: ignore[arg-type]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def _notified(self, object_type: str, metric: str, person: Person, more: Mapping[str, Any]) -> None:
        data = {name: msgspec.json.encode(value).decode() for name, value in more.items()}
        self.emit(object_type, metric, person, email_address=person.attributes.get("email", ""), **data)

    def _queue(
        self,
        queue: _Queue,
        webhook: Record,
        event_id: str,
        object_type: str,
        metric: str,
        data: dict[str, Any],
    ) -> None:
        if metric in _ONCE and not webhook.get("full_resolution"):
            key = (str(data.get("delivery_id", event_id)), metric)
            if key in queue.seen:
                return
            queue.seen.add(key)
        if metric == "sent" and not webhook.get("with_content"):
            data = {name: value for name, value in data.items() if name not in {"content", "headers"}}
        now = self._state.clock.now()
        event = {"event_id": event_id, "object_type": object_type, "metric": metric, "timestamp": int(now)}
        body = msgspec.json.encode({**event, "data": data})
        queue.webhooks.append(_Waiting(event_id, body, now, int(now)))

    async def _deliver(self, post: Post) -> None:
        for webhook in list(self._state.reporting_webhooks):
            queue = self._queues.get(webhook["id"])
            while queue is not None and queue.webhooks and queue.due <= self._state.clock.now():
                await self._attempt(post, str(webhook["endpoint"]), queue)

    async def _attempt(self, post: Post, endpoint: str, queue: _Queue) -> None:
        first = queue.webhooks[0]
        if first.attempts == 0 or self._state.switches.restamp:
            first.stamp = int(self._state.clock.now())
        broken = False
        try:
            status = await post(endpoint, self.headers(first.stamp, first.body), first.body)
        except TimeoutError:
            status = 0
        except OSError:
            status, broken = 0, True
        self.sent.append(Attempt(endpoint, first.event_id, status, self._state.clock.now()))
        first.attempts += 1
        if 200 <= status < 300:
            queue.webhooks.popleft()
            queue.due = 0.0
        else:
            self._put_off(queue, first, an_hour=broken or status in AN_HOUR_FOR)

    def _put_off(self, queue: _Queue, first: _Waiting, *, an_hour: bool) -> None:
        now = self._state.clock.now()
        delay_s = HOUR_S if an_hour else min(FIRST_RETRY_S * 2 ** (first.attempts - 1), HOUR_S)
        queue.due = now + delay_s
        if queue.due > first.since + KEPT_S:
            queue.webhooks.popleft()
            queue.due = 0.0
            self.given_up += 1

    def headers(self, stamp: int, body: bytes) -> dict[str, str]:
        """Sign a body: hex HMAC-SHA256 of `v0:<stamp>:<body>`; `stamp` is Unix seconds."""
        text = f"v0:{stamp}:".encode() + body
        signature = hmac.new(self.signing_key.encode(), text, hashlib.sha256).hexdigest()
        return {
            "content-type": "application/json",
            "x-cio-timestamp": str(stamp),
            "x-cio-signature": signature,
        }


def _wants(webhook: Record, object_type: str, metric: str) -> bool:
    wanted = {f"{object_type}_{metric}", CUSTOMER_EVENTS.get(metric)}
    return not webhook.get("disabled") and bool(wanted.intersection(webhook["events"]))


def _known(person: Person) -> dict[str, Any]:
    return {"customer_id": person.attributes.get("id", ""), "identifiers": dict(person.identifiers)}


def _posting(transport: Transport) -> Post:
    from towpath.http import Request, TransportError

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        request = Request("POST", url, headers, body)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await transport.send(request, timeout_s=2 * TIMEOUT_S)
        except TransportError as error:
            raise ConnectionError(str(error)) from error
        return reply.status

    return post
