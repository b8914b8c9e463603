"""Seeded histories of every kind of trouble; SEEDS=n lives more of them, SEED=n one, SCENARIO=… one kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from towpath.testing.simulation import SCENARIOS, Broken, plan, shrink, simulate


def chosen() -> list[int]:
    """The seeds to live: by default 300, each scenario equally often."""
    given = os.environ
    if "SEED" in given:
        return [int(given["SEED"])]
    if "SCENARIO" in given:
        first = [scenario.name for scenario in SCENARIOS].index(given["SCENARIO"])
        return [first + n * len(SCENARIOS) for n in range(int(given.get("HISTORIES", "10")))]
    return list(range(int(given.get("FIRST", "0")), int(given.get("SEEDS", "300"))))


SEEDS = chosen()
TRIES = int(os.environ.get("TRIES", "40"))  # of shrinking
TOGETHER = 5 if len(SEEDS) > 50 else 1  # histories of one test
ENOUGH = 10  # histories of a scenario after which every kind of its faults has been seen
CHUNKS = [SEEDS[first : first + TOGETHER] for first in range(0, len(SEEDS), TOGETHER)]


@pytest.fixture(scope="session")
def coverage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every worker writes down what it has seen."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "simulation-coverage"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.spec("D02", "D03", "D04", "D05", "D06", "D07", "D10", "D13", "D15", "D20", "E026")
@pytest.mark.spec("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P10")
@pytest.mark.parametrize("seeds", CHUNKS, ids=[f"{chunk[0]}-{chunk[-1]}" for chunk in CHUNKS])
def test_the_promises_hold_in_every_history(seeds: list[int], tmp_path: Path, coverage: Path) -> None:
    seen = Counter[str]()
    for seed in seeds:
        seen.update(live(seed, tmp_path / str(seed)))
    (coverage / f"{seeds[0]}.json").write_text(json.dumps(seen))
    found = [path for chunk in CHUNKS if (path := coverage / f"{chunk[0]}.json").exists()]
    if len(found) == len(CHUNKS):
        judge(sum((Counter(json.loads(path.read_text())) for path in found), Counter[str]()))


def live(seed: int, directory: Path) -> Counter[str]:
    """One history; which kinds were seen, in all and in its scenario. A failure says how to live it again."""
    try:
        kinds = [kind for kind, count in simulate(seed, directory).seen.items() if count]
        return Counter([*kinds, *(f"{plan(seed).main.name}: {kind}" for kind in kinds)])
    except Broken as broken:
        kept = shrink(seed, directory / "again", tries=TRIES)
        names = ", ".join(f"{number} {plan(seed).steps[number][0]}" for number in kept)
        command = f"python -m towpath.testing.simulation {seed} {','.join(map(str, kept))}"
        pytest.fail(f"seed {seed} {broken}\nsteps that are enough: {names}\nlive it again: {command}")


def judge(seen: Counter[str]) -> None:
    """Every kind of fault, and of what follows from one, must really have occurred."""
    lived = Counter(plan(seed).main.name for seed in SEEDS)
    judged = [scenario for scenario in SCENARIOS if lived[scenario.name] >= ENOUGH]
    wanted = sorted({kind for scenario in judged for kind in scenario.seen})
    for kind in wanted:
        print(f"{seen[kind] / len(SEEDS):6.1%}  {kind}")
    assert not [kind for kind in wanted if not seen[kind]]
    own = [(f"{one.name}: {kind}", lived[one.name]) for one in judged for kind in one.mostly]
    assert not [f"{kind} in only {seen[kind]} of {of}" for kind, of in own if 2 * seen[kind] < of]


def test_a_seed_replays_byte_for_byte_in_any_process(tmp_path: Path) -> None:
    seeds = range(0, 3 * len(SCENARIOS), 3)
    mine = [simulate(seed, tmp_path / str(seed)).digest for seed in seeds]
    assert len(set(mine)) == len(mine)
    program = (
        "import sys; from pathlib import Path; from towpath.testing.simulation import simulate\n"
        "for seed in sys.argv[2:]: print(simulate(int(seed), Path(sys.argv[1]) / seed).digest)"
    )
    for hash_seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / hash_seed), *map(str, seeds)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=120,
        )
        theirs = [line for line in done.stdout.decode().splitlines() if len(line) == 64]
        different = [seed for seed, a, b in zip(seeds, mine, theirs, strict=True) if a != b]
        assert not different, f"these seeds do not replay: {different}"


def test_every_scenario_has_its_share() -> None:
    names = Counter(plan(seed).main.name for seed in range(10 * len(SCENARIOS)))
    assert set(names.values()) == {10}
    assert len(names) == len(SCENARIOS)


def test_a_broken_promise_is_shrunk_to_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from towpath.testing.simulation.book import Book

    monkeypatch.setattr(Book, "_check_delivered", lambda book, done: book.expect(False, "never enough"))
    with pytest.raises(Broken, match="never enough"):
        simulate(0, tmp_path / "whole")
    kept = shrink(0, tmp_path)
    assert 0 < len(kept) <= 2
    with pytest.raises(Broken, match="never enough"):
        simulate(0, tmp_path / "few", steps=kept)
