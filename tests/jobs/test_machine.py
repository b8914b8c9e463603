"""Any history of processes, clocks and people: only legal moves, one live run per key, one holder per run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from towpath.state import State
from towpath.state.jobs import FINAL, HELD, MOVES, Beat, Ending, Hold, JobRow, NewRun

LEASE_S = 30.0
OWNERS = ("p1", "p2", "p3")
KEYS = ("a", "b", None)


class Histories(RuleBasedStateMachine):
    """Processes that claim, save, end, vanish and come back late; people that start, wake and cancel."""

    holds = Bundle("holds")

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.state = State.open(Path(self.directory.name))
        self.rows = self.state.jobs
        self.now = 1_000_000.0
        self.states: dict[int, str] = {}
        self.epochs: dict[int, int] = {}
        self.leases: dict[int, float] = {}
        self.saved: dict[int, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()
            self.directory.cleanup()

    # -- people and time -------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS))
    def start(self, key: str | None) -> None:
        lives = any(row.live_key == key for row in self.all()) and key is not None
        number = self.rows.add(NewRun("job", key, "{}", "hand", self.now))
        assert (number is None) is lives
        if number is not None:
            assert number not in self.states, "a number is never given twice"
            self.states[number], self.epochs[number] = "queued", 0

    @rule(seconds=st.sampled_from([0.0, 1.0, 29.0, 31.0, 300.0, 7 * 86_400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([1.0, 3600.0, 86_400.0]))
    def set_back(self, seconds: float) -> None:
        self.now -= seconds

    @rule(data=st.data(), held=st.booleans())
    def cancel(self, data: st.DataObject, held: bool) -> None:
        if self.states:
            number = data.draw(st.sampled_from(sorted(self.states)))
            state = self.rows.cancel(number, self.now, held=held)
            assert state is None or state in FINAL | {"cancelling"}

    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        if self.states:
            self.rows.wake(data.draw(st.sampled_from(sorted(self.states))), self.now)

    @rule()
    def restart(self) -> None:
        self.rows.expire_leases()
        self.leases.clear()

    @rule()
    def sweep(self) -> None:
        self.rows.sweep(self.now)

    @rule(age_s=st.sampled_from([0.0, 86_400.0]))
    def prune(self, age_s: float) -> None:
        before = {row.id for row in self.all()}
        self.rows.prune(self.now - age_s)
        gone = before - {row.id for row in self.all()}
        assert all(self.states[number] in FINAL for number in gone)
        for number in gone:
            del self.states[number]

    # -- processes -------------------------------------------------------------------------------------

    @rule(target=holds, owner=st.sampled_from(OWNERS), limit=st.integers(1, 3))
    def claim(self, owner: str, limit: int) -> Any:
        taken = self.rows.claim(owner, self.now, LEASE_S, jobs=["job"], limit=limit)
        for row in taken:
            assert row.epoch == self.epochs[row.id] + 1
            self.epochs[row.id] = row.epoch
            assert row.checkpoint == self.saved.get(row.id), "it goes on where the last save was"
            assert (row.state, row.owner) == ("running", owner)
        return multiple(*(Hold(row.id, row.epoch) for row in taken))

    @rule(hold=holds, checkpoint=st.sampled_from(["1", "2", "3"]))
    def save(self, hold: Hold, checkpoint: str) -> None:
        state = self.rows.save(hold, Beat(self.now + LEASE_S, "{}"), checkpoint)
        assert (state is not None) is self.is_held(hold)
        if state is not None:
            self.saved[hold.run] = checkpoint

    @rule(hold=holds)
    def beat(self, hold: Hold) -> None:
        assert (self.rows.beat(hold, Beat(self.now + LEASE_S, "{}")) is not None) is self.is_held(hold)

    @rule(
        hold=consumes(holds),
        to=st.sampled_from(["succeeded", "failed", "cancelled", "snoozed", "queued"]),
        later=st.booleans(),
    )
    def end(self, hold: Hold, to: Any, later: bool) -> None:
        held = self.is_held(hold)
        asked = self.states.get(hold.run) == "cancelling"
        due_at = self.now + (300 if later else 0)
        state = self.rows.end(hold, Beat(0.0, "{}"), Ending(to, self.now, due_at=due_at))
        assert (state is not None) is held
        if held:
            assert state == (to if to in MOVES["cancelling"] or not asked else "cancelled")
        if state == "succeeded":
            self.saved.pop(hold.run, None)

    # -- what must hold --------------------------------------------------------------------------------

    def all(self) -> list[JobRow]:
        return list(self.rows.runs(limit=1000))

    def is_held(self, hold: Hold) -> bool:
        """Whether the newest claim is this one and has not ended."""
        return self.epochs.get(hold.run) == hold.epoch and self.states.get(hold.run) in HELD

    @invariant()
    def only_legal_moves(self) -> None:
        for row in self.all() if hasattr(self, "rows") else ():
            before = self.states[row.id]
            assert row.state == before or row.state in MOVES[before], f"{before} → {row.state}"
            self.states[row.id] = row.state

    @invariant()
    def one_live_run_per_key(self) -> None:
        rows = self.all() if hasattr(self, "rows") else []
        for row in rows:
            assert row.state not in FINAL or row.live_key is None
            assert (row.state in FINAL) is (row.ended_at != 0)
            assert (row.state in HELD) is (row.owner != "")
        keys = [row.live_key for row in rows if row.live_key is not None]
        assert len(keys) == len(set(keys))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, database=None)
