"""What people do with campaigns: rehearse, launch, pause, resume, cancel, and see how far they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from ..clock import Clock
from ..device import Device
from ..errors import TowpathError
from ..http import Undelivered
from ..jobs.runner import Jobs
from ..mapping.paths import Unusable
from ..notice import PLATFORMS, Bodies, Notice, about, preview, problems
from ..state.campaigns import CampaignRow, Count, NewCampaign, SendState
from ..state.jobs import JobRow
from .audience import NOBODY, Audience, Person, unreachable
from .hours import EARLIEST_ZONE_S, zone
from .mailing import JOB
from .parts import Parts
from .reach import Persons, listed, reachable
from .segment import everybody, unreadable
from .settings import CampaignSettings, SegmentSettings
from .verdict import Verdict

SAMPLE = 3
"""Of each platform, how many devices a rehearsal asks FCM about."""
LATEST_S = 2 * 86400.0
"""A time so long ago is a slip; within it, a local time may be over in some places."""
FARTHEST_S = 10 * 366 * 86400.0
AT_WORK = "E5202"
LAUNCHES = 40
LAUNCH_AGAIN_S = 0.25
WITHOUT_ID = "without_id"
"""Of a segment's people, those without an id in Customer.io: they can have no device here."""
NO_CAMPAIGN = "E4420"
NOT_SENDABLE = "E5301"
WRONG_MOVE = "E5302"
PLATFORM_OUT = ("THIRD_PARTY_AUTH_ERROR", "platform_misconfigured")
"""How sends fail where Firebase has no APNs key or Web Push certificate: those tried, and the rest."""


class Launch(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody asks to be sent: a code of the configuration, or a notice; changes on top; and when.

    `at` is an ISO time: with an offset one moment, without one the time zone's of the configuration; with
    `local` the clock on each device's wall. None is at once.
    """

    code: str
    changes: Mapping[str, Any] = {}
    at: str | None = None
    local: bool = False


class Rehearsal(Struct, frozen=True):
    """What a launch would do. `devices` counts whom it reaches by platform, `skipped` whom it would not.

    `previews` show, by platform, the exact request and its size; `verdicts` what FCM said of it without
    delivering (validate_only); `problems` what has to be corrected first.
    """

    devices: Mapping[str, int]
    persons: int
    skipped: Mapping[str, int]
    problems: Sequence[str]
    previews: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, str]]


class Standing(Struct, frozen=True):
    """A campaign and how far it is."""

    row: CampaignRow
    counts: Sequence[Count]


class CampaignDesk:
    """Takes the wishes of people; `parts` gives what is in force, `jobs` does the work."""

    def __init__(self, parts: Callable[[], Parts], jobs: Jobs, clock: Clock) -> None:
        self._parts = parts
        self._jobs = jobs
        self._clock = clock

    # -- asking ----------------------------------------------------------------------------------------

    async def newest(self, limit: int = 20) -> Sequence[Standing]:
        """The newest campaigns."""
        rows = await asyncio.to_thread(self._parts().campaigns.newest, limit)
        return [await self.show(row.id) for row in rows]

    async def show(self, campaign: int) -> Standing:
        """One campaign. Raises `TowpathError` when there is none."""
        row = await self._row(campaign)
        return Standing(row, await asyncio.to_thread(self._parts().campaigns.counts, campaign))

    async def runs(self, campaign: int) -> Sequence[JobRow]:
        """The newest runs that work on a campaign."""
        arguments = _arguments(campaign)
        return [run for run in await self._jobs.runs(JOB, (), 200) if run.arguments == arguments][:5]

    async def sends(self, campaign: int, state: str | None, limit: int) -> Sequence[Mapping[str, Any]]:
        """Single sends of a campaign. Raises `TowpathError` for a state there is not."""
        await self._row(campaign)
        known = {one.name.lower(): one for one in SendState}
        if state is not None and state not in known:
            raise TowpathError(
                f"no send is ever {state!r}", code=NO_CAMPAIGN, fix=f"one of: {', '.join(known)}"
            )
        wanted = () if state is None else (known[state],)
        rows = await asyncio.to_thread(self._parts().campaigns.sends, campaign, wanted, limit)
        return [{**row, "state": SendState(row["state"]).name.lower()} for row in rows]

    async def rehearse(self, launch: Launch) -> Rehearsal:
        """Count whom a launch reaches, and ask FCM about a sample; nothing is delivered or kept."""
        settings = self._settings(launch)
        audience, found = Audience(settings.audience), _Found()
        members = await self._members(settings.audience.segment, found)
        async for _, devices in reachable(self._parts().registry, audience, members=members):
            people = await self._people(devices, last_used=audience.by_last_use)
            for device in devices:
                found.add(device, people.get(device.person or "", NOBODY), audience)
        return await self._rehearsed(launch.code, settings, found)

    # -- doing -----------------------------------------------------------------------------------------

    async def launch(self, launch: Launch) -> CampaignRow:
        """Make a campaign, to begin when its time comes. Raises `TowpathError` for what cannot be sent."""
        self._sendable()
        settings = self._settings(launch)
        if found := _problems(settings, launch.code):
            raise TowpathError(
                f"{launch.code} cannot be sent: {found[0]}",
                code=NOT_SENDABLE,
                why="; ".join(found[1:4]),
                fix=f"correct it, then look at it with  towpath push send {launch.code} --dry-run",
                data="Nothing was sent.",
            )
        if (segment := settings.audience.segment) is not None:
            self._parts().accounts.check(segment.account)
        now = self._clock.now()
        due_at, local_at = self._moment(launch, now)
        told = settings.model_dump_json(by_alias=True)
        new = NewCampaign(launch.code, told, due_at, now, local_at)
        number = await asyncio.to_thread(self._parts().campaigns.add, new)
        await self._jobs.launch(JOB, {"campaign": number})
        return await self._row(number)

    async def pause(self, campaign: int) -> Standing:
        """Send no more until it is resumed; what is in flight ends."""
        return await self._move(campaign, "paused")

    async def cancel(self, campaign: int) -> Standing:
        """Send no more for good."""
        return await self._move(campaign, "cancelled")

    async def resume(self, campaign: int, *, retry_failed: bool = False) -> Standing:
        """Go on with one that was paused, that stopped itself, or whose run failed.

        `retry_failed` also sends to the devices of a platform that FCM had no credential for: they have got
        nothing, and their addresses are good. Then one that is done goes on as well.
        """
        self._sendable()
        row = await self._row(campaign)
        if retry_failed:
            await self._retry_failed(campaign)
        going_on = retry_failed and row.state == "done"
        if not going_on and (row.state not in UNDER_WAY or await self._is_worked_on(campaign)):
            await self._move(campaign, "scheduled")
        await self._launch_again(campaign)
        return await self.show(campaign)

    async def _retry_failed(self, campaign: int) -> None:
        retry = self._parts().campaigns.retry
        if not await asyncio.to_thread(retry, campaign, PLATFORM_OUT, self._clock.now()):
            raise TowpathError(
                f"campaign {campaign} has nothing to try again",
                code=NOT_SENDABLE,
                why="no send failed for want of a platform's credential, or it is at work or cancelled",
                fix="one at work is paused first:  towpath push campaigns pause",
                data="Nothing was sent or changed.",
            )

    async def _launch_again(self, campaign: int, cause: str = "hand") -> None:
        """Give a campaign a run; one that is just halting goes on, or makes room, as soon as it sees."""
        for _ in range(LAUNCHES):
            try:
                await self._jobs.launch(JOB, {"campaign": campaign}, cause)
            except TowpathError as error:
                if error.code != AT_WORK:
                    raise
                if (await self._row(campaign)).state == "sending":
                    return  # its run has gone on
                await self._clock.sleep(LAUNCH_AGAIN_S)
            else:
                return

    async def revive(self) -> None:
        """Give every campaign under way a run, where a crash came between the two."""
        for row in await asyncio.to_thread(self._parts().campaigns.newest, 1000, UNDER_WAY):
            if not await self._is_worked_on(row.id):
                await self._launch_again(row.id, "restart")

    async def _is_worked_on(self, campaign: int) -> bool:
        """Whether a run of a campaign lives, at work or waiting."""
        arguments = _arguments(campaign)
        return any(run.arguments == arguments for run in await self._jobs.runs(JOB, _LIVE, 1000))

    # -- parts -----------------------------------------------------------------------------------------

    async def _row(self, campaign: int) -> CampaignRow:
        row = await asyncio.to_thread(self._parts().campaigns.find, campaign)
        if row is None:
            raise TowpathError(
                f"there is no campaign {campaign}", code=NO_CAMPAIGN, fix="towpath push campaigns list"
            )
        return row

    async def _move(self, campaign: int, to: Any) -> Standing:
        row = await self._row(campaign)
        if not await asyncio.to_thread(self._parts().campaigns.move, campaign, to, self._clock.now()):
            raise TowpathError(
                f"campaign {campaign} is {row.state} and cannot become {to}",
                code=WRONG_MOVE,
                fix=f"towpath push campaigns show {campaign}",
                data="Nothing was changed.",
            )
        return await self.show(campaign)

    def _sendable(self) -> None:
        if self._parts().sender is None:
            raise TowpathError(
                "no FCM account is configured",
                code=NOT_SENDABLE,
                fix="add one of type fcm to accounts and name it as push.account",
                data="Nothing was sent.",
            )

    def _settings(self, launch: Launch) -> CampaignSettings:
        """The campaign's settings with the changes on top. Raises `TowpathError`."""
        known = self._parts().settings.campaigns
        base: dict[str, Any] = {}
        if launch.code in known:
            base = known[launch.code].model_dump(by_alias=True, exclude_unset=True, mode="json")
        elif not launch.changes.get("title") and not launch.changes.get("body"):
            listed = ", ".join(sorted(known)) or "none"
            raise TowpathError(
                f"there is no campaign {launch.code!r}",
                code=NOT_SENDABLE,
                fix=f"known: {listed}; or give --title and --body",
                data="Nothing was sent.",
            )
        changes = dict(launch.changes)
        audience = changes.pop("audience", {})
        if isinstance(audience, Mapping):  # else it is refused below, as any other value that does not fit
            audience = {**base.get("audience", {}), **audience}
        try:
            return CampaignSettings.model_validate({**base, **changes, "audience": audience})
        except ValidationError as error:
            raise _invalid(launch.code, error) from None

    def _moment(self, launch: Launch, now: float) -> tuple[float, str]:
        """When a campaign begins, and the wall clock's time where each device has its own."""
        if launch.at is None:
            if launch.local:
                raise _bad_time("local needs a time", "add --at 2030-12-24T09:00")
            return now, ""
        try:
            moment = datetime.fromisoformat(launch.at)
        except ValueError:
            raise _bad_time(f"{launch.at!r} is no time", "write it as 2030-12-24T09:00") from None
        if launch.local:
            if moment.tzinfo is not None:
                raise _bad_time("a local time has no offset", "leave the offset out, or leave out --local")
            first = moment.replace(tzinfo=UTC).timestamp() - EARLIEST_ZONE_S
            return _near(first, launch.at, now), launch.at
        place = zone(self._parts().settings.timezone)
        due_at = (moment if moment.tzinfo else moment.replace(tzinfo=place)).timestamp()
        return _near(due_at, launch.at, now), ""

    async def _people(self, devices: Sequence[Device], *, last_used: bool) -> Mapping[str, Person]:
        persons = {one.person for one in devices if one.person}
        return await self._parts().registry.people(persons, last_used=last_used)

    async def _members(self, segment: SegmentSettings | None, found: _Found) -> Persons | None:
        """Who is in a segment now. Raises `TowpathError`."""
        if segment is None:
            return None
        try:
            members = await everybody(self._parts().accounts, segment)
        except Undelivered as error:
            raise TowpathError(
                unreadable(segment, error),
                code=NOT_SENDABLE,
                fix="look at its number and at the account's app_api_key, or try again later",
                data="Nothing was sent.",
            ) from None
        found.skipped += Counter({WITHOUT_ID: members.nameless})
        return listed(members.persons)

    async def _rehearsed(self, code: str, settings: CampaignSettings, found: _Found) -> Rehearsal:
        said = list(_problems(settings, code))
        previews: dict[str, Any] = {}
        verdicts: list[Mapping[str, str]] = []
        notice = Notice(settings, code)
        for platform, samples in found.samples.items():
            for device, person in samples:
                try:
                    content = notice.fill(about(device, person.traits))
                    shown = preview(content, platforms=[device.platform] if device.platform else PLATFORMS)
                    previews[platform] = [msgspec.to_builtins(one) for one in shown]
                    said += [str(problem) for one in shown for problem in one.problems]
                    verdicts.append(await self._asked(notice, device, person))
                except Unusable as error:
                    said.append(f"{platform}: {error}")
        if not found.samples:
            previews = _for_nobody(notice)
            if found.left_out and not found.skipped:
                said.append(f"the audience takes none of the {found.left_out} devices looked at")
        skipped = dict(found.skipped)
        return Rehearsal(dict(found.devices), len(found.persons), skipped, said, previews, verdicts)

    async def _asked(self, notice: Notice, device: Device, person: Person) -> Mapping[str, str]:
        sender = self._parts().sender
        platform = device.platform or ""
        if sender is None or device.address is None:
            return {"platform": platform, "verdict": "not asked", "detail": "no FCM account is configured"}
        bodies = Bodies(notice, "rehearsal", validate_only=True)
        body = bodies.body(device, device.address, person.traits, self._clock.now())
        verdict: Verdict = await sender.send(body)
        return {"platform": platform, "verdict": verdict.kind, "detail": verdict.detail}


class _Found:
    """What a rehearsal saw of the registry."""

    def __init__(self) -> None:
        self.devices: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.left_out = 0
        self.persons: set[int] = set()
        self.samples: dict[str, list[tuple[Device, Person]]] = {}

    def add(self, device: Device, person: Person, audience: Audience) -> None:
        """Count a device."""
        if not audience.takes(device, person):
            self.left_out += 1
            return
        if why := unreachable(device, person):
            self.skipped[why] += 1
            return
        platform = device.platform or ""
        self.devices[platform] += 1
        self.persons.add(hash(device.person))
        samples = self.samples.setdefault(platform, [])
        if len(samples) < SAMPLE:
            samples.append((device, person))


UNDER_WAY = ("scheduled", "sending")
_LIVE = ("queued", "running", "snoozed", "cancelling")


def _arguments(campaign: int) -> str:
    """The arguments of a campaign's runs, as they are stored."""
    return msgspec.json.encode({"campaign": campaign}).decode()


def _for_nobody(notice: Notice) -> dict[str, Any]:
    """What each platform would get, with merge tags left to see: where there is no device to show it for."""
    try:
        content, _ = notice.sample(about(Device(id="", person=None), {}))
    except Unusable:
        return {}  # it is among the problems
    return {one.platform: [msgspec.to_builtins(one)] for one in preview(content)}


def _problems(settings: CampaignSettings, code: str) -> Sequence[str]:
    """What keeps a campaign from being sent, as far as that shows without knowing the person."""
    try:
        content, _ = Notice(settings, code).sample(about(Device(id="", person=None), {}))
    except Unusable as error:
        return [str(error)]
    return [str(problem) for problem in problems(content)]


def _near(due_at: float, told: str, now: float) -> float:
    """A moment that somebody can have meant, not before now: a slip of a year would send to all at once."""
    if due_at < now - LATEST_S:
        raise _bad_time(f"{told} is over", "leave --at out to send at once")
    if due_at > now + FARTHEST_S:
        raise _bad_time(f"{told} is more than ten years ahead", "write it as 2030-12-24T09:00")
    return max(due_at, now)


def _bad_time(title: str, fix: str) -> TowpathError:
    return TowpathError(title, code=NOT_SENDABLE, fix=fix, data="Nothing was sent.")


def _invalid(code: str, error: ValidationError) -> TowpathError:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return TowpathError(
        f"{code}: {where}: {detail['msg']}", code=NOT_SENDABLE, fix="correct it", data="Nothing was sent."
    )
