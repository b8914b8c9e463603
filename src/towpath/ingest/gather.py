"""Appends of requests that arrive together, made one: the log is asked once per turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..log import Group, Log, Refused


class Gathering:
    """Stands before a log: a single event costs much less under load, and waits no longer without."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._groups: list[Group] = []
        self._refused: list[Refused] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._flushes: set[asyncio.Task[None]] = set()

    async def append(self, groups: Sequence[Group], refused: Sequence[Refused]) -> None:
        """Keep them; durable when it returns. Raises what the log raises, with nothing of these kept."""
        loop = asyncio.get_running_loop()
        if not self._waiters:
            # The task's turn comes after those of all requests that are ready now; they join in until then.
            flush = loop.create_task(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        self._groups += groups
        self._refused += refused
        waiter = loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def _flush(self) -> None:
        groups, refused, waiters = self._groups, self._refused, self._waiters
        self._groups, self._refused, self._waiters = [], [], []
        try:
            await self._log.append(groups, refused)
        except Exception as error:  # for those who wait, whatever it is
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)
        else:
            for waiter in waiters:
                if not waiter.done():  # its sender went away
                    waiter.set_result(None)
