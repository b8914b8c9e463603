"""An outage: while a destination is down for everybody, one head is tried now and then; then all go on."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from .clock import Clock
from .dispatch import Dispatch
from .health import Health
from .lanes import Lane, Lanes, Stand
from .parking import NEVER, Parking

log = structlog.get_logger("towpath.outage")


class Outage:
    """Probes one connection's destination. `wish_s` is how long it asked us to wait at the last probe."""

    def __init__(
        self,
        connection: str,
        clock: Clock,
        health: Health,
        lanes: Lanes,
        dispatch: Dispatch,
        parking: Parking,
        proceed: Callable[[Lane], None],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._health = health
        self._lanes = lanes
        self._dispatch = dispatch
        self._parking = parking
        self._proceed = proceed
        self.wish_s = 0.0

    async def probe(self) -> None:
        """Try one head at a time until somebody succeeds."""
        log.warning("stalled: many persons fail and none succeeds", connection=self._connection)
        while self._health.stalled:
            await self._clock.sleep(max(self._health.probe_delay_s(), self.wish_s))
            if self._health.stalled:
                self._try_one()

    def _try_one(self) -> None:
        """Send the head tried least: one that can never work must not stand for all the others."""
        waiting = [lane for lane in self._lanes.standing(Stand.HELD, Stand.READY) if lane.items]
        if waiting:
            lane = min(waiting, key=lambda lane: (lane.items[0].attempts, lane.items[0].key))
            self._dispatch.probe(lane)
            return
        parked = [lane for lane in self._lanes.standing(Stand.PARKED) if lane.due < NEVER]
        if parked and self._parking.loadable:
            self._dispatch.probe()
            self._parking.open(min(parked, key=lambda lane: lane.due), early=True)

    def over(self) -> None:
        """Somebody succeeded: everybody who waited for it goes on."""
        log.warning("recovered", connection=self._connection)
        self.wish_s = 0.0
        for lane in self._lanes.standing(Stand.HELD):
            self._proceed(lane)
        self._parking.open_due()
        self._dispatch.go_on()
