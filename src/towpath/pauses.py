"""Pauses: the destination's own check confirms a refused credential before anything stands still (P6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

import structlog

from .connection import Connection
from .destination import Scope
from .log import Ledger, Pause
from .outcome import Paused

PROBE_S = 60.0
BY_HAND = "*"
ACCOUNT = ""
DELETES = "deletes"
"""The capability of deleting people, which the delete guard pauses; only its `decide` lifts that."""

log = structlog.get_logger("towpath.pause")


class Verdict(Enum):
    """What the destination's check says about a refusal."""

    REFUSED = auto()
    ACCEPTED = auto()
    UNKNOWN = auto()


class Pauses:
    """The pauses of one connection. `changed` is called with a capability that may go on."""

    def __init__(
        self, connection: Connection, ledger: Ledger, scope: Scope, changed: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._scope = scope
        self._changed = changed
        self._in_force: dict[str, Pause] = {}
        self._checks: dict[str, asyncio.Future[Verdict]] = {}
        self._held: set[str] = set()

    @property
    def in_force(self) -> list[Pause]:
        """All pauses, by hand and by refusal."""
        return list(self._in_force.values())

    @property
    def everything(self) -> bool:
        """Whether the whole connection stands still."""
        return BY_HAND in self._in_force or ACCOUNT in self._in_force or ACCOUNT in self._checks

    @property
    def guarded(self) -> bool:
        """Whether deletions wait for somebody to confirm them."""
        return DELETES in self._in_force

    def blocks(self, capability: str) -> bool:
        """Whether deliveries that need this capability wait: it is paused, or in doubt."""
        in_doubt = capability in self._checks or capability in self._held
        return self.everything or capability in self._in_force or in_doubt

    def hold(self, capability: str) -> None:
        """Have what needs this capability wait, for a moment and unsaid, until `let_go`."""
        self._held.add(capability)

    def let_go(self, capability: str) -> None:
        """Have what was held go on, or meet its pause."""
        self._held.discard(capability)
        self._changed(capability)

    async def restore(self) -> None:
        """Load the pauses that were in force before a restart."""
        for pause in await self._ledger.pauses():
            if pause.connection == self._connection.name:
                self._in_force[pause.capability] = pause

    async def confirm(self, capability: str, refusal: Paused) -> Verdict:
        """Ask the destination's check about a refusal; one check at a time, shared by all who doubt."""
        running = self._checks.get(capability)
        if running is not None:
            return await asyncio.shield(running)
        if self.blocks(capability):
            return Verdict.REFUSED
        answer = self._checks[capability] = asyncio.get_running_loop().create_future()
        try:
            verdict, refused = await self._check(capability)
            if verdict is Verdict.REFUSED:
                await self.keep(self.begin(refused, refusal.reason))
        except BaseException:
            answer.cancel()
            raise
        finally:
            del self._checks[capability]
        answer.set_result(verdict)
        # Also after a refusal: it may concern less than what stood still while in doubt.
        self._changed(capability)
        return verdict

    async def _check(self, capability: str) -> tuple[Verdict, str]:
        """Return the check's verdict, and the capability it refuses ("" for the whole account)."""
        try:
            checks = await self._connection.destination.check(self._scope)
        except Exception as error:
            log.warning("check did not answer", connection=self._connection.name, error=str(error))
            return Verdict.UNKNOWN, capability
        if not all(check.ok or check.reached for check in checks):
            return Verdict.UNKNOWN, capability
        failed = [check for check in checks if not check.ok and check.capability in (ACCOUNT, capability)]
        refused = [check.capability for check in failed if check.reached]
        if ACCOUNT in refused:
            return Verdict.REFUSED, ACCOUNT
        if capability in refused:
            return Verdict.REFUSED, capability
        return (Verdict.UNKNOWN if failed else Verdict.ACCEPTED), capability

    def begin(self, capability: str, reason: str) -> Pause:
        """Stand still from this moment on; `keep` makes it last."""
        pause = Pause(self._connection.name, capability, reason, self._scope.clock.now())
        self._in_force[capability] = pause
        waits = "paused: everything waits, nothing is lost"
        log.error(
            "paused: deletions wait, nothing is lost" if capability == DELETES else waits,
            connection=pause.connection, capability=capability, reason=reason,
        )  # fmt: skip
        return pause

    async def keep(self, pause: Pause) -> None:
        """Write a pause down for the time after a restart."""
        try:
            await self._ledger.pause(pause)
        except Exception as error:
            # It holds until a restart; then the next refusal finds it again.
            log.error("a pause could not be kept", connection=pause.connection, error=str(error))

    async def by_hand(self, reason: str) -> None:
        """Stand still until `resume`."""
        await self.keep(self.begin(BY_HAND, reason))

    async def resume(self) -> None:
        """Go on, whatever the reason for standing still was; a refusal that still holds pauses again.

        But what the delete guard holds goes on waiting: that is for somebody to confirm who looked at it.
        """
        await self.restore()  # the loop may not have begun yet
        for capability in list(self._in_force):
            if capability != DELETES:
                await self.lift(capability)

    async def lift(self, capability: str) -> None:
        """Let what needs this capability go on."""
        await self._ledger.resume(self._connection.name, capability)
        self._in_force.pop(capability, None)
        log.warning("resumed", connection=self._connection.name, capability=capability)
        self._changed(capability)

    async def watch(self) -> None:
        """Probe refused capabilities once a minute, for ever, and resume those that work again."""
        while True:
            await self._scope.clock.sleep(PROBE_S)
            try:
                await self.recheck()
            except Exception as error:
                log.warning("probing failed", connection=self._connection.name, error=repr(error))

    async def recheck(self) -> None:
        """Probe refused capabilities now: new credentials may have come."""
        for capability in [name for name in self._in_force if name not in (BY_HAND, DELETES)]:
            verdict, _ = await self._check(capability)
            if verdict is Verdict.ACCEPTED:
                await self.lift(capability)
