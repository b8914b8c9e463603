"""A source's way into the log: what it heard becomes messages, in turn, and is remembered once it is kept."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from .clock import Clock
from .log import Entry, Group, Log, Refused
from .message import Envelope, Message, Trust
from .source import Heard, Ignored, Known, Malformed, State, Unfit
from .state.known import Fact, KnownFacts, Turn

MOST_AT_ONCE = 64

Make: TypeAlias = Callable[[Known], Iterable[Heard]]
"""What was heard as messages: called in its turn, off the loop, with what is known by then."""


class Unmade(Exception):
    """What was heard could not be made into messages: the fault is in towpath. Says where."""


class Fed(Struct):
    """What became of something heard: messages for the log, things unfit, things ignored by reason."""

    messages: int = 0
    unfit: int = 0
    ignored: Mapping[str, int] = {}


class _Kept(Struct, omit_defaults=True, rename="camel"):
    """A message as it stands in the log: the spec's fields that it has."""

    type: str = ""
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    group_id: str | None = None
    event: Any = None
    name: Any = None
    category: Any = None
    properties: Any = None
    traits: dict[str, Any] = {}
    context: dict[str, Any] = {}
    integrations: dict[str, Any] | bool | None = None
    timestamp: Any = None


class _Waiting(Struct, eq=False):
    make: Make
    ip: str
    state: State | None
    ended: asyncio.Future[Fed]


class _Made(Struct):
    """One thing heard, made into what the log takes."""

    group: Group
    refused: list[Refused]
    fed: Fed


class _Journal(Struct, frozen=True, omit_defaults=True):
    """What a turn learnt, as the log keeps it with the turn's messages until it is remembered.

    `state` is where the source's listener goes on, which is kept here alone.
    """

    turn: int
    changes: dict[str, Fact | None] = {}
    state: dict[str, Any] = {}


class Feed:
    """Feeds one source's log. What comes while a turn is written goes into the next turn together.

    What a turn learnt is in the log with its messages, so that a crash before it is remembered loses nothing:
    `recover` remembers it then. `counts` are what was ignored since the start, by reason; `state` is where
    the source's listener goes on.
    """

    def __init__(self, source: str, trust: Trust, log: Log, facts: KnownFacts, clock: Clock) -> None:
        self.source = source
        self.trust: Trust = trust
        self.counts: Counter[str] = Counter()
        self.state: State = {}
        self.facts = facts
        self._log = log
        self._clock = clock
        self._turn = 0
        self._queue: list[_Waiting] = []
        self._turns: asyncio.Task[None] | None = None

    async def recover(self) -> None:
        """Remember what the last turn learnt, where a crash came before that; to be called first of all."""
        journal = msgspec.convert(await self._log.source_state(self.source) or {"turn": 0}, _Journal)
        self.state = journal.state
        self._turn = max(journal.turn, await asyncio.to_thread(self.facts.turns))
        await asyncio.to_thread(self.facts.recover, journal.changes, journal.turn)

    async def forget_journal(self) -> None:
        """Take what the last turn learnt out of the log, for an erase: it is remembered by now."""
        if self._turn:
            await self._journal({})

    async def _journal(
        self,
        changes: dict[str, Fact | None],
        groups: Sequence[Group] = (),
        refused: Sequence[Refused] = (),
        state: State | None = None,
    ) -> None:
        journal = _Journal(self._turn, changes, dict(self.state if state is None else state))
        await self._log.append(groups, refused, (self.source, msgspec.to_builtins(journal)))
        self.state = journal.state

    async def take(self, make: Make, *, ip: str = "", state: State | None = None) -> Fed:
        """Keep what was heard; it is on disk when this returns, and with it a listener's new `state`.

        Raises `Malformed` as `make` does, `Unmade` for whatever else it raises, or what the log raises: with
        nothing of it kept or remembered.
        """
        waiting = _Waiting(make, ip, state, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        return await asyncio.shield(waiting.ended)

    async def rehearse(self, make: Make) -> Fed:
        """Say what `take` would do, and keep nothing."""
        return (await asyncio.to_thread(self._made, make, "", self.facts.turn())).fed

    async def _take_turns(self) -> None:
        while self._queue:
            some, self._queue = self._queue[:MOST_AT_ONCE], self._queue[MOST_AT_ONCE:]
            try:
                await self._take_turn(some)
            except Exception as error:  # for those who wait, whatever it is
                for waiting in some:
                    _fail(waiting, error)

    async def _take_turn(self, some: list[_Waiting]) -> None:
        turn = self.facts.turn()
        made = await asyncio.to_thread(self._make_all, some, turn)
        groups = [one.group for _, one in made if one.group.entries]
        refused = [item for _, one in made for item in one.refused]
        state = next((waiting.state for waiting, _ in reversed(made) if waiting.state is not None), None)
        if groups or refused or state not in (None, self.state):
            self._turn += 1
            await self._journal(turn.changes, groups, refused, state)
        await asyncio.to_thread(self.facts.keep, turn.changes, self._turn)
        for waiting, one in made:
            self.counts.update(one.fed.ignored)
            if not waiting.ended.done():
                waiting.ended.set_result(one.fed)

    def _make_all(self, some: list[_Waiting], turn: Turn) -> list[tuple[_Waiting, _Made]]:
        made = []
        for waiting in some:
            mark = dict(turn.changes) if len(some) > 1 else {}
            try:
                made.append((waiting, self._made(waiting.make, waiting.ip, turn)))
            except Exception as error:  # only the one who brought it hears of it
                turn.undo(mark)
                told = error if isinstance(error, Malformed) else Unmade(_place(error))
                waiting.ended.get_loop().call_soon_threadsafe(_fail, waiting, told)
        return made

    def _made(self, make: Make, ip: str, turn: Turn) -> _Made:
        now = self._clock.now()
        entries: list[Entry] = []
        refused: list[Refused] = []
        ignored: Counter[str] = Counter()
        for index, heard in enumerate(make(turn)):
            match heard:
                case Message():
                    entries.append(Entry(heard.message_id, kept(heard)))
                case Unfit(code, reason, raw):
                    refused.append(Refused(self.source, index, code, reason, raw, now))
                case Ignored(reason):
                    ignored[reason] += 1
        envelope = Envelope(source=self.source, received_at=now, trust=self.trust, ip=ip)
        return _Made(Group(envelope, entries), refused, Fed(len(entries), len(refused), ignored))


def kept(message: Message) -> bytes:
    """A message as the log keeps it: JSON by the spec's names. Raises `ValueError` for one without an id."""
    if not message.message_id:
        raise ValueError("a source has to give its messages an id, so that one heard twice is kept once")
    return msgspec.json.encode(_Kept(**{name: getattr(message, name) for name in _Kept.__struct_fields__}))


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.ended.done():
        waiting.ended.set_exception(error)


def _place(error: BaseException) -> str:
    """The kind of an error and its line: its text may hold what people's data holds."""
    trace = traceback.extract_tb(error.__traceback__)
    last = trace[-1] if trace else None
    where = f" at {last.name}:{last.lineno}" if last else ""
    return f"{type(error).__name__}{where}"
