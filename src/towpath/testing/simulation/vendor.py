"""A simulated vendor account that lies, and the destination and network through which a loop calls it."""

# ruff: noqa: D102 - a vendor has the methods of a destination
from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from towpath.budget import Budget
from towpath.clock import Clock
from towpath.destination import Call, Check, Destination, Limits, Payload, Scope, Settings
from towpath.http import Reply, Request, TransportError, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Rejected, Skipped, from_status

from .trace import Trace

if TYPE_CHECKING:
    from .book import Book
    from .world import Run

Answer: TypeAlias = Reply | TransportError
ADDRESS = "https://vendor.example"
CAPABILITIES = ("people", "events")
ITEM_FAULTS = {"poison": 422, "forbidden": 403, "sour": 500, "curable": 422}
PHASES = ("fine", "slow", "hanging", "down", "unreachable", "flaky", "limiting", "forgetful", "lying")


class Errand:
    """One request at the vendor: groups of positions, each group one payload."""

    def __init__(self, book: Book, groups: list[list[int]], capabilities: list[str]) -> None:
        self.book = book
        self.groups = groups
        self.capabilities = capabilities

    @property
    def positions(self) -> list[int]:
        """All of its messages."""
        return [position for group in self.groups for position in group]


class Account:
    """A vendor's side of one account. What it does follows from `phase` and from what it refuses.

    `refusing` holds the capabilities whose credential has expired ("" for all); `wrong_check` says its check
    denies that. `per_minute` is what it allows in any 60 seconds: one request more is a broken promise.
    """

    def __init__(
        self, label: str, chance: Random, clock: Clock, trace: Trace, per_minute: int | None
    ) -> None:
        self.label = label
        self.phase = "fine"
        self.refusing: set[str] = set()
        self.wrong_check = False
        self.cured = False
        self.patient = False
        self.strict_batches = chance.random() < 0.5
        self.working: dict[asyncio.Future[Answer], Errand] = {}
        self.vouched: Counter[str] = Counter()
        self.budgets: dict[str, Budget] = {}
        self.per_minute = per_minute
        self.doubled_until_s = 0.0  # somebody outside our budget may be calling
        self._chance = chance
        self._clock = clock
        self._trace = trace
        self._taken: deque[float] = deque()
        self.restart()

    def restart(self) -> None:
        """The process that kept the budget is a new one."""
        self.budgets = {} if self.per_minute is None else {"calls": Budget(self._clock, self.per_minute)}

    def mend(self) -> None:
        """Everything works again."""
        self.phase = "fine"
        self.refusing.clear()
        self.wrong_check = False

    # -- answering -------------------------------------------------------------------------------------

    async def check(self) -> Answer:
        """Say which capabilities the credential has."""
        await asyncio.sleep(self._chance.uniform(0, 1))
        self._trace.saw("checked")
        if self.phase in ("down", "unreachable"):
            return Reply(503)
        refused = set() if self.wrong_check else self.refusing
        works = {name: name not in refused and "" not in refused for name in CAPABILITIES}
        for name, fine in works.items():
            if fine:
                self.vouched[name] += 1
        return Reply(200, body=msgspec.json.encode({**works, "account": "" not in refused}))

    async def take(self, errand: Errand, *, batch: bool, timeout_s: float) -> Answer:
        """Answer one request; it goes on here also when the caller is gone."""
        self._count()
        working = asyncio.ensure_future(self._work(errand, batch=batch, timeout_s=timeout_s))
        self.working[working] = errand
        working.add_done_callback(lambda done: self.working.pop(done, None))
        return await asyncio.shield(working)

    async def _work(self, errand: Errand, *, batch: bool, timeout_s: float) -> Answer:
        if self.phase == "hanging" and self._chance.random() < 0.3:
            self._trace.saw("call hung")
            if self._chance.random() < 0.5:
                self._decide_all(errand, excused=True)
            await asyncio.sleep(timeout_s)
            return TransportError("no answer in time", sent=True)
        await asyncio.sleep(self._delay_s())
        return self._answer(errand, batch=batch)

    def _delay_s(self) -> float:
        if self.phase == "slow":
            self._trace.saw("call slow")
            return self._chance.uniform(1, 25)
        return self._chance.uniform(0.001, 0.3)

    def _answer(self, errand: Errand, *, batch: bool) -> Answer:
        whole = self._whole(errand) or (self._refused_batch(errand) if batch else None)
        if whole is not None:
            return whole
        statuses = self._decide_all(errand)
        if self.phase == "forgetful" and self._chance.random() < 0.3:
            self._trace.saw("answer lost")
            self._excuse(errand)
            return TransportError("connection reset", sent=True)
        if self.phase == "lying" and self._chance.random() < 0.3:
            self._trace.saw("500 though delivered")
            self._excuse(errand)
            return Reply(500, body=b"sorry")
        if batch:
            return Reply(207, body=msgspec.json.encode({"results": statuses}))
        return Reply(statuses[0], body=b"{}")

    def _whole(self, errand: Errand) -> Answer | None:
        """What concerns the whole request, before any of it is done."""
        if "" in self.refusing or self.refusing.issuperset(errand.capabilities):
            self._trace.saw("401")
            errand.book.refused(errand.positions, 401)
            return Reply(401, body=b"expired")
        if self.phase == "unreachable":
            self._trace.saw("unreachable")
            return TransportError("connection refused", sent=False)
        if self.phase == "down":
            self._trace.saw("503")
            return Reply(503, self._wish(0.3))
        if self.phase == "limiting" and self._chance.random() < 0.5:
            return self._limit()
        return None

    def _wish(self, share: float) -> dict[str, str]:
        return {"retry-after": str(self._chance.choice([3, 90]))} if self._chance.random() < share else {}

    def _limit(self) -> Reply:
        headers = self._wish(0.4)
        if not headers and self._chance.random() < 0.5:
            self._trace.saw("429 for one object")
            return Reply(429, {"x-ratelimit-remaining": "12"})
        self._trace.saw("429 with Retry-After" if headers else "429")
        return Reply(429, headers | {"x-ratelimit-remaining": "0"})

    def _refused_batch(self, errand: Errand) -> Reply | None:
        if self.strict_batches and 422 in self._faults(errand.positions, errand.book):
            self._trace.saw("400 for a batch")
            return Reply(400, body=b"one of these")
        return None

    def _faults(self, positions: Sequence[int], book: Book) -> list[int]:
        if self.patient:
            return []
        events = [book.people_of(position).fields.get("event") for position in positions]
        cured = {"curable"} if self.cured else set()
        return [ITEM_FAULTS[event] for event in events if event in ITEM_FAULTS.keys() - cured]

    # -- doing -----------------------------------------------------------------------------------------

    def _decide_all(self, errand: Errand, *, excused: bool = False) -> list[int]:
        """Decide in order; one that keeps the order in a batch stops at the first that may work later."""
        if excused:
            self._excuse(errand)
        statuses: list[int] = []
        for group, capability in zip(errand.groups, errand.capabilities, strict=True):
            if errand.book.limits.ordered_batch and statuses and statuses[-1] in (401, 403, 500, 503):
                statuses.append(503)
            else:
                statuses.append(self._decide(group, capability, errand.book))
        return statuses

    def _decide(self, group: list[int], capability: str, book: Book) -> int:
        if capability in self.refusing:
            self._trace.saw("401 for one message")
            book.refused(group, 401)
            return 401
        if faults := self._faults(group, book):
            self._trace.saw(f"{faults[0]} for one message")
            book.refused(group, faults[0])
            return faults[0]
        if self.phase == "flaky" and self._chance.random() < 0.4:
            self._trace.saw("500 now and then")
            return 500
        for position in group:
            book.took_effect(position)
        return 200

    def _excuse(self, errand: Errand) -> None:
        for position in errand.positions:
            errand.book.excused[position] += 1

    def hang_up(self, book: Book) -> None:
        """The caller died: what it asked for happens at once or never, and nobody hears of it."""
        for working, errand in list(self.working.items()):
            if errand.book is book:
                working.cancel()
                if not self._whole(errand) and self._chance.random() < 0.5:
                    self._decide_all(errand)

    def _count(self) -> None:
        """P10: never more than allowed in any 60 seconds."""
        now_s = self._clock.monotonic()
        self._taken.append(now_s)
        while self._taken[0] <= now_s - 60:
            self._taken.popleft()
        if self.per_minute is not None and now_s > self.doubled_until_s:
            self._trace.expect(
                len(self._taken) <= self.per_minute, f"{self.label} got {len(self._taken)} calls in a minute"
            )


class Vendor(Destination[Settings]):
    """The destination of one run of a loop."""

    name = "vendor"
    Settings = Settings

    def __init__(self, run: Run) -> None:
        super().__init__(Settings())
        self._run = run
        self._book = run.book

    def limits(self) -> Limits:
        return self._book.limits

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        if message.event == "unsupported":
            return Skipped("unsupported")
        position = self._book.position_of(message)
        capability = "people" if message.type == "identify" else "events"
        call = Call("POST", f"{ADDRESS}/one", [position])
        return Payload([call], capability=capability, data=[position])

    def merge(self, earlier: Payload, later: Payload) -> Payload | None:
        both = [*earlier.data, *later.data]
        if any(self._book.people_of(position).fields["type"] != "identify" for position in both):
            return None
        call = Call("POST", f"{ADDRESS}/one", both)
        return Payload([call], capability=earlier.capability, data=both)

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        await self._send([payload], scope, "one")
        self._run.answered.update(payload.data)

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Outcome]:
        reply = await self._send(payloads, scope, "batch")
        outcomes = [from_status(status) for status in reply.json()["results"]]
        for payload, outcome in zip(payloads, outcomes, strict=True):
            if isinstance(outcome, Delivered | Rejected):
                self._run.answered.update(payload.data)
        return outcomes

    async def _send(self, payloads: Sequence[Payload], scope: Scope, path: str) -> Reply:
        groups = [payload.data for payload in payloads]
        capabilities = [payload.capability for payload in payloads]
        self._run.sends(groups, capabilities)
        body = {"groups": groups, "capabilities": capabilities}
        try:
            return await scope.http.request("POST", f"{ADDRESS}/{path}", json=body, bucket="calls")
        except Undelivered as error:
            if isinstance(error.outcome, Rejected):
                self._run.refused(groups, error.outcome.code)
            raise

    async def check(self, scope: Scope) -> Sequence[Check]:
        try:
            reply = await scope.http.request("GET", f"{ADDRESS}/check")
        except Undelivered as error:
            return [Check.failed("account", error)]
        said: dict[str, bool] = reply.json()
        account = Check("account", ok=said.pop("account"))
        return [account, *(Check(name, ok=fine, capability=name) for name, fine in said.items())]


class Network:
    """The network of one run: carries its requests to the account."""

    def __init__(self, account: Account, book: Book, trace: Trace) -> None:
        self._account = account
        self._book = book
        self._trace = trace

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        self._trace.note("request", self._book.name, request.method, request.url, request.body)
        answer = await self._reach(request, timeout_s)
        if isinstance(answer, TransportError):
            self._trace.note("no answer", self._book.name, answer)
            raise answer
        self._trace.note("answer", self._book.name, answer.status, dict(answer.headers), answer.body)
        if request.method == "POST":
            self._hear(request, answer)
        return answer

    def _hear(self, request: Request, answer: Reply) -> None:
        """What an answer asks of the loop: to wait, and not to count what the account's limit refused."""
        positions = [n for group in msgspec.json.decode(request.body)["groups"] for n in group]
        schedule, wish_s = self._book.schedule, float(answer.headers.get("retry-after", 0))
        for position in positions:
            if wish_s and self._book.leads(position):
                schedule.wish(position, wish_s)
            if answer.status == 429 and answer.headers.get("x-ratelimit-remaining") == "0":
                schedule.throttled[position] += 1

    async def _reach(self, request: Request, timeout_s: float) -> Answer:
        if request.method == "GET":
            return await self._account.check()
        body: dict[str, Any] = msgspec.json.decode(request.body)
        errand = Errand(self._book, body["groups"], body["capabilities"])
        batch = request.url.endswith("/batch")
        return await self._account.take(errand, batch=batch, timeout_s=timeout_s)

    async def close(self) -> None:
        return None
