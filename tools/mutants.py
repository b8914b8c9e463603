"""Break one rule of delivery at a time and see whether the tests notice: `python -m tools.mutants [NAME …]`.

Each mutant runs in a pytest of its own, with this module as the plugin that breaks the rule. A mutant that
survives is a rule no test guards; the exit code is then 1.
"""

# ruff: noqa: SLF001 - breaking what is inside is what a mutant is for
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parent.parent
VARIABLE = "TOWPATH_MUTANT"
SIMULATION = ("tests/simulation",)
UNITS = ("tests/deliver",)
SEEDS = "60"


def put(owner: object, name: str, value: object) -> None:
    """Replace a part of the running code."""
    setattr(owner, name, value)


def order_off() -> None:
    """Every message is a person of its own."""
    from towpath.identity import Identity

    async def person(self: Identity, message: Any, position: int) -> str:
        return f"{position}"

    put(Identity, "person", person)


def settle_before_next_off() -> None:
    """The next one starts before the end of the one before is on disk."""
    from towpath.settler import Settler

    put(Settler, "release_after", lambda self, lane: self._release([lane]))


def fence_off() -> None:
    """A loop that lost its lease goes on settling, and does not look at the lease."""
    from towpath import deliver
    from towpath.log.settle import Ends

    settle = Ends.settle

    def unfenced(self: Ends, connection: Any, lease: Any, settlement: Any) -> bool:
        sql = "SELECT epoch, owner FROM lease JOIN connection c ON c.id = lease.connection WHERE c.name = ?"
        epoch, owner = connection.execute(sql, (lease.connection,)).fetchone()
        return settle(self, connection, msgspec.structs.replace(lease, epoch=epoch, owner=owner), settlement)

    async def never(self: object) -> None:
        return None

    put(Ends, "settle", unfenced)
    put(deliver.DeliveryLoop, "_renewing", never)


def lease_ignored() -> None:
    """Calls start however old the lease is."""
    from towpath.dispatch import Dispatch

    put(Dispatch, "allow_until", lambda self, until_s: setattr(self, "_allowed_until_s", float("inf")))


def dedup_off() -> None:
    """Every copy of a message is kept."""
    from towpath.log.sqlite import SqliteStore

    append, count = SqliteStore.append, [0]

    async def renamed(self: SqliteStore, groups: Any, *rest: Any) -> Any:
        count[0] += 1
        fresh = [
            msgspec.structs.replace(
                group,
                entries=[
                    msgspec.structs.replace(entry, message_id=f"{entry.message_id}#{count[0]}")
                    for entry in group.entries
                ],
            )
            for group in groups
        ]
        return await append(self, fresh, *rest)

    put(SqliteStore, "append", renamed)


def retry_dropped() -> None:
    """The first failure is the last."""
    from towpath.retry import RetryPolicy

    put(RetryPolicy, "delay_s", lambda self, tried, now, *, alone, chance: None)


def retry_forever() -> None:
    """Nothing is ever given up."""
    from towpath.retry import RetryPolicy

    put(RetryPolicy, "_spent", lambda self, tried, now, *, alone: False)


def jitter_wild() -> None:
    """The waits are up to twice as long."""
    from towpath.retry import RetryPolicy

    delay = RetryPolicy.delay_s

    def wild(self: RetryPolicy, tried: Any, now: float, *, alone: bool, chance: float) -> float | None:
        return delay(self, tried, now, alone=alone, chance=chance * 5)

    put(RetryPolicy, "delay_s", wild)


def dead_reopened() -> None:
    """A refused delivery is tried again."""
    from towpath.deliver import DeliveryLoop
    from towpath.outcome import Rejected, Retry

    conclude = DeliveryLoop._conclude

    def reopen(self: DeliveryLoop, parcel: Any, outcome: Any) -> None:
        if isinstance(outcome, Rejected) and outcome.code == 422:
            for item in parcel.items:
                self._end(item, parcel.lane.person, outcome)
            outcome = Retry("once more")
        conclude(self, parcel, outcome)

    put(DeliveryLoop, "_conclude", reopen)


def link_merge_off() -> None:
    """A link does not join what waits."""
    from towpath.deliver import DeliveryLoop

    put(DeliveryLoop, "_join", lambda self, old, new: None)


def rows_not_renamed() -> None:
    """A link joins memory, not rows."""
    from towpath.settler import Settler

    put(Settler, "merge", lambda self, old, new: None)


def moved_phone_joins() -> None:
    """A phone that changes hands joins two users."""
    from towpath.identity import Identity

    async def join(self: Identity, old: str, new: str, position: int) -> Any:
        owner, target = await self.resolve(old, position - 1), await self.resolve(new, position - 1)
        if owner == target:
            return None, ""
        await self._link(owner, position, target)
        return (owner, target), ""

    put(Identity, "_join", join)


def follower_rule_off() -> None:
    """A follower of one that died has the whole schedule to itself."""
    from towpath.lanes import Item

    tried = Item.tried
    put(Item, "tried", lambda self: msgspec.structs.replace(tried(self), follower=False))


def short_budget_off() -> None:
    """A poison message has the long schedule."""
    from towpath.health import Health

    put(Health, "healthy_within", lambda self, span_s, now: False)


def pause_dropped() -> None:
    """A confirmed refusal rejects."""
    from towpath import pauses

    confirm = pauses.Pauses.confirm

    async def accept(self: Any, capability: str, refusal: Any) -> Any:
        await confirm(self, capability, refusal)
        self._in_force.pop(capability, None)
        return pauses.Verdict.ACCEPTED

    put(pauses.Pauses, "confirm", accept)


def stall_off() -> None:
    """An outage is treated like many single failures."""
    from towpath.health import Health

    def failed(self: Health, person: str, now: float) -> bool:
        return False

    put(Health, "failed", failed)


def catch_up_off() -> None:
    """After a restart rows go before what lies ahead of them is read again."""
    from towpath.intake import Intake

    begin = Intake.begin

    def hasty(self: Intake, progress: Any) -> None:
        begin(self, progress)
        self._horizon = 0
        self._caught_up()
        self._progress = progress

    put(Intake, "begin", hasty)
    put(Intake, "_catching_up", property(lambda self: True))


def settled_forgotten() -> None:
    """After a restart what ended beyond the cursor is sent again."""
    from towpath.intake import Intake

    put(Intake, "_is_known", lambda self, record: False)


def cursor_hasty() -> None:
    """The cursor passes what is still in memory."""
    from towpath.lanes import Cursor

    put(Cursor, "advance", lambda self: self._read)


def ticket_ignored() -> None:
    """An outdated load of rows is believed."""
    from towpath.parking import Parking

    load = Parking.load

    async def believe(self: Parking, lane: Any, ticket: int, *, early: bool) -> None:
        await load(self, lane, lane.ticket, early=early)

    put(Parking, "load", believe)


def stored_ignored() -> None:
    """A row stored while its lane loads is not looked for."""
    from towpath.parking import Parking

    load = Parking.load

    async def forget(self: Parking, lane: Any, ticket: int, *, early: bool) -> None:
        proceed = self._proceed

        def proceed_without(found: Any) -> None:
            found.rows = False
            self._proceed = proceed
            proceed(found)

        self._proceed = proceed_without
        await load(self, lane, ticket, early=early)
        self._proceed = proceed

    put(Parking, "load", forget)


def stop_forgets() -> None:
    """A stop does not wait for the last settlement."""
    from towpath.settler import Settler

    async def nothing(self: Settler) -> None:
        return None

    put(Settler, "finish", nothing)


def merge_across_events() -> None:
    """Coalescing looks past what cannot be merged."""
    from towpath.dispatch import Dispatch

    pack = Dispatch._pack

    def reach(self: Dispatch, lane: Any, payload: Any) -> Any:
        lane.items = type(lane.items)(sorted(lane.items, key=lambda item: item.message.type != "identify"))
        return pack(self, lane, payload)

    put(Dispatch, "_pack", reach)


def throttle_counts() -> None:
    """A rate limit costs an attempt."""
    from towpath.deliver import DeliveryLoop

    failed = DeliveryLoop._failed

    def count(self: DeliveryLoop, parcel: Any, outcome: Any) -> None:
        parcel.items[0].attempts += outcome.throttled
        failed(self, parcel, outcome)

    put(DeliveryLoop, "_failed", count)


def bisection_off() -> None:
    """A batch refused as a whole is rejected as a whole."""
    from towpath import courier

    put(courier, "_refuses_a_batch", lambda outcome: False)


MUTANTS: Mapping[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    breaker.__name__.replace("_", "-"): (breaker, tests)
    for tests, breakers in {
        SIMULATION: (
            order_off,
            settle_before_next_off,
            fence_off,
            dedup_off,
            retry_dropped,
            dead_reopened,
            link_merge_off,
            rows_not_renamed,
            settled_forgotten,
            cursor_hasty,
            ticket_ignored,
        ),
        UNITS: (
            pause_dropped,
            lease_ignored,
            catch_up_off,
            retry_forever,
            jitter_wild,
            moved_phone_joins,
            follower_rule_off,
            short_budget_off,
            stall_off,
            stored_ignored,
            stop_forgets,
            merge_across_events,
            throttle_counts,
            bisection_off,
        ),
    }.items()
    for breaker in breakers
}


def pytest_configure() -> None:
    """As a plugin: break the rule the environment names."""
    if name := os.environ.get(VARIABLE):
        MUTANTS[name][0]()


def survives(name: str) -> bool:
    """Run the tests that should notice; whether none did."""
    _, tests = MUTANTS[name]
    environment = {"SEEDS": SEEDS, **os.environ, VARIABLE: name}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tools.mutants", "--tb=no", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=600)  # noqa: S603
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}: pytest ended with {done.returncode}\n{done.stdout.decode()[-2000:]}")
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Try the named mutants, or all."""
    alive = []
    for name in names or MUTANTS:
        began = time.monotonic()
        survived = survives(name)
        alive += [name] * survived
        print(
            f"{'SURVIVES' if survived else 'caught':9} {name} ({time.monotonic() - began:.0f} s)", flush=True
        )
    print(f"{len(alive)} of {len(names or MUTANTS)} survive: {', '.join(alive) or 'none'}")
    return int(bool(alive))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
