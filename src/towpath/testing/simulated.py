"""Who plays in the simulation: the oracle of who is who, vendors that lie, and a wire that can be cut."""

# ruff: noqa: D102 - a vendor has the methods of a destination
from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from towpath.destination import Call, Check, Destination, Limits, Payload, Scope, Settings
from towpath.http import Reply, Request, Undelivered
from towpath.log import Lease, Settlement
from towpath.log.sqlite import SqliteStore
from towpath.message import Message, Record
from towpath.outcome import Delivered, Outcome, Paused, Rejected, Retry, Skipped

if TYPE_CHECKING:
    from .simulation import World

LONGEST_CALL_S = 25.0


class People:
    """Who belongs together, written down from the rules alone: the oracle of order.

    A group is the list of positions of one history. `before[position]` are those that must have ended first.
    """

    def __init__(self) -> None:
        self.before: dict[int, tuple[int, ...]] = {}
        self.after: defaultdict[int, list[int]] = defaultdict(list)
        self._user_group: dict[str, list[int]] = {}
        self._device_group: dict[str, list[int]] = {}
        self._device_user: dict[str, str] = {}
        self._other_name: dict[str, str] = {}

    def add(self, position: int, fields: dict[str, Any], *, trusted: bool) -> None:
        """Take the next message of the log."""
        user, device, previous = fields.get("userId"), fields.get("anonymousId"), fields.get("previousId")
        if fields["type"] == "identify" and user and device:
            self._owns(user, device)
        if fields["type"] == "alias" and user and previous:
            if trusted:
                self._same(previous, user)
                self._owns(user, previous)
            elif previous == device:
                self._owns(user, device)
        group = self._of_user(user) if user else self._of_device(device)
        self.before[position] = tuple(group)
        for earlier in group:
            self.after[earlier].append(position)
        group.append(position)

    def _root(self, user: str) -> str:
        while user in self._other_name:
            user = self._other_name[user]
        return user

    def _of_user(self, user: str) -> list[int]:
        return self._user_group.setdefault(self._root(user), [])

    def _of_device(self, device: str | None) -> list[int]:
        if (user := self._device_user.get(str(device))) is not None:
            return self._of_user(user)
        return self._device_group.setdefault(str(device), [])

    def _owns(self, user: str, device: str) -> None:
        """A device's first user takes over its history; later users only what follows."""
        if device not in self._device_user:
            self._of_user(user).extend(self._device_group.pop(device, []))
        self._device_user[device] = user

    def _same(self, previous: str, user: str) -> None:
        old, new = self._root(previous), self._root(user)
        if old != new:
            self._user_group.setdefault(new, []).extend(self._user_group.pop(old, []))
            self._other_name[old] = new


class Vendor(Destination[Settings]):
    """A simulated vendor: slow, down, limiting, refusing or forgetful, by phases the world sets."""

    name = "vendor"
    Settings = Settings

    def __init__(self, world: World, label: str, limits: Limits) -> None:
        super().__init__(Settings())
        self.world = world
        self.label = label
        self.bounds = limits
        self.phase = "fine"
        self.effects: Counter[int] = Counter()
        self.last_effect: dict[int, int] = {}
        self.working: dict[asyncio.Future[list[Outcome | None]], Sequence[Payload]] = {}
        self.excused: Counter[int] = Counter()
        self.open_calls: Counter[int] = Counter()
        self.refused: set[int] = set()
        self.tried: set[int] = set()
        self.doubted = False  # two loops may be calling: one of them cannot say what it did

    def limits(self) -> Limits:
        return self.bounds

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        if message.event == "unsupported":
            return Skipped("unsupported")
        position = self.world.position_of[message.source, message.message_id]
        capability = "people" if message.type == "identify" else "events"
        return Payload([Call("POST", "/", {"n": position})], capability=capability, data=[message])

    def merge(self, earlier: Payload, later: Payload) -> Payload | None:
        both = [*earlier.data, *later.data]
        if any(message.type != "identify" for message in both):
            return None
        return Payload([Call("POST", "/", {})], capability=earlier.capability, data=both)

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        (outcome,) = await self._call([payload])
        if outcome is not None:
            raise Undelivered(outcome)

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Outcome]:
        poisoned = any(message.event == "poison" for payload in payloads for message in payload.data)
        if poisoned and self.world.random.random() < 0.5:
            raise Undelivered(Rejected("400: one of these", 400))
        return [outcome or Delivered(200) for outcome in await self._call(payloads)]

    async def check(self, scope: Scope) -> Sequence[Check]:
        await asyncio.sleep(self.world.random.uniform(0, 1))
        return [Check("people", ok=self.phase != "refusing", capability="people"), Check("account", ok=True)]

    async def _call(self, payloads: Sequence[Payload]) -> list[Outcome | None]:
        """One call: it goes on at the vendor, also when the caller is gone."""
        positions = [self._position(message) for payload in payloads for message in payload.data]
        for position in positions:
            self.world.starts(self, position)
            self.open_calls[position] += 1
        working = asyncio.ensure_future(self._work(payloads))
        self.working[working] = payloads
        working.add_done_callback(lambda _: self._worked(working, positions))
        return await asyncio.shield(working)

    def _worked(self, working: asyncio.Future[list[Outcome | None]], positions: list[int]) -> None:
        del self.working[working]
        self.open_calls.subtract(positions)

    async def _work(self, payloads: Sequence[Payload]) -> list[Outcome | None]:
        await asyncio.sleep(self._delay_s())
        return self._decide_all(payloads)

    def _decide_all(self, payloads: Sequence[Payload]) -> list[Outcome | None]:
        """Decide in order; one that keeps the order in a batch stops at the first that may work later."""
        outcomes: list[Outcome | None] = []
        for payload in payloads:
            stopped = self.bounds.ordered_batch and outcomes and isinstance(outcomes[-1], Retry | Paused)
            outcomes.append(outcomes[-1] if stopped else self._decide(payload))
        return outcomes

    def hang_up(self) -> None:
        """The caller died: what it asked for happens at once or never, and nobody hears of it."""
        for working, payloads in list(self.working.items()):
            working.cancel()
            if self.world.random.random() < 0.5:
                self._decide_all(payloads)

    def _delay_s(self) -> float:
        chance = self.world.random
        return chance.uniform(1, LONGEST_CALL_S) if self.phase == "slow" else chance.uniform(0.001, 0.3)

    def _decide(self, payload: Payload) -> Outcome | None:
        chance, messages = self.world.random, payload.data
        if any(message.event == "poison" for message in messages):
            self.refused.update(self._position(message) for message in messages if message.event == "poison")
            return Rejected("422: poison", 422)
        if self.phase == "down" or (self.phase == "flaky" and chance.random() < 0.4):
            return Retry("503: down", chance.choice([None, None, 3.0, 90.0]), code=503)
        if self.phase == "limiting" and chance.random() < 0.5:
            return Retry("429: slow down", chance.choice([None, 7.0, 70.0]), throttled=True, code=429)
        if self.phase == "refusing" and payload.capability == "people":
            return Paused("401: bad key", 401)
        for message in messages:
            self._commit(self._position(message))
        if self.phase == "forgetful" and chance.random() < 0.3:
            self.excused.update(self._position(message) for message in messages)
            return Retry("timed out")
        return None

    def _commit(self, position: int) -> None:
        self.effects[position] += 1
        if self.doubted:
            self.excused[position] += 1
        self.last_effect[position] = self.effects.total()
        self.world.took_effect(self, position)

    def _position(self, message: Message) -> int:
        return self.world.position_of[message.source, message.message_id]


class Wire:
    """One loop's way to log and ledger. While it is cut, no lease is renewed, and settlements arrive late.

    Reading takes `read_s` and brings few records at a time.
    """

    def __init__(
        self, store: SqliteStore, settled: Callable[[Lease, Settlement], None], read_s: float
    ) -> None:
        self._store = store
        self._read_s = read_s
        self._settled = settled
        self.through = asyncio.Event()
        self.through.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        await asyncio.sleep(self._read_s)
        return await self._store.read(after, min(limit, 5) if self._read_s else limit, partition)

    async def lease(self, connection: str, owner: str, ttl_s: float, partition: int = 0) -> Lease | None:
        if not self.through.is_set():
            raise OSError("the ledger cannot be reached")
        return await self._store.lease(connection, owner, ttl_s, partition)

    async def settle(self, lease: Lease, settlement: Settlement) -> bool:
        await self.through.wait()
        kept = await self._store.settle(lease, settlement)
        if kept:
            self._settled(lease, settlement)
        return kept


class Nowhere:
    """A network nobody uses."""

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        raise AssertionError(request.url)

    async def close(self) -> None:
        return None
