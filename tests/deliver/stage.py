"""A stage for one connection: the real store, virtual time, and a vendor that answers as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from towpath.connection import Connection
from towpath.deletes import nobody
from towpath.deliver import DeliveryLoop
from towpath.destination import Call, Check, Destination, Ended, Limits, Payload, Scope, Settings
from towpath.http import Exchange, Http, Reply, Request, Undelivered
from towpath.identity import Identity
from towpath.lanes import Item
from towpath.log import Balance, Dead, DeadFilter, Entry, Group
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Message, Trust
from towpath.outcome import Delivered, Outcome, Rejected, Retry, Skipped
from towpath.retry import RetryPolicy
from towpath.testing.fakes import FakeMemory
from towpath.testing.loop import LoopClock

Answer: TypeAlias = Outcome | BaseException | None
POLL_S = 0.05
DAY_S = 86400.0
HOUR_S = 3600.0
DOWN = Retry("503: down", code=503)
OK = Delivered(200)


class Nothing:
    """A network nobody uses: the vendor of these tests is the destination itself."""

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        raise AssertionError(request.url)

    async def close(self) -> None:
        return None


class Vendor(Destination[Settings]):
    """A destination that asks `answer` what becomes of each message, and remembers every attempt.

    `started` and `ended` hold (seconds since the stage began, message id); `calls` the ids of each call;
    `persons` whose each message of a batch was said to be.
    """

    name = "vendor"
    Settings = Settings

    def __init__(self, clock: LoopClock) -> None:
        super().__init__(Settings())
        self.clock = clock
        self.bounds = Limits()
        self.answer: Callable[[Message], Answer] = lambda _: OK
        self.delay_s: Callable[[Message], float] = lambda _: 0.01
        self.checks: Callable[[], Sequence[Check]] = lambda: [Check("credentials", ok=True)]
        self.capability: Callable[[Message], str] = lambda _: ""
        self.batch_answer: Callable[[Sequence[Message]], Outcome | None] = lambda _: None
        self.prepare_fails: Collection[str] = ()
        self.started: list[tuple[float, str]] = []
        self.ended: list[tuple[float, str]] = []
        self.calls: list[list[str]] = []
        self.persons: dict[str, str] = {}
        self.checked_at: list[float] = []

    def limits(self) -> Limits:
        return self.bounds

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        if message.message_id in self.prepare_fails:
            raise ZeroDivisionError("a bug of the destination")
        if message.event == "unsupported":
            return Skipped("unsupported")
        body = {"id": message.message_id}
        return Payload([Call("POST", "/", body)], capability=self.capability(message), data=[message])

    def merge(self, earlier: Payload, later: Payload) -> Payload | None:
        both = [*earlier.data, *later.data]
        if any(message.type != "identify" for message in both):
            return None
        return Payload([Call("POST", "/", {})], capability=earlier.capability, data=both)

    async def deliver(self, payload: Payload, scope: Scope) -> Delivered | None:
        await self._send(payload.data)
        self._raise(answer := self.answer(payload.data[-1]))
        return answer if isinstance(answer, Delivered) else None

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        messages = [message for payload in payloads for message in payload.data]
        self.persons |= {message.message_id: each.person for each in payloads for message in each.data}
        await self._send(messages)
        self._raise(self.batch_answer(messages))
        return [self._ended(payload.data[-1]) for payload in payloads]

    def _ended(self, message: Message) -> Ended:
        try:
            self._raise(answer := self.answer(message))
        except Exception as error:
            return error
        return answer if isinstance(answer, Delivered) else OK

    async def check(self, scope: Scope) -> Sequence[Check]:
        self.checked_at.append(self.clock.monotonic())
        await asyncio.sleep(0.2)
        return self.checks()

    async def _send(self, messages: Sequence[Message]) -> None:
        ids = [message.message_id for message in messages]
        self.calls.append(ids)
        self.started += [(self.clock.monotonic(), name) for name in ids]
        await asyncio.sleep(max(self.delay_s(message) for message in messages))
        self.ended += [(self.clock.monotonic(), name) for name in ids]

    @staticmethod
    def _raise(answer: Answer) -> None:
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None and not isinstance(answer, Delivered):
            status = getattr(answer, "code", 0)
            raise Undelivered(answer, Exchange("POST", "http://vendor/", "{}", status, "no"))

    def attempts(self, name: str) -> list[float]:
        """When a message was sent, in seconds since the stage began."""
        return [at for at, known in self.started if known == name]

    def order(self) -> list[str]:
        """Message ids in the order of their attempts."""
        return [name for _, name in self.started]


class Stage:
    """One source `web`, one connection `web-vendor`, everything kept in a directory of the test."""

    def __init__(self, directory: Path, seed: int = 0, **connection: Any) -> None:
        self.directory = directory
        self.clock = LoopClock(asyncio.get_running_loop(), seed)
        self.vendor = Vendor(self.clock)
        self.told: list[tuple[str, Outcome]] = []
        self.suppressed: set[str] = set()
        self.policy = RetryPolicy()
        self.window = 4096
        self.links_max = 500
        self.memory = FakeMemory()
        self.persons: Callable[[], Awaitable[int]] = nobody
        given: dict[str, Any] = {"name": "web-vendor", "sources": frozenset({"web"}), "start": "earliest"}
        given |= {"destination_name": "vendor", "destination": self.vendor}
        self.connection = Connection(**{**given, **connection})
        self.store: SqliteStore
        self.loop: DeliveryLoop
        self.task: asyncio.Task[None] | None = None

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self.store = await SqliteStore.begin(self.directory, self.clock, inline=True, durable=False)
        await self.store.connect(self.connection.name, self.connection.sources, "earliest")
        self.identity = Identity(self.store, links_max=self.links_max)

    async def start(self) -> None:
        """Open the store if need be, and run the loop."""
        if not hasattr(self, "store"):
            await self.open()
        self.loop = self.make_loop()
        self.task = asyncio.create_task(self.loop.run())

    def make_loop(self) -> DeliveryLoop:
        return DeliveryLoop(
            self.connection,
            self.store,
            self.store,
            self.identity,
            Scope(Http(Nothing(), self.clock), self.clock, self.memory),
            policy=self.policy,
            suppressed=lambda message, _: message.user_id in self.suppressed,
            observe=self._observe,
            persons=self.persons,
            window=self.window,
        )

    def _observe(self, connection: str, item: Item, outcome: Outcome) -> None:
        self.told.append((item.message.message_id, outcome))

    async def crash(self) -> None:
        """Everything in memory is gone; the next start goes on from the files."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.close()

    async def stop(self) -> None:
        """Stop gracefully and close."""
        await self.loop.stop()
        if self.task is not None:
            await self.task
        await self.close()

    async def close(self) -> None:
        await self.store.close()
        del self.store

    # -- traffic ---------------------------------------------------------------------------------------

    async def send(self, *names: str, person: str | None = "ann", **fields: Any) -> None:
        """Append track calls of a person, or what `fields` make of them."""
        for name in names:
            fields_ = {"type": "track", "event": "Seen", "userId": person, "messageId": name, **fields}
            await self.append(fields_)

    async def append(self, fields: dict[str, Any], *, source: str = "web", trust: Trust = "server") -> None:
        raw = msgspec.json.encode({key: value for key, value in fields.items() if value is not None})
        envelope = Envelope(source, self.clock.now(), trust)
        await self.store.append([Group(envelope, [Entry(fields["messageId"], raw)])])

    async def identify(self, name: str, user: str, anonymous: str | None = None, **more: Any) -> None:
        fields = {"type": "identify", "messageId": name, "userId": user, "anonymousId": anonymous, **more}
        await self.append(fields)

    # -- waiting ---------------------------------------------------------------------------------------

    async def until(
        self, condition: Callable[[], bool | Awaitable[bool]], most_s: float = 30 * DAY_S
    ) -> None:
        """Let virtual time pass until something holds."""
        step_s = POLL_S
        deadline_s = self.clock.monotonic() + most_s
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            self.raise_what_failed()
            assert self.clock.monotonic() < deadline_s, "it never came"
            await asyncio.sleep(step_s)
            step_s = min(step_s * 1.1, 120.0)

    def raise_what_failed(self) -> None:
        if self.task is not None and self.task.done() and (error := self.task.exception()) is not None:
            raise error

    async def drained(self) -> None:
        """Wait until nothing is waiting any more."""

        async def nothing_waits() -> bool:
            (balance,) = await self.store.balance()
            assert balance.difference == 0
            return balance.waiting == 0

        await self.until(nothing_waits)
        await self.balance()

    async def pass_s(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.raise_what_failed()

    # -- what became of it -----------------------------------------------------------------------------

    async def balance(self) -> Balance:
        """The balance, which must be even and equal to its recount."""
        (kept,), (counted,) = await self.store.balance(), await self.store.balance(recount=True)
        assert kept == counted
        assert kept.difference == 0
        return kept

    async def dead(self) -> list[Dead]:
        return list(await self.store.dead(DeadFilter()))

    async def rows(self) -> list[str]:
        """Message ids of the parked rows."""
        return [row.record.message_id for _, row in await self.store.waiting(None, 100_000)]
