"""The reference ledger of one connection: what became of every delivery, and what may become of it next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from towpath.clock import Clock
from towpath.destination import Limits
from towpath.log import Balance, Dead, DeadFilter, Done, Settlement
from towpath.message import Message

from ..fakes import FakeMemory
from .deletions import Deletions
from .people import People
from .schedule import Schedule
from .trace import Trace

if TYPE_CHECKING:
    from .vendor import Account

SOURCES = ("web", "app")
OPEN, ERASED, REMOVED = "open", "erased", "source removed"


class Kept(Struct, frozen=True):
    """One accepted message."""

    position: int
    source: str
    name: str
    raw: bytes
    fields: dict[str, Any]
    trusted: bool
    at: float
    at_s: float

    def concerns(self, ids: Collection[str]) -> bool:
        """Whether it names one of these ids."""
        return any(self.fields.get(key) in ids for key in ("userId", "anonymousId", "previousId"))

    @property
    def linking(self) -> list[str]:
        """The ids it may link."""
        named = [self.fields.get(key) for key in ("userId", "anonymousId", "previousId")]
        return [known for known in named if known] if self.fields["type"] != "track" else []

    @property
    def sent(self) -> bool:
        """Whether it is for the vendors: supported, and not beyond what its source may do (D13)."""
        fields = self.fields
        if fields["type"] == "delete":
            return self.trusted
        merges = fields["type"] == "alias" and fields["previousId"] != fields.get("anonymousId")
        return fields.get("event") != "unsupported" and (self.trusted or not merges)


class Messages:
    """All accepted messages, and what holds for every connection."""

    def __init__(self, people: People) -> None:
        self.people = people
        self.kept: dict[int, Kept] = {}
        self.by_name: dict[tuple[str, str], Kept] = {}
        self.gone: set[int] = set()
        self.suppressed: set[str] = set()
        self.once_suppressed: set[str] = set()
        self.erasing: dict[str, float] = {}  # what came up to that position is suppressed until then
        self.jumped_s = 0.0  # how far the wall clock was moved in all, back and forth

    def add(self, message: Kept) -> None:
        """Take one more."""
        self.kept[message.position] = self.by_name[message.source, message.name] = message
        self.people.add(message.position, message.fields, trusted=message.trusted)

    def slips(self, position: int) -> bool:
        """Whether a message came while its person is being erased: it may go out until that is over."""
        message = self.kept[position]
        return any(message.concerns({known}) and position > upto for known, upto in self.erasing.items())


class Book:
    """Checks every send, effect and end of one connection against the rules.

    `states` maps the positions that are this connection's to "open", a `DoneState` or "erased".
    """

    def __init__(
        self,
        name: str,
        account: Account,
        messages: Messages,
        limits: Limits,
        clock: Clock,
        trace: Trace,
        *,
        late_s: float,
        deletions: Deletions,
    ) -> None:
        self.name = name
        self.deletions = deletions
        self.memory = FakeMemory()  # as durable as the real one
        self.account = account
        self.limits = limits
        self.messages = messages
        self.max_age_s: dict[str, float] = {}
        self.sources: set[str] = set()
        self.cursor = 0
        self.epoch = 0
        self.states: dict[int, str] = {}
        self.open: set[int] = set()
        self.parked: set[int] = set()
        self.letters: dict[int, Dead] = {}
        self.skips: Counter[str] = Counter()
        self.effects: Counter[int] = Counter()
        self.excused: Counter[int] = Counter()
        self.paused: set[str] = set()
        self.doubled = False  # two loops may be calling: one of them cannot say what it did
        self.schedule = Schedule(clock, trace, name, late_s)
        self._until: dict[str, list[int]] = {}
        self._last_effect: dict[int, int] = {}
        self.lanes_of_letters: dict[int, str] = {}
        self._refused: dict[int, set[int]] = {}
        self._doubts: dict[int, int] = {}
        self._replayed: dict[int, int] = {}
        self._replays = 0
        self._last: Settlement | None = None
        self._clock = clock
        self._trace = trace

    def expect(self, holds: object, what: str) -> None:
        """A promise about this connection. Raises `Broken`."""
        if not holds:
            self._trace.expect(False, f"{self.name}: {what}")  # noqa: FBT003

    def people_of(self, position: int) -> Kept:
        """The message of a position."""
        return self.messages.kept[position]

    def position_of(self, message: Message) -> int:
        """The position of a message as a destination sees it."""
        return self.messages.by_name[message.source, message.message_id].position

    # -- what is whose ---------------------------------------------------------------------------------

    def belongs(self, positions: Iterable[int]) -> None:
        """These are deliveries of this connection from now on."""
        for position in positions:
            self.states[position] = OPEN
            self.open.add(position)

    def without(self, source: str) -> None:
        """A source was taken away: what was not tried is skipped."""
        self.sources.discard(source)
        self._until.setdefault(source, []).append(max(self.messages.kept, default=0))
        for position in sorted(self.open - self.parked):
            if self.people_of(position).source == source:
                self._ends(position, "skipped", REMOVED)

    def with_source(self, source: str, positions: Iterable[int]) -> None:
        """A source was added, from where the connection stands; what it had before stays as it is."""
        self.sources.add(source)
        since = max([self.cursor, *self._until.get(source, [])])
        own = [p for p in positions if p > since and self.people_of(p).source == source]
        late = [p for p in own if p not in self.states]
        self.belongs(late)
        self._replays += 1  # others of their persons may be long gone
        self._replayed |= dict.fromkeys(late, self._replays)

    def erased(
        self, ids: Collection[str], gone: Collection[int], rows: Collection[int], letters: Collection[int]
    ) -> Counter[str]:
        """Of a person these records have gone, and those rows and letters are left; what that concerned."""
        seen: Counter[str] = Counter()
        for position in [p for p in self.states if self.people_of(p).concerns(ids)]:
            if position in self.open and (position in gone or position in self.parked.difference(rows)):
                seen["parked" if position in self.parked else "unread or in memory"] += 1
                self._ends(position, ERASED)
            if position not in letters and self.letters.pop(position, None) is not None:
                seen["dead"] += 1
        if seen:
            self.schedule.disturb()
        return seen

    def _ends(self, position: int, state: str, reason: str = "") -> None:
        self.states[position] = state
        self.open.discard(position)
        self.parked.discard(position)
        self.schedule.ended(position)
        if state == "skipped":
            self.skips[reason] += 1

    # -- sending ---------------------------------------------------------------------------------------

    def starts(
        self, position: int, together: Collection[int], answered: Collection[int], *, again: bool
    ) -> None:
        """A call with this message begins: it is open, in order, wanted, and due.

        `together` travel before it in the same call; `answered` have been answered but perhaps not settled;
        `again` says that it goes again as part of a refused batch.
        """
        slips = self.states.get(position) == ERASED and self.messages.slips(position)
        self.expect(
            position in self.open or slips, f"{position} is sent though it is {self.states.get(position)}"
        )
        late = [n for n in self._before(position) if n in self.open and n not in together]
        # Halves of a refused batch go on before the ends of the first half are on disk.
        late = [n for n in late if not (self.limits.ordered_batch and n in answered)]
        self.expect(not late, f"{position} starts before {late} ended")
        self.schedule.sends[position] += 1
        if not again:
            if self.people_of(position).fields["type"] == "delete":
                self.deletions.starts(position, doubled=self.doubled)
            self._check_wanted(position)
            companions = self.messages.people.companions(position)
            mine = None if companions is None else [n for n in companions if n in self.states]
            self.schedule.starts(position, mine)

    def _check_wanted(self, position: int) -> None:
        message = self.people_of(position)
        unwanted = self.messages.suppressed & {
            message.fields.get("userId"),
            message.fields.get("anonymousId"),
        }
        self.expect(not unwanted, f"{position} is sent though {unwanted} is suppressed")
        age_s, limit_s = self._clock.now() - message.at, self.max_age_s.get(str(message.fields.get("event")))
        self.expect(
            limit_s is None or age_s <= limit_s, f"{position} is sent though stale, {age_s:.0f} s old"
        )

    def passes(self, position: int, memory: int) -> bool:
        """Whether more deliveries lie open before it than memory can hold: it has overtaken some of them."""
        unread = self.open - self.parked if len(self.open) > memory else set[int]()
        return sum(n < position for n in unread) > memory

    def leads(self, position: int) -> bool:
        """Whether it is the first of its person that is open: others are due when that one is."""
        companions = self.messages.people.companions(position)
        return companions is not None and not self.open.intersection(companions)

    def blocks(self, capability: str) -> bool:
        """Whether deliveries that need this capability must wait."""
        return bool(self.paused & {"*", "", capability})

    def _before(self, position: int) -> list[int]:
        """Those of its person before it on this connection; replayed ones only among each other."""
        turn = self._replayed.get(position)
        return [
            n
            for n in self.messages.people.before[position]
            if n in self.states and self.people_of(n).sent and self._counts(n, position, turn)
        ]

    def _counts(self, earlier: int, position: int, turn: int | None) -> bool:
        replayed = self._replayed.get(earlier)
        if replayed is None:
            return turn is None
        # A letter keeps the lane it died in; links made later do not join it with another's.
        same = turn is not None and self.lanes_of_letters.get(earlier) == self.lanes_of_letters.get(position)
        return turn is not None and same and replayed <= turn

    def refused(self, positions: Iterable[int], status: int) -> None:
        """The vendor refused these for good, or their credential."""
        for position in positions:
            self._refused.setdefault(position, set()).add(status)
            self._doubts[position] = self.account.vouched[self._capability(position)]

    def _capability(self, position: int) -> str:
        return "people" if self.people_of(position).fields["type"] == "identify" else "events"

    def took_effect(self, position: int) -> None:
        """The vendor did it: not twice without a reason, and nothing newer of its person before."""
        self._trace.note("effect", self.name, position)
        self.effects[position] += 1
        self.excused[position] += self.doubled
        times, excused = self.effects[position], self.excused[position]
        self.expect(times <= 1 + excused, f"{position} took effect {times} times, {excused} excused")
        if times > 1:
            self._trace.saw("effect repeated after a fault")
        self._last_effect[position] = self.effects.total()
        if position in self._replayed:
            return
        newer = [n for n in self.messages.people.after[position] if self.effects[n]]
        if self.limits.ordered_batch or self.limits.coalesce:
            newer = [n for n in newer if self.states.get(n) != OPEN]  # those of the same run go again too
        newer = [n for n in newer if n not in self._replayed]
        self.expect(not newer, f"{position} took effect after {newer}")

    def excuse_open(self) -> None:
        """Somebody died: whatever was sent and has not ended may be sent once more."""
        self.schedule.lift()
        for position in self.open:
            self.excused[position] += self.schedule.sends[position] > 0

    # -- settling --------------------------------------------------------------------------------------

    def settled(self, settlement: Settlement) -> None:
        """A settlement is on disk; it changes nothing when it came a second time."""
        repeated, self._last = settlement == self._last, settlement
        if repeated:
            return
        letters = {letter.position: letter for letter in settlement.dead}
        for done in settlement.done:
            self._trace.note("ended", self.name, *_row(done))
            self._settle(done, letters)
        for row in settlement.parked:
            self._trace.note("parked", self.name, row.position, row.person, f"{row.due:.6f}", row.attempts)
            if row.position in self.open:
                self.parked.add(row.position)
        self._advance(settlement.cursor)

    def _settle(self, done: Done, letters: dict[int, Dead]) -> None:
        position, state = done.position, self.states.get(done.position)
        if state == ERASED or (state == "skipped" and self.people_of(position).source not in self.sources):
            return  # what ended after it was taken away counts no more
        self.expect(state == OPEN, f"{position} was {state} and is {done.state}: {done.reason}")
        getattr(self, f"_check_{done.state}")(done)
        if done.state != "skipped":
            self.schedule.count(done)
        self._ends(position, done.state, done.reason)
        if done.state == "dead":
            self.expect(position in letters, f"{position} died without a letter")
            self.letters[position] = letters[position]
            self.lanes_of_letters[position] = letters[position].person

    def _advance(self, cursor: int) -> None:
        """No position is passed that has not ended and is no row."""
        passed = sorted(n for n in self.open - self.parked if self.cursor < n <= cursor)
        self.expect(not passed, f"the cursor went to {cursor} past {passed}")
        self._trace.note("cursor", self.name, cursor)
        self.cursor = max(self.cursor, cursor)

    def _check_delivered(self, done: Done) -> None:
        self.expect(self.effects[done.position], f"{done.position} never reached the vendor")

    def _check_skipped(self, done: Done) -> None:
        message = self.people_of(done.position)
        named = {message.fields.get(key) for key in ("userId", "anonymousId", "previousId")}
        known = {
            "unsupported": not message.sent,
            "untrusted": not message.sent,
            "suppressed": bool(named & self.messages.once_suppressed),
            "stale": self._was_stale(message),
            "discarded": self.deletions.discarded(done.position),
        }
        self.expect(known.get(done.reason, False), f"{done.position} was skipped: {done.reason}")
        self._trace.saw(f"skipped: {done.reason}")

    def _was_stale(self, message: Kept) -> bool:
        limit_s = self.max_age_s.get(str(message.fields.get("event")))
        age_s = self._clock.now() - message.at
        return limit_s is not None and age_s + self.messages.jumped_s >= limit_s

    def _check_dead(self, done: Done) -> None:
        """P5, P6, P7: refused for good, or tried for as long as promised."""
        position, refused = done.position, self._refused.get(done.position, set())
        if done.reason.startswith("gave up"):
            self.schedule.gave_up(done, self.people_of(position), self.messages.jumped_s)
        elif done.code in (401, 403):
            vouched = self.account.vouched[self._capability(position)] > self._doubts.get(position, 0)
            self.expect(vouched, f"{position} died of a credential that no check vouched for: {done.reason}")
            self._trace.saw("refusal unconfirmed")
        else:
            self.expect(done.code in refused, f"{position} died though never refused: {done.reason}")
            self._trace.saw("refused for good")

    # -- letters ---------------------------------------------------------------------------------------

    def replayed(self, where: DeadFilter) -> int:
        """Letters became rows that are due; how many."""
        found = [position for position, letter in self.letters.items() if fits(letter, where, self.name)]
        self._replays += 1
        for position in found:
            del self.letters[position]
            self.states[position] = OPEN
            self.open.add(position)
            self.parked.add(position)
            self._replayed[position] = self._replays
            self.excused[position] += self.effects[position] > 0
        return len(found)

    def dropped(self, where: DeadFilter) -> int:
        """Letters were deleted; how many."""
        found = [position for position, letter in self.letters.items() if fits(letter, where, self.name)]
        for position in found:
            del self.letters[position]
        return len(found)

    # -- what must hold --------------------------------------------------------------------------------

    def check_balance(self, balance: Balance) -> None:
        """P2: even, and what this book says."""
        self.expect(balance.difference == 0, f"uneven: {balance}")
        states = Counter(self.states.values())
        mine = (len(self.states), states["delivered"], len(self.open), states["dead"], states[ERASED])
        kept = (balance.accepted, balance.delivered, balance.waiting, balance.dead, balance.erased)
        self.expect(mine == kept, f"accepted, delivered, waiting, dead, erased are {kept}, not {mine}")
        skips = {reason: count for reason, count in self.skips.items() if count}
        self.expect(skips == dict(balance.skipped), f"skipped are {balance.skipped}, not {skips}")

    def check_end(self) -> None:
        """P4: what a vendor is left with is the newest."""
        self.expect(not self.open, f"not ended: {sorted(self.open)[:9]}")
        last = self._last_effect
        delivered = {position for position, state in self.states.items() if state == "delivered"}
        for position in sorted((last.keys() & delivered) - self._replayed.keys()):
            older = [n for n in self._before(position) if last.get(n, 0) > last[position]]
            self.expect(not older, f"{older} took effect last, after {position}")


def _row(done: Done) -> Sequence[object]:
    return done.position, done.index, done.state, done.reason, done.code, done.attempts, f"{done.at:.6f}"


def fits(letter: Dead, where: DeadFilter, connection: str) -> bool:
    """Whether a filter means this letter of this connection."""
    wanted = (
        (where.connection, connection),
        (where.code, letter.code),
        (where.reason, letter.reason),
        (where.person, letter.person),
        (where.message_id, letter.record.message_id),
    )
    recent = where.since is None or letter.died_at >= where.since
    return recent and all(value is None or value == mine for value, mine in wanted)
