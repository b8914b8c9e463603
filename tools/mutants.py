"""Break one rule of delivery at a time and see whether the tests notice: `python -m tools.mutants [NAME …]`.

Each mutant of `tools.breakers` runs in a pytest of its own, with this module as the plugin that breaks the
rule, on the tests that guard it: a scenario or a seed of the simulation, or named tests. A mutant that
survives is a rule no test guards; the exit code is then 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import breakers as b

ROOT = Path(__file__).parent.parent
VARIABLE = "TOWPATH_MUTANT"
AT_ONCE = 2
HISTORIES = "30"  # of one scenario, until one notices
UNITS = "tests/deliver/test_"

SIMULATED: Mapping[str, tuple[Callable[[], None], ...]] = {
    "crash": (b.settle_before_next_off, b.settled_forgotten, b.cursor_hasty),
    "expired credential": (b.pause_dropped, b.pause_ignored),
    "by hand": (b.pause_forgotten,),
    "outages": (b.retry_dropped,),
    "rate limit": (b.retry_after_ignored, b.throttle_counts),
    "links": (b.order_off, b.link_merge_off, b.rows_not_renamed, b.moved_phone_joins, b.junk_links),
    "too many links": (b.links_uncapped, b.clients_join_users),
    "erase": (b.erased_in_memory_stays, b.erased_on_the_way_is_retried, b.erased_rows_stay),
    "suppress": (b.suppress_off,),
    "dead letters": (b.dead_reopened, b.replay_twice),
    "trim": (b.trim_unguarded,),
    "changed configuration": (b.added_source_from_nowhere,),
    "second owner": (b.fence_off, b.lease_ignored),
    "ledger forgets to answer": (b.repeated_settlement_counts,),
    "duplicates": (b.dedup_off,),
    "batches": (b.bisection_off,),
    "coalescing": (b.merge_across_events,),
    "one budget for many": (b.budget_off,),
    "poison among the healthy": (b.jitter_wild, b.retry_forever),
    "too old": (b.max_age_off,),
    "backlog": (
        b.filter_forgets,
        b.marks_forgotten,
        b.until_ignored,
        b.linked_names_pass,
        b.old_turn_counts,
    ),
    "too many deletions": (
        b.guard_off,
        b.guard_forgets,
        b.guard_counts_the_landed,
        b.guard_resumed_by_the_way,
        b.guard_probed,
        b.guard_held_for_good,
        b.discarded_anyway,
    ),
}
NAMED: Mapping[str, tuple[Callable[[], None], ...]] = {
    "tests/simulation/test_disk.py": (b.synced_too_late, b.unsynced),
    "tests/simulation/test_found.py": (b.link_wakes_rows, b.newest_wait, b.ticket_ignored),
    "tests/log/test_letters.py": (b.replay_backwards,),
    f"{UNITS}life.py": (b.stop_forgets,),
    f"{UNITS}deletes.py": (b.guard_ignores_persons, b.guard_window_for_good, b.deletions_merge),
    f"{UNITS}order.py": (b.stored_ignored, b.catch_up_off),
    f"{UNITS}outage.py": (b.stall_off,),
    f"{UNITS}overtaking.py": (b.erase_not_looked_again,),
    f"{UNITS}batches.py": (b.separation_off,),
    f"{UNITS}retry.py::test_a_follower_of_one_that_died_gets_one_attempt_once_it_is_as_old": (
        b.follower_rule_off,
    ),
    f"{UNITS}retry.py::test_what_alone_fails_while_others_succeed_dies_after_ten_attempts_in_six_hours": (
        b.short_budget_off,
    ),
    f"{UNITS}retry.py::test_a_jump_of_the_wall_clock_neither_storms_nor_stalls": (b.wall_clock_waits,),
}
MUTANTS: Mapping[str, tuple[Callable[[], None], str]] = {
    breaker.__name__.replace("_", "-"): (breaker, guard)
    for guards in (SIMULATED, NAMED)
    for guard, group in guards.items()
    for breaker in group
}


def pytest_configure() -> None:
    """As a plugin: break the rule the environment names."""
    if name := os.environ.get(VARIABLE):
        MUTANTS[name][0]()


def survives(name: str) -> tuple[bool, float]:
    """Run the tests that should notice; whether none did, and the seconds that took."""
    _, guard = MUTANTS[name]
    simulated = guard in SIMULATED
    environment = {**os.environ, VARIABLE: name}
    if simulated:
        scenario = {"SCENARIO": guard, "HISTORIES": HISTORIES}
        environment |= {"SEED": guard[5:]} if guard.startswith("seed ") else scenario
        environment["TRIES"] = "0"
    tests = ["tests/simulation/test_simulation.py", "-k", "promises"] if simulated else [guard]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tools.mutants", "--tb=no", *tests]
    began_s = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=600)  # noqa: S603
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}: pytest ended with {done.returncode}\n{done.stdout.decode()[-2000:]}")
    return done.returncode == 0, time.monotonic() - began_s


def main(names: list[str]) -> int:
    """Try the named mutants, or all, and print a table."""
    if unknown := set(names) - MUTANTS.keys():
        print(f"no such mutant: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = names or list(MUTANTS)
    alive: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as workers:
        for name, (survived, took_s) in zip(chosen, workers.map(survives, chosen), strict=True):
            alive += [name] * survived
            breaker, guard = MUTANTS[name]
            verdict, rule = "SURVIVES" if survived else "caught", breaker.__doc__
            print(f"{verdict:8}  {took_s:4.0f} s  {name:30}  {guard:32}  {rule}", flush=True)
    print(f"{len(alive)} of {len(chosen)} survive: {', '.join(alive) or 'none'}")
    return int(bool(alive))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
