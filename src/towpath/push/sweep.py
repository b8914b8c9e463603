"""The job that keeps the registry clean: stale tokens are removed, what is without use is forgotten."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from ..destination import Settings
from ..jobs import Job, Run
from .registry import Registry

UNUSED_S = 270 * 86400.0
"""A removed device is remembered as long as FCM keeps an Android registration."""


class SweepSettings(Settings):
    """How the sweep is run."""

    dry_run: bool = Field(default=False, description="Count what would be removed, and remove nothing.")


class Sweep(Job[SweepSettings]):
    """Removes addresses whose token was not reported for two months (P011)."""

    kind = "sweep"
    about = "Removes devices whose token was not reported for two months, and forgets those long removed."
    Settings = SweepSettings
    pool = "upkeep"

    def __init__(self, registry: Callable[[], Registry]) -> None:
        self._registry = registry

    async def run(self, run: Run[SweepSettings]) -> None:
        """Sweep, then prune; both bear repeating."""
        dry = run.settings.dry_run
        swept = await self._registry().sweep(dry_run=dry)
        if swept.refused:
            run.log(swept.refused, "warning")
        pruned = await self._registry().prune(UNUSED_S, dry_run=dry)
        run.count(written=0 if dry else swept.removed + pruned)
        would = "would be " if dry else ""
        run.log(f"{swept.removed} devices {would}removed as stale; {pruned} long removed {would}forgotten")
