"""One connection at work: its delivery loop, watched, and started anew when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ..clock import Clock
from ..config import ConnectionEntry, DestinationEntry
from ..deliver import DeliveryLoop
from ..errors import TowpathError
from ..settler import Fenced

BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
LAND_S = 6.0
STOP_S = 9.0

log = structlog.get_logger("towpath.app")


class Running:
    """Keeps the loop of one connection going from `start` to `stop`.

    `make` makes a loop; a loop that failed is never used again. A loop that was fenced stays down: somebody
    else delivers.
    """

    def __init__(
        self,
        entry: ConnectionEntry,
        destination: DestinationEntry,
        clock: Clock,
        make: Callable[[], DeliveryLoop],
    ) -> None:
        self.entry = entry
        self.destination = destination
        self.loop = make()
        self.failures = 0
        self.failure = ""
        self.fenced = False
        self.down = False
        self._clock = clock
        self._make = make
        self._recent = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin delivering."""
        self._task = asyncio.create_task(self._keep_going())

    async def _keep_going(self) -> None:
        while True:
            started_s = self._clock.monotonic()
            try:
                return await self.loop.run()
            except Fenced:
                self.fenced = self.down = True
                log.error("another owner delivers on this connection", connection=self.entry.name)
                return None
            except Exception as error:
                delay_s = self._failed(error, self._clock.monotonic() - started_s)
            await self._clock.sleep(delay_s)
            self.loop, self.down = self._make(), False

    def _failed(self, error: Exception, lasted_s: float) -> float:
        """Note a failure of the loop; how long to wait before the next one starts."""
        self._recent = 0 if lasted_s >= STEADY_S else self._recent
        delay_s = BACK_OFF_S[min(self._recent, len(BACK_OFF_S) - 1)]
        self.down = True
        self.failures += 1
        self._recent += 1
        # The text of an error may hold what a message held; its kind and place do not, nor do our own titles.
        self.failure = (
            str(error.title)
            if isinstance(error, TowpathError)
            else f"{type(error).__name__} at {_place(error)}"
        )
        log.error(
            "a delivery loop failed and starts again: its deliveries wait, nothing is lost",
            connection=self.entry.name, error=self.failure, again_in_s=delay_s,
        )  # fmt: skip
        return delay_s

    async def stop(self) -> None:
        """End within `STOP_S`: calls under way may end, and what ended is settled."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await self.loop.stop(LAND_S)
                if not self.down:
                    await asyncio.wait([self._task], timeout=1.0)
        except Exception as error:
            log.error("a delivery loop did not stop well", connection=self.entry.name, error=repr(error))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
