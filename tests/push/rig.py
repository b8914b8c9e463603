"""What campaign tests stand on: a real state.db, the registry, a scripted FCM, a clock that never waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from towpath.device import Address, Noted, Platform, Profiled, Registered, Traits
from towpath.jobs import Run, Snooze
from towpath.jobs.runner import Jobs
from towpath.notice import Notice
from towpath.push.campaigns import CampaignDesk, Launch
from towpath.push.mailing import CampaignJob, CampaignRun
from towpath.push.pace import Pace
from towpath.push.parts import Parts
from towpath.push.registry import Registry
from towpath.push.segment import Accounts, NoAccounts
from towpath.push.sender import Sender
from towpath.push.settings import PushSettings
from towpath.push.verdict import Verdict
from towpath.state import State
from towpath.state.campaigns import CampaignRow, SendState
from towpath.testing.fakes import FakeClock

ACCEPTED = Verdict("accepted", name="projects/p/messages/1", status=200)
DEAD = Verdict("unregistered", "UNREGISTERED", "Requested entity was not found.", status=404)
INVALID = Verdict("invalid_token", "INVALID_ARGUMENT", "not a valid token", status=400)
WRONG = Verdict("wrong_message", "INVALID_ARGUMENT", "Invalid value at 'message.data'", status=400)
MISMATCH = Verdict("mismatch", "SENDER_ID_MISMATCH", "SenderId mismatch", status=403)
REFUSED = Verdict("misconfigured", "PERMISSION_DENIED", "the API is disabled", status=403)
NO_APNS = Verdict("platform_misconfigured", "THIRD_PARTY_AUTH_ERROR", "upload the APNs key", status=401)
BUSY = Verdict("unavailable", "UNAVAILABLE", "overloaded", after_s=10.0, status=503)
THROTTLED = Verdict("throttled", "QUOTA_EXCEEDED", "quota", after_s=60.0, status=429)
DEVICE_THROTTLED = Verdict("device_throttled", "QUOTA_EXCEEDED", "device", after_s=60.0, status=429)
SILENT = Verdict("unknown", "NO_ANSWER", "it may have been taken", after_s=10.0)

Script = Callable[[str, dict[str, Any]], Verdict | None]


class ScriptedSender:
    """Answers by the address's script, else accepts; keeps every body it was given."""

    def __init__(self, clock: FakeClock) -> None:
        self.in_flight = 4
        self.pace = Pace(clock, 5000.0, ramp_s=0.0)
        self.bodies: list[dict[str, Any]] = []
        self.scripts: dict[str, list[Verdict]] = {}
        self.before: Callable[[str], Any] = lambda _: None

    async def send(self, body: bytes, *, attempt: int = 1) -> Verdict:
        """One attempt, whatever the pace."""
        return await self.send_now(body, attempt=attempt)

    async def send_now(self, body: bytes, *, attempt: int = 1) -> Verdict:
        """One attempt."""
        del attempt
        request = msgspec.json.decode(body)
        message = request["message"]
        address = message.get("token") or message["fid"]
        await asyncio.sleep(0)
        told = self.before(address)
        if asyncio.iscoroutine(told):
            await told
        self.bodies.append(request)
        script = self.scripts.get(address)
        if not script:
            return ACCEPTED
        return script.pop(0) if len(script) > 1 else script[0]

    def script(self, address: str, *verdicts: Verdict) -> None:
        """What an address answers, one verdict after another; the last one for good."""
        self.scripts[address] = list(verdicts)

    @property
    def told(self) -> Counter[str]:
        """How often each address was sent to."""
        return Counter(body["message"].get("token") or body["message"]["fid"] for body in self.bodies)


class Rig:
    """A project with devices, and campaigns of which `work` does one attempt."""

    def __init__(self, directory: Path, **push: Any) -> None:
        self.clock = FakeClock()
        self.state = State.open(directory, self.clock)
        self.settings = PushSettings.model_validate(push)
        self.registry = Registry(self.state.engine, "p", self.clock, self.settings)
        self.sender = ScriptedSender(self.clock)
        self.jobs = Jobs(self.state.jobs, self.clock)
        self.job = CampaignJob(lambda: self.parts)
        self.desk = CampaignDesk(lambda: self.parts, self.jobs, self.clock)
        self.accounts: Accounts = NoAccounts()
        self._noted = 0

    @property
    def parts(self) -> Parts:
        notices = {code: Notice(made, code) for code, made in self.settings.campaigns.items()}
        sender = cast("Sender", self.sender)
        return Parts(
            self.registry, self.state.campaigns, sender, self.settings, notices, accounts=self.accounts
        )

    async def begin(self) -> Rig:
        await self.jobs.register(self.job)
        return self

    async def device(
        self,
        device: str,
        person: str | None = None,
        *,
        platform: Platform = "android",
        token: str | None = None,
        **traits: str,
    ) -> None:
        """Register a device whose token is `t-<device>`, now."""
        told = Registered(
            device=device,
            person=person or device,
            address=Address("token", token or f"t-{device}"),
            platform=platform,
            at=self.clock.now(),
            traits=Traits(**traits),
        )
        await self.note(told)

    async def person(self, person: str, consent: bool | None = None, **traits: Any) -> None:
        """Tell of a person."""
        await self.note(Profiled(person=person, at=self.clock.now(), traits=traits, consent=consent))

    async def note(self, event: Any) -> None:
        self._noted += 1
        await self.registry.apply([Noted(f"m{self._noted}", (event,), self.clock.now())])

    async def launch(self, code: str = "hello", **launch: Any) -> int:
        """Make a campaign without working on it; its number."""
        return (await self.desk.launch(Launch(code, **launch))).id

    async def work(self, campaign: int) -> float | None:
        """Do one attempt; how long it wants to wait then, None when it does not come back."""
        run = Run(1, CampaignRun(campaign=campaign), self.clock, persist=_kept)
        try:
            await self.clock.drive(self.job.run(run))
        except Snooze as snooze:
            return snooze.after_s
        return None

    async def finish(self, campaign: int) -> CampaignRow:
        """Work until the campaign does not come back."""
        for _ in range(1000):
            wait_s = await self.work(campaign)
            if wait_s is None:
                return self.row(campaign)
            await self.clock.advance(wait_s)
        raise AssertionError("the campaign never ends")

    def row(self, campaign: int) -> CampaignRow:
        found = self.state.campaigns.find(campaign)
        assert found is not None
        return found

    def sends(self, campaign: int) -> Mapping[str, tuple[str, str]]:
        """Device → (state, code) of every send."""
        rows = self.state.campaigns.sends(campaign, limit=1000)
        return {row["device"]: (SendState(row["state"]).name.lower(), row["code"]) for row in rows}

    async def standing(self, device: str) -> tuple[str, str]:
        found = await self.registry.find(device)
        assert found is not None
        return found.status, found.reason

    async def close(self) -> None:
        self.jobs.close()
        self.state.close()


async def _kept(_: str) -> None:
    return None


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what would be done in threads at once, so that virtual time stands still meanwhile."""

    async def here(do: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        return do(*arguments, **named)

    monkeypatch.setattr(asyncio, "to_thread", here)
