"""How a configuration says when something runs by itself: by `schedule`, or by `every`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from ..destination import Settings
from ..errors import TowpathError
from ..units import Duration
from .schedule import Schedule


def _some_time(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than no time")
    return value


Positive: TypeAlias = Annotated[Duration, AfterValidator(_some_time)]


class Repeated(Settings):
    """When something runs by itself: by `schedule` or by `every`, or not at all."""

    schedule: str | None = Field(
        default=None, description="Five cron fields: minute, hour, day, month, weekday, like `17 3 * * *`."
    )
    every: Positive | None = Field(default=None, description="The time from one run to the next.")
    timezone: str = Field(default="UTC", description="Where the clock of `schedule` hangs: `Europe/Berlin`.")
    jitter: Duration = Field(default=timedelta(0), description="Each time comes later by 0…this, by chance.")

    @model_validator(mode="after")
    def _comes(self) -> Repeated:
        try:
            if self.repeats:
                self.times()
        except TowpathError as error:
            raise ValueError(f"cannot be used: {error.title}; {error.fix}") from None
        return self

    @property
    def repeats(self) -> bool:
        """Whether it runs by itself at all."""
        return self.schedule is not None or self.every is not None

    def times(self) -> Schedule:
        """What the runner takes. Raises `TowpathError`."""
        every_s = self.every.total_seconds() if self.every else 0.0
        return Schedule(self.schedule or "", every_s, self.timezone, self.jitter.total_seconds())


class JobBlock(Repeated):
    """When a job runs by itself: by `schedule` or by `every`, one of the two."""

    @property
    def repeats(self) -> bool:
        """Always: one of the two is needed."""
        return True
