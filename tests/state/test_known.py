"""What sources remember: seen within a turn, kept when the turn is, forgotten with the people it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.state import State
from towpath.testing.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> State:
    return State.open(tmp_path, clock)


def test_a_turn_sees_its_own_changes_and_others_only_what_is_kept(state: State) -> None:
    facts = state.facts("firebase")
    first, second = facts.turn(), facts.turn()
    first.keep("a", b"1")
    first.keep("b", b"2")
    first.drop("b")
    assert (first.find("a"), first.find("b"), second.find("a")) == (b"1", None, None)
    facts.keep(first.changes)
    assert (facts.turn().find("a"), facts.turn().find("b")) == (b"1", None)
    state.close()


async def test_a_fact_is_replaced_forgotten_and_over(state: State, clock: FakeClock) -> None:
    facts = state.facts("firebase")
    for value, ttl_s in ((b"1", None), (b"2", 10.0)):
        turn = facts.turn()
        turn.keep("a", value, ttl_s)
        facts.keep(turn.changes)
    assert facts.turn().find("a") == b"2"
    await clock.advance(11)
    assert facts.turn().find("a") is None
    assert (facts.count(), list(facts.keys())) == (0, [])
    assert state.prune(clock.now()) == 1
    state.close()


def test_keys_are_listed_by_prefix_in_order_over_many_pages(state: State) -> None:
    facts, other = state.facts("firebase"), state.facts("another")
    turn = facts.turn()
    for number in range(6000):
        turn.keep(f"doc:{number:05d}", b"x")
    turn.keep("user:1", b"x")
    facts.keep(turn.changes)
    strange = other.turn()
    strange.keep("doc:%_", b"x")
    other.keep(strange.changes)
    assert list(facts.keys("doc:")) == [f"doc:{number:05d}" for number in range(6000)]
    assert (facts.count("doc:"), facts.count("user:"), facts.count("doc:0000"), facts.count()) == (
        6000, 1, 10, 6001,
    )  # fmt: skip
    loaded = facts.turn()
    loaded.load([f"doc:{number:05d}" for number in range(0, 6000, 3)] + ["absent"])
    assert (loaded.find("doc:00003"), loaded.find("absent")) == (b"x", None)
    state.close()


@pytest.mark.spec("D10", "P9")
def test_erasing_a_person_forgets_what_names_them(state: State, tmp_path: Path) -> None:
    facts = state.facts("firebase")
    turn = facts.turn()
    turn.keep("user:ada", b"{}")
    turn.keep("doc:users/7", b'{"identifier":"ada@example.com"}')
    turn.keep("doc:users/8", b'{"identifier":"bob@example.com"}')
    turn.keep("doc:users/ada2", b'{"identifier":"ada@example.com.example"}')
    facts.keep(turn.changes)
    state.forget_people({"user:ada", "ada@example.com", "ada", "use"})
    assert list(facts.keys()) == ["doc:users/8", "doc:users/ada2"]
    state.close()
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert (b"user:ada" in left, b'"ada@example.com"' in left, b"ada2" in left) == (False, False, True)
