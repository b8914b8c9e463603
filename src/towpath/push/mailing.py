"""A campaign at work: devices are enlisted, then told one after another, and every answer is kept."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from pydantic import Field

from ..destination import Settings
from ..device import Address, Device
from ..errors import TowpathError
from ..http import Stopping, Undelivered
from ..jobs import GiveUp, Job, Run, Snooze
from ..mapping.paths import Unusable
from ..notice import Bodies, Notice, Refused
from ..outcome import Retry
from ..state.campaigns import (
    ERASED,
    CampaignRow,
    DueSend,
    Enlisted,
    Held,
    SendState,
    Settled,
    totals,
)
from .audience import NOBODY, Audience, Person, unreachable
from .breaker import Breaker
from .hours import end_of_quiet, local_moment, zone
from .pace import quarter_hour
from .parts import Parts
from .reach import reachable
from .registry import Dead
from .segment import keep, kept, members, named, unreadable
from .sender import GIVE_UP_S, Sender
from .settings import CampaignSettings, SegmentSettings
from .verdict import Verdict

JOB = "campaign"
PAGE = 500
LEAST_CLAIMED = 32
CLAIMED_S = 0.1
SETTLE_S = 0.1
LANDING_S = 6.0
SEGMENT_S = 60.0
LOOK_S = 1.0
ROOM_S = 0.02
FRESH_S = 1.0
"""What waited longer for its place is looked at once more before it leaves: it may be somebody else's now."""
DISK_S = 1.0
SAVE_S = 5.0
TURN_S = 60.0
"""So long an attempt sends; then whatever waits for a place among the jobs has its turn, if anything does."""
LARGE = 10_000
"""From so many devices on, a campaign does not begin around a quarter of an hour, when FCM is busiest."""
LONGEST_NAP_S = 3600.0
ATTEMPTS_IN_AN_HOUR = 10
"""As many as the waits of `pace.retry_s` leave room for."""

REMOVES: Mapping[str, str] = {"unregistered": "unregistered", "invalid_token": "invalid_token"}
"""The verdicts that take an address out of the registry, and the reason kept there."""
MISMATCH = "SENDER_ID_MISMATCH"
AGAIN = frozenset({"throttled", "device_throttled", "unavailable", "unknown"})


class CampaignRun(Settings):
    """Which campaign a run works on."""

    campaign: int = Field(ge=1, description="The campaign's number.")


class CampaignJob(Job[CampaignRun]):
    """Sends one campaign. `parts` gives what is in force."""

    kind = JOB
    about = "Sends a push campaign; see  towpath push campaigns list."
    Settings = CampaignRun
    pool = "push"  # they share one pace, and hold a page of letters each: several at once cost little

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._at_work: set[Mailing] = set()

    def key(self, settings: CampaignRun) -> str:
        """One run for each campaign."""
        return f"{JOB}:{settings.campaign}"

    async def run(self, run: Run[CampaignRun]) -> None:
        """Enlist, send, and end; or come back when the next send is due."""
        parts = self._parts()
        row = await asyncio.to_thread(parts.campaigns.find, run.settings.campaign)
        if row is None:
            raise GiveUp(f"there is no campaign {run.settings.campaign}")
        if parts.sender is None:
            raise GiveUp("push.account names no FCM account: nothing can be sent")
        if row.state not in ("scheduled", "sending"):
            return
        mailing = Mailing(run, row, parts, parts.sender, self._parts)
        self._at_work.add(mailing)
        try:
            await mailing.work()
        finally:
            self._at_work.discard(mailing)

    async def let_go(self, ids: Collection[str]) -> None:
        """Tell nothing more to these persons, or on these devices; returns when nothing is on its way."""
        await asyncio.gather(*[mailing.let_go(ids) for mailing in list(self._at_work)])


class _Letter(Struct, frozen=True, gc=False):
    """A send on its way: its body, what it was made for, and when (by the monotonic clock)."""

    due: DueSend
    device: Device
    address: Address
    body: bytes
    made_s: float


class Mailing:
    """One campaign in this process, from wherever it stood to its end, a stop, or the next due moment.

    `in_force` gives the parts of the configuration as it is now: when they are others than `parts`, it comes
    back with those.
    """

    def __init__(
        self,
        run: Run[CampaignRun],
        row: CampaignRow,
        parts: Parts,
        sender: Sender,
        in_force: Callable[[], Parts],
    ) -> None:
        self.row = row
        self._run = run
        self._parts = parts
        self._in_force = in_force
        self._sender = sender
        self._store = parts.campaigns
        self._settings = CampaignSettings.model_validate_json(row.settings)
        self._audience = Audience(self._settings.audience)
        self._bodies = Bodies(Notice(self._settings, row.code), f"towpath-{row.id}")
        self._quiet = parts.settings.quiet(self._settings)
        self._breaker = Breaker(parts.settings.mismatches)
        self._letters: asyncio.Queue[_Letter | None] = asyncio.Queue()
        self._placeless: dict[str, asyncio.Task[Any] | None] = {}
        self._on_its_way: dict[str, Device] = {}
        self._let_go: frozenset[str] = frozenset()
        self._enlisting = asyncio.Lock()
        self._leaving = False
        self._settled: list[Settled] = []
        self._dead: list[Dead] = []
        self._settling = asyncio.Lock()
        self._stop_reason = ""
        self._halted = False
        self._turn_ends_s = run.clock.monotonic() + TURN_S
        self._saved_s = -math.inf
        self._began = row.started_at or run.clock.now()

    @property
    def _now(self) -> float:
        return self._run.clock.now()

    @property
    def _clock_s(self) -> float:
        """The time, but not before it began: what was due then stays due when the clock is set back."""
        return max(self._now, self._began)

    async def work(self) -> None:
        """Go on. Raises `Snooze` until the next send is due."""
        if self.row.due_at > self._clock_s:
            raise Snooze(min(self.row.due_at - self._now, LONGEST_NAP_S), "it is not due yet")
        again = await asyncio.to_thread(self._store.recover, self.row.id)
        if again:
            self._run.log(f"{again} devices may be told twice: their answers were lost", "warning")
        if await self._is_of_another_project() or not await self._move("sending"):
            return
        if not await self._has_members():
            return
        await self._enlist()
        self._wait_for_a_better_moment()
        await self._send()
        await self._finish()

    async def _move(self, to: Any, reason: str = "") -> bool:
        return await asyncio.to_thread(self._store.move, self.row.id, to, self._now, reason) or (
            to == "sending" and self.row.state == "sending"
        )

    async def _is_of_another_project(self) -> bool:
        """Whether its devices are known in another project only: then it stops, and leaves nobody out."""
        project = self._parts.registry.project
        other = await asyncio.to_thread(self._store.elsewhere, self.row.id, project)
        if not other:
            return False
        why = f"its devices are of the project {other}, and push.account is now of {project}"
        await self._stop(f"{why}: name that account again and resume it, or cancel it")
        return True

    async def _stop(self, why: str) -> None:
        await self._move("stopped", why)
        self._run.log(f"stopped: {why}", "error")

    @property
    def _is_outdated(self) -> bool:
        """Whether another account, or other settings, are in force than it began with."""
        try:
            now = self._in_force()
        except TowpathError:  # the section is gone: then the job itself is ended
            return False
        mine = self._parts
        return (now.sender, now.registry) != (mine.sender, mine.registry) or now.settings != mine.settings

    @property
    def _has_had_its_turn(self) -> bool:
        return self._run.clock.monotonic() >= self._turn_ends_s

    # -- forgetting ------------------------------------------------------------------------------------

    async def let_go(self, ids: Collection[str]) -> None:
        """Tell nothing more to these persons, or on these devices; returns when nothing is on its way."""
        self._let_go |= frozenset(ids)
        async with self._enlisting:  # who was just being enlisted is on disk now, to be erased there
            pass
        while any(self._is_let_go(device) for device in self._on_its_way.values()):
            await self._run.clock.sleep(ROOM_S)
        with contextlib.suppress(Exception):  # the disk; they are kept, and written with the next ones
            await self._settle()

    def _is_let_go(self, device: Device) -> bool:
        return device.id in self._let_go or device.person in self._let_go

    # -- enlisting -------------------------------------------------------------------------------------

    async def _has_members(self) -> bool:
        """Read who is in its segment, once for all attempts; False where that cannot be, and it stops."""
        segment = self._settings.audience.segment
        if segment is None or self.row.members is not None:
            return True
        try:
            await self._keep_members(segment)
        except Held:
            return False
        except TowpathError as error:
            await self._stop(f"{error.title}: {error.fix}")
        except Undelivered as error:
            if isinstance(error.outcome, Retry):
                raise Snooze(error.outcome.after_s or SEGMENT_S, unreadable(segment, error)) from error
            await self._stop(unreadable(segment, error))
        else:
            return True
        return False

    async def _keep_members(self, segment: SegmentSettings) -> None:
        number, nameless = await keep(
            members(self._parts.accounts, segment),
            self._store,
            self.row.id,
            self._enlisting,
            lambda person: person not in self._let_go,
        )
        self.row = msgspec.structs.replace(self.row, members=number)
        self._run.log(f"{number} people are in the segment {named(segment)}")
        if nameless:
            self._run.log(f"{nameless} more in it have no id, and so no device here", "warning")

    async def _enlist(self) -> None:
        """Add every device the campaign is meant for, in order of ids, from where it stopped."""
        if self.row.enlisted_at:
            return None
        cursor, total = self.row.cursor or "", self.row.enlisted
        known = None if self._settings.audience.segment is None else kept(self._store, self.row.id)
        async for after, devices in reachable(self._parts.registry, self._audience, cursor, known):
            people = await self._people(devices, last_used=self._audience.by_last_use)
            async with self._enlisting:
                left = [device for device in devices if not self._is_let_go(device)]
                rows = [
                    self._enlisted(device, people.get(device.person or "", NOBODY))
                    for device in left
                    if self._audience.takes(device, people.get(device.person or "", NOBODY))
                ]
                # An erased device, or person, is no place to go on from: what follows is read twice instead.
                cursor = after if len(left) == len(devices) and after not in self._let_go else cursor
                try:
                    await asyncio.to_thread(self._store.enlist, self.row.id, rows, cursor, self._now)
                except Held:
                    return self._halt()
            total += len(rows)
            self._run.progress(self._run.state.done, total, "devices")
        self.row = msgspec.structs.replace(self.row, cursor=cursor, enlisted=total)
        await asyncio.to_thread(self._store.end_enlisting, self.row.id, self._now)
        return None

    def _enlisted(self, device: Device, person: Person) -> Enlisted:
        place = zone(device.traits.timezone, self._parts.settings.timezone)
        due_at = self.row.due_at
        if self.row.local_at:
            due_at = local_moment(datetime.fromisoformat(self.row.local_at), place)
        due_at = end_of_quiet(due_at, place, self._quiet) or due_at
        return Enlisted(device.id, device.person, device.platform or "", due_at, unreachable(device, person))

    async def _people(self, devices: Sequence[Device], *, last_used: bool = False) -> Mapping[str, Person]:
        persons = {device.person for device in devices if device.person}
        return await self._parts.registry.people(persons, last_used=last_used)

    def _wait_for_a_better_moment(self) -> None:
        if self.row.enlisted > LARGE and not self._run.state.done and (wait_s := quarter_hour(self._now)):
            raise Snooze(wait_s, "FCM is busiest around each quarter of an hour")

    # -- sending ---------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Fill, tell and settle side by side until nothing is due any more, or somebody stops it."""
        tellers = [asyncio.create_task(self._tell()) for _ in range(self._sender.in_flight)]
        beside = [asyncio.create_task(work) for work in (self._keep_settling(), self._keep_looking())]
        try:
            await self._fill()
            await self._land(tellers)
        except BaseException as error:
            # The server stops, or the disk refuses: what is on its way ends and is kept, the rest is handed
            # back unsent.
            self._leaving = isinstance(error, asyncio.CancelledError)
            self._halt()
            await self._drained(tellers, LANDING_S)
            raise
        finally:
            for task in (*tellers, *beside):
                task.cancel()
            await asyncio.gather(*tellers, *beside, return_exceptions=True)
            await self._settle_all()

    async def _land(self, tellers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for what is on its way; cancelled, it leaves that alone."""
        await self._drained(tellers)
        for teller in tellers:
            teller.result()

    async def _drained(self, tellers: Sequence[asyncio.Task[None]], timeout_s: float | None = None) -> None:
        """Let the tellers end behind what there is to tell."""
        for _ in tellers:
            self._letters.put_nowait(None)
        await asyncio.wait(tellers, timeout=timeout_s)

    async def _fill(self) -> None:
        """Take what is due, page by page, until nothing is, or the campaign has to stop."""
        while not self._halted and (page := await self._claim()) is not None:
            for letter in page:
                self._placeless[letter.device.id] = None
                self._letters.put_nowait(letter)
            while len(self._placeless) > self._claimed_at_once and not self._halted:
                await self._run.clock.sleep(ROOM_S)

    async def _keep_looking(self) -> None:
        """Notice within a second that somebody paused or cancelled it, also while it waits for the pace.

        Likewise that the configuration was changed, or that it is the turn of others.
        """
        while not self._halted:
            await self._run.clock.sleep(LOOK_S)
            if self._is_outdated or self._has_had_its_turn:
                return self._halt()
            with contextlib.suppress(Exception):  # the disk; whoever writes next says so
                row = await asyncio.to_thread(self._store.find, self.row.id)
                if row is None or row.state != "sending":
                    self._halt()
        return None

    def _halt(self) -> None:
        """Send nothing more: what waits for a place is handed back, what left already is waited for."""
        self._halted = True
        for teller in self._placeless.values():
            if teller is not None and teller is not asyncio.current_task():
                teller.cancel()

    async def _claim(self) -> list[_Letter] | None:
        """The next letters, in flight from here on; None when nothing is due.

        What is due and cannot be sent now is settled, or moved, instead.
        """
        due = await asyncio.to_thread(self._store.due, self.row.id, self._clock_s, self._claimed_at_once)
        if not due:
            return None
        devices = await self._parts.registry.find_many([one.device for one in due])
        people = await self._people(list(devices.values()))
        letters: list[_Letter] = []
        others: list[Settled] = []
        for one in due:
            device = devices.get(one.device)
            made = self._letter(one, device, people.get((device and device.person) or "", NOBODY))
            (letters if isinstance(made, _Letter) else others).append(made)  # type: ignore[arg-type]
        names = [letter.device.id for letter in letters]
        try:
            await asyncio.to_thread(self._store.begin, self.row.id, names, others, self._now)
        except Held:
            self._halt()
            return None
        self._count(others)
        return letters

    @property
    def _claimed_at_once(self) -> int:
        """What is sent within a tenth of a second: whatever is claimed may be told twice after a crash."""
        return max(LEAST_CLAIMED, min(PAGE, int(self._sender.pace.level_per_s * CLAIMED_S)))

    def _letter(self, due: DueSend, device: Device | None, person: Person) -> _Letter | Settled:
        """The letter for a device, or what becomes of its send without one."""
        now, skipped = self._now, SendState.SKIPPED
        if device is None:
            return Settled(due.device, skipped, "removed")
        if device.person != due.person:
            return Settled(due.device, skipped, "moved")
        if device.person is not None and self._parts.held_back(device.person):
            return Settled(due.device, skipped, "suppressed")
        if why := unreachable(device, person):
            return Settled(due.device, skipped, why)
        if (patience := self._settings.drop_after) and now - due.first_due_at > patience.total_seconds():
            return Settled(due.device, skipped, "late")
        if device.platform in self._breaker.platforms_out:
            return Settled(due.device, SendState.FAILED, "platform_misconfigured")
        place = zone(device.traits.timezone, self._parts.settings.timezone)
        if (until := end_of_quiet(now, place, self._quiet)) is not None:
            return Settled(due.device, SendState.PENDING, "quiet_hours", due_at=until)
        assert device.address is not None  # noqa: S101 - or it would be unreachable
        try:
            body = self._bodies.body(device, device.address, person.traits, now)
        except Unusable as error:
            why = "refused" if isinstance(error, Refused) else "merge_tag"
            return Settled(due.device, skipped, why, name=str(error)[:100])
        return _Letter(due, device, device.address, body, self._run.clock.monotonic())

    async def _tell(self) -> None:
        """Send letter after letter; the answer is kept with the next ones."""
        try:
            while (letter := await self._letters.get()) is not None:
                self._settled.append(await self._told(letter))
        except Exception:
            self._halt()  # the others must not wait for this one
            raise

    async def _told(self, letter: _Letter) -> Settled:
        """What became of a letter; one that was not sent is pending again."""
        name = letter.device.id
        if not await self._has_a_place(name):
            return Settled(name, SendState.PENDING)
        current = await self._up_to_date(letter)
        if isinstance(current, Settled):
            return current
        if self._is_let_go(current.device):
            return Settled(name, SendState.SKIPPED, ERASED)
        self._on_its_way[name] = current.device
        try:
            verdict = await self._sender.send_now(current.body, attempt=current.due.attempts + 1)
        finally:
            del self._on_its_way[name]
        return self._settlement(current, verdict)

    async def _up_to_date(self, letter: _Letter) -> _Letter | Settled:
        """The letter as it would be made now, where it waited: the pace may hold it back for minutes."""
        if self._run.clock.monotonic() - letter.made_s <= FRESH_S:
            return letter
        found = (await self._parts.registry.find_many([letter.device.id])).get(letter.device.id)
        people = await self._people([found] if found else [])
        return self._letter(letter.due, found, people.get((found and found.person) or "", NOBODY))

    async def _has_a_place(self, device: str) -> bool:
        """Wait for the pace; False where the campaign halts before it lets the letter leave."""
        self._placeless[device] = asyncio.current_task()
        try:
            if not self._halted:
                await self._sender.pace.admit()
        except Stopping:
            self._halt()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._halted or task is None:
                raise
            task.uncancel()
        finally:
            del self._placeless[device]
        return not self._halted

    def _settlement(self, letter: _Letter, verdict: Verdict) -> Settled:
        device, now = letter.device, self._now
        self._stop_reason = self._stop_reason or self._breaker.hear(verdict, device.platform or "")
        if self._stop_reason and not self._halted:
            self._halt()
        if verdict.kind == "accepted":
            return Settled(device.id, SendState.ACCEPTED, "", verdict.name)
        if (reason := REMOVES.get(verdict.kind)) is not None:
            self._dead.append(Dead(device.id, letter.address, device.registered_at, reason))
        if verdict.kind == "misconfigured":
            return Settled(device.id, SendState.PENDING, verdict.code)
        if verdict.kind in AGAIN and self._is_worth_trying(letter.due):
            due_at = now + (verdict.after_s or 0.0)
            return Settled(device.id, SendState.PENDING, verdict.code, due_at=due_at)
        return Settled(device.id, SendState.FAILED, verdict.code or verdict.kind)

    def _is_worth_trying(self, due: DueSend) -> bool:
        """Until an hour after it was due; what began late, by its pace or a pause, has as many attempts."""
        return self._now - due.first_due_at < GIVE_UP_S or due.attempts + 1 < ATTEMPTS_IN_AN_HOUR

    # -- settling --------------------------------------------------------------------------------------

    async def _keep_settling(self) -> None:
        while True:
            await self._run.clock.sleep(SETTLE_S)
            with contextlib.suppress(Exception):  # they are kept; `_settle_all` says so when it stays
                await asyncio.shield(self._settle())

    async def _settle_all(self) -> None:
        """Write every answer there is, however long the disk refuses: lost, they would all be sent again."""
        failing = False
        while True:
            try:
                return await self._settle()
            except Exception as error:
                if self._leaving:
                    raise
                if not failing:
                    self._run.log(f"answers cannot be written yet: {error!r}"[:300], "warning")
                failing = True
            await self._run.clock.sleep(DISK_S)

    async def _settle(self) -> None:
        """Take dead addresses out of the registry, then write the answers: those are not asked for again."""
        async with self._settling:
            settled = self._settled[:]
            if dead := self._dead[:]:
                await self._parts.registry.remove(dead)
                del self._dead[: len(dead)]
            if settled:
                await asyncio.to_thread(self._store.settle, self.row.id, settled, self._now)
                del self._settled[: len(settled)]
                self._count(settled)
                await self._note_progress()

    async def _note_progress(self) -> None:
        """Say now and then that this attempt got somewhere, so that the failures before it count no more."""
        if self._run.clock.monotonic() - self._saved_s >= SAVE_S:
            self._saved_s = self._run.clock.monotonic()
            await self._run.save({})

    def _count(self, settled: Sequence[Settled]) -> None:
        ended = [one.state for one in settled if one.state is not SendState.PENDING]
        self._run.count(
            read=len(ended),
            written=ended.count(SendState.ACCEPTED),
            skipped=ended.count(SendState.SKIPPED),
            failed=ended.count(SendState.FAILED),
        )
        self._run.progress(self._run.state.done + len(ended))

    # -- ending ----------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """End the campaign, stop it, or come back for what is due later."""
        if self._halted and self._is_outdated:
            raise Snooze(LOOK_S, "the configuration was changed")
        if self._stop_reason:
            await self._stop(self._stop_reason)
            return
        row = await asyncio.to_thread(self._store.find, self.row.id)
        if row is not None and row.state == "scheduled":
            raise Snooze(LOOK_S, "it was resumed")
        if row is None or row.state != "sending":
            self._run.log(f"{row.state if row else 'gone'}: what was not sent stays unsent")
            return
        next_due = await asyncio.to_thread(self._store.next_due, self.row.id)
        if next_due is not None:
            await self._run.save({})
            raise Snooze(min(self._wait_s(next_due), LONGEST_NAP_S), "the rest is due later")
        await self._disable_mismatched()
        await self._move("done")

    def _wait_s(self, next_due: float) -> float:
        """When to come back; at once where only its turn is over, but not into a pause of the pace."""
        shortest_s = self._sender.pace.paused_s if self._has_had_its_turn else LOOK_S
        return max(next_due - self._now, shortest_s)

    async def _disable_mismatched(self) -> None:
        """Take addresses of another project out, where the key proved right for most of the others (P014)."""
        wrong = await asyncio.to_thread(self._store.failed_with, self.row.id, MISMATCH)
        if not wrong:
            return
        found = totals(await asyncio.to_thread(self._store.counts, self.row.id))
        if len(wrong) > self._parts.settings.mismatches * (len(wrong) + found["accepted"]):
            self._run.log(f"{len(wrong)} addresses, too many to be sure, are of another project", "warning")
            return
        await self._parts.registry.disable(wrong, MISMATCH, before=self._began)
        self._run.log(f"{len(wrong)} addresses belong to another Firebase project: disabled", "warning")
