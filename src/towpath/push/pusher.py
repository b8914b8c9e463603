"""Pushes that events ask for: to each device of a person once, whatever is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from ..clock import Clock
from ..device import Address, Device
from ..mapping.paths import Unusable
from ..notice import Bodies, Notice, Trigger
from ..outcome import Delivered, Outcome, Paused, Rejected, Retry, Skipped
from ..state.campaigns import Campaigns, SendState, Settled, Single, Stood
from .audience import NOBODY, Person, unreachable
from .hours import Quiet, end_of_quiet, zone
from .mailing import AGAIN, FRESH_S, REMOVES
from .parts import Parts
from .registry import Dead
from .sender import GIVE_UP_S, Sender
from .together import Together
from .verdict import Verdict

WRITTEN_AT_ONCE = 1000
NEW = Stood(SendState.PENDING, 0.0)
ENDED = frozenset({SendState.ACCEPTED, SendState.FAILED, SendState.SKIPPED})


class _Told(Struct, frozen=True):
    """What one device got: FCM's verdict, or that it had been told before."""

    device: Device
    verdict: Verdict | None


class Pushes:
    """Implements `device.Pusher` for one connection; `parts` gives what is in force."""

    def __init__(
        self, connection: str, campaigns: Campaigns, sender: Sender, parts: Callable[[], Parts], clock: Clock
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._parts = parts
        self._clock = clock
        self._begun: Together[Single, Mapping[str, Stood]] = Together(
            lambda some: campaigns.begin_singles(some, clock.now()), WRITTEN_AT_ONCE
        )
        self._settled: Together[tuple[str, Sequence[Settled]], None] = Together(
            lambda some: campaigns.settle_singles(some, clock.now()), WRITTEN_AT_ONCE
        )

    async def push(self, key: str, person: str, trigger: Trigger) -> Outcome:
        """Send what an event asks for to all devices of a person; see `device.Pusher`."""
        campaigns = self._parts().notices
        notice = trigger.notice or campaigns.get(trigger.code)
        if notice is None:
            known = ", ".join(sorted(campaigns)) or "none"
            return Rejected(f"there is no campaign {trigger.code!r} in push.campaigns (known: {known})")
        devices = await self._parts().registry.of_person(person)
        known_person = (await self._parts().registry.people({person})).get(person, NOBODY)
        if (skipped := _skipped(devices, known_person, trigger)) is not None:
            return skipped
        now = self._clock.now()
        awake, wakes_at = self._awake(devices, self._quiet(trigger), now)
        if not awake:
            return Retry("quiet hours", max(wakes_at - now, 1.0))
        outcome = await self._tell(f"{self._connection}:{key}", person, awake, known_person, trigger, notice)
        if wakes_at and isinstance(outcome, Delivered | Skipped):
            return Retry("quiet hours for some of the devices", max(wakes_at - now, 1.0))
        return outcome

    def _quiet(self, trigger: Trigger) -> Quiet | None:
        """The quiet hours of the campaign, or the section's. An event's own notice has none."""
        if trigger.notice is not None:
            return None
        settings = self._parts().settings
        return settings.quiet(settings.campaigns.get(trigger.code))

    def _awake(
        self, devices: Sequence[Device], quiet: Quiet | None, now: float
    ) -> tuple[list[Device], float]:
        """The devices that may be told now, and when the first of the others may."""
        ends = [
            end_of_quiet(now, zone(one.traits.timezone, self._parts().settings.timezone), quiet)
            for one in devices
        ]
        awake = [device for device, end in zip(devices, ends, strict=True) if end is None]
        return awake, min((end for end in ends if end is not None), default=0.0)

    async def _tell(
        self,
        key: str,
        person: str,
        devices: Sequence[Device],
        known: Person,
        trigger: Trigger,
        notice: Notice,
    ) -> Outcome:
        now = self._clock.now()
        bodies = Bodies(notice, trigger.id, event=trigger.message)
        try:
            made = {
                device.id: bodies.body(device, address, known.traits, now)
                for device in devices
                if (address := device.address) is not None
            }
        except Unusable as error:
            return Rejected(f"the push cannot be made: {error}")
        before = await self._begun.ask(Single(key, person, list(made)))
        left = [device for device in devices if before.get(device.id, NEW).state not in ENDED]
        if any(now - before[device.id].since > GIVE_UP_S for device in left if device.id in before):
            return Rejected("FCM did not accept it within an hour")
        told = await self._send(key, left, made)
        kept = [_Told(device, None) for device in devices if device not in left]
        return _outcome([*told, *kept])

    async def _send(self, key: str, devices: Sequence[Device], made: Mapping[str, bytes]) -> Sequence[_Told]:
        """Send to each device, and keep every answer. Raises what became of the first without one.

        A device that went to somebody else while it waited for its place is left out.
        """
        sending = (self._sent(device, made[device.id]) for device in devices)
        said = await asyncio.gather(*sending, return_exceptions=True)
        told = [
            _Told(device, one) for device, one in zip(devices, said, strict=True) if isinstance(one, Verdict)
        ]
        await self._keep(key, told)
        left = [device.id for device, one in zip(devices, said, strict=True) if one is None]
        if left:
            await self._settled.ask((key, [Settled(one, SendState.SKIPPED, "moved") for one in left]))
        for one in said:
            if isinstance(one, BaseException):
                raise one
        return told

    async def _sent(self, device: Device, body: bytes) -> Verdict | None:
        """Send when the pace has a place; None where the device is not to be told any more by then."""
        began_s = self._clock.monotonic()
        await self._sender.pace.admit(urgent=True)
        if self._clock.monotonic() - began_s > FRESH_S and not await self._is_still_theirs(device):
            return None
        if device.person is not None and self._parts().held_back(device.person):
            return None
        return await self._sender.send_now(body)

    async def _is_still_theirs(self, device: Device) -> bool:
        """Whether a device is, and is reached, as it was when its push was made, and its person agrees."""
        now = (await self._parts().registry.find_many([device.id])).get(device.id)
        if now is None or (now.person, now.address) != (device.person, device.address):
            return False
        people = await self._parts().registry.people({device.person or ""})
        return not unreachable(now, people.get(device.person or "", NOBODY))

    async def _keep(self, key: str, told: Sequence[_Told]) -> None:
        """Take dead addresses out of the registry, then write what became of each device.

        In this order: an answer that is written is not asked for again, after a crash neither.
        """
        dead = [made for one in told if (made := _dead(one)) is not None]
        if dead:
            await self._parts().registry.remove(dead)
        await self._settled.ask((key, [_settled(one) for one in told]))


def _skipped(devices: Sequence[Device], person: Person, trigger: Trigger) -> Skipped | None:
    """Why a push goes to nobody."""
    if not devices:
        return Skipped("no_devices", "the person has no device that can be reached")
    if trigger.identified and all(device.provisional for device in devices):
        return Skipped("provisional", "nobody has signed in on the device")
    if why := unreachable(devices[0], person):
        return Skipped(why, "the person does not agree to pushes" if why == "consent" else "")
    return None


def _settled(told: _Told) -> Settled:
    verdict = told.verdict
    assert verdict is not None  # noqa: S101 - only what was just sent is settled
    if verdict.kind == "accepted":
        return Settled(told.device.id, SendState.ACCEPTED)
    state = SendState.IN_FLIGHT if verdict.kind in (*AGAIN, "misconfigured") else SendState.FAILED
    return Settled(told.device.id, state, verdict.code or verdict.kind)


def _dead(told: _Told) -> Dead | None:
    reason = REMOVES.get(told.verdict.kind) if told.verdict is not None else None
    address: Address | None = told.device.address
    if reason is None or address is None:
        return None
    return Dead(told.device.id, address, told.device.registered_at, reason)


def _outcome(told: Sequence[_Told]) -> Outcome:
    """One outcome of many verdicts: what has to be done again outweighs what worked."""
    verdicts = [one.verdict for one in told if one.verdict is not None]
    kinds = {verdict.kind for verdict in verdicts}
    for verdict in verdicts:
        if verdict.kind == "misconfigured":
            return Paused(f"FCM refuses the project or its key: {verdict.detail}", verdict.status)
    again = [verdict for verdict in verdicts if verdict.kind in AGAIN]
    if again:
        wish = max(verdict.after_s or 0.0 for verdict in again)
        return Retry(again[0].detail or again[0].kind, wish or None, code=again[0].status)
    reports = tuple(
        _report(one) for one in told if one.verdict is not None and one.verdict.kind != "accepted"
    )
    if "accepted" in kinds or len(verdicts) < len(told):
        return Delivered(200, reports)
    if kinds <= REMOVES.keys():
        return Skipped("no_devices", "; ".join(reports))
    return Rejected("; ".join(reports), verdicts[0].status)


def _report(told: _Told) -> str:
    verdict = told.verdict
    assert verdict is not None  # noqa: S101 - asked before
    gone = " (address removed)" if verdict.kind in REMOVES else ""
    return f"device {told.device.id}: {verdict.code or verdict.kind}{gone}"
