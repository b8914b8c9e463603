"""A whole campaign in this process: enlisting, claiming, bodies, pace, ledger and registry, on disk.

FCM answers at once and without a network, so this is what a campaign costs the hub beside the request itself
(bench/fcm.py). Printed: devices a second and CPU per 10,000 sends, for a text that is the same for all and
for one with merge tags. Run: python bench/campaigns.py [--devices 50000] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import structlog
import uvloop

from towpath.clock import SystemClock
from towpath.device import Address, Noted, Profiled, Registered
from towpath.jobs import Run
from towpath.jobs.runner import Jobs
from towpath.push.campaigns import CampaignDesk, Launch
from towpath.push.mailing import CampaignJob, CampaignRun
from towpath.push.pace import Pace
from towpath.push.parts import Parts
from towpath.push.registry import Registry
from towpath.push.sender import Sender
from towpath.push.settings import PushSettings
from towpath.push.verdict import Verdict
from towpath.state import State

PAGE = 2000
CAMPAIGNS = {
    "same": {"title": "Hello", "body": "there"},
    "named": {"title": "Hi {traits.first_name|you}", "body": "on {context.device.type}"},
}
ACCEPTED = Verdict("accepted", name="projects/p/messages/0:1500415314455276%31bd1c9631bd1c96", status=200)


class Instant:
    """An FCM that takes everything at once, as fast as it comes."""

    in_flight = 64

    def __init__(self) -> None:
        self.pace = Pace(SystemClock(), 1e6, ramp_s=0.0)

    async def send_now(self, body: bytes, *, attempt: int = 1) -> Verdict:
        await asyncio.sleep(0)
        return ACCEPTED


class Bench:
    """A registry of so many devices, and campaigns to all of them."""

    def __init__(self, directory: Path) -> None:
        self.clock = SystemClock()
        self.state = State.open(directory)
        self.settings = PushSettings.model_validate({"campaigns": CAMPAIGNS})
        self.registry = Registry(self.state.engine, "p", self.clock, self.settings)
        sender = cast("Sender", Instant())
        self.parts = Parts(self.registry, self.state.campaigns, sender, self.settings)
        self.jobs = Jobs(self.state.jobs, self.clock)
        self.job = CampaignJob(lambda: self.parts)

    async def fill(self, devices: int) -> None:
        for first in range(0, devices, PAGE):
            numbers = range(first, min(first + PAGE, devices))
            await self.registry.apply([_noted(number, self.clock.now()) for number in numbers])

    async def campaign(self, code: str) -> None:
        await self.jobs.register(self.job)
        row = await CampaignDesk(lambda: self.parts, self.jobs, self.clock).launch(Launch(code))
        run = Run(1, CampaignRun(campaign=row.id), self.clock, persist=_kept)
        await self.job.run(run)
        found = self.state.campaigns.find(row.id)
        assert found is not None
        assert found.state == "done", found


async def _kept(_: str) -> None:
    return None


def _noted(number: int, now: float) -> Noted:
    person = f"u{number // 2}"
    told = Registered(
        device=f"d{number}", person=person, address=Address("token", f"t{number}"), platform="ios", at=now
    )
    profile = Profiled(person=person, at=now, traits={"first_name": f"Ada {number}"})
    return Noted(f"m{number}", (profile, told), now)


async def measure(devices: int, *, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        await bench.fill(devices)
        for code in CAMPAIGNS:
            await _timed(bench, code, devices, profile=profile)
        bench.jobs.close()
        bench.state.close()


async def _timed(bench: Bench, code: str, devices: int, *, profile: bool) -> None:
    profiler = cProfile.Profile() if profile else None
    wall, cpu = time.perf_counter(), time.process_time()
    if profiler is not None:
        profiler.enable()
    await bench.campaign(code)
    if profiler is not None:
        profiler.disable()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = cpu / devices * 1e4
    print(f"{code:<8} {devices:>8,} devices {devices / wall:>8,.0f}/s {each:>8.2f} CPU-s per 10,000")
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--devices", type=int, default=50_000)
    options.add_argument("--profile", action="store_true")
    given: Any = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    uvloop.run(measure(given.devices, profile=given.profile))


if __name__ == "__main__":
    main()
