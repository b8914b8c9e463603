"""The loading process and its desk: calls in order, faults, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pytest

import towpath.warehouse.desk as module
import towpath.warehouse.open as opening
from towpath.clock import SystemClock
from towpath.errors import TowpathError
from towpath.testing.fakes import FakeClock
from towpath.testing.loader import PEOPLE, WORDS, page, person
from towpath.warehouse import Gone, Load, Lost, Shape, Warehouse, faults
from towpath.warehouse.desk import Desk, LoadingProcess
from towpath.warehouse.settings import DltTarget, DuckDbTarget, PostgresTarget

HOLDS = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
PROGRAM = """
import asyncio, sys
from towpath.clock import SystemClock
from towpath.testing.loader import WORDS, page
from towpath.warehouse import Load, Shape
from towpath.warehouse.desk import Desk
from towpath.warehouse.settings import DuckDbTarget

async def main():
    warehouse = Desk(SystemClock()).warehouse(DuckDbTarget(path=sys.argv[1]))
    await warehouse.prepare([Shape(WORDS)])
    print(warehouse.process_id, flush=True)
    place = 0
    while True:
        place += 1
        pages = (page(*[{"word": f"{place}-{i}"} for i in range(100)]),)
        await warehouse.load(Load("words", "acme", "r1", pages, state={"place": str(place)}))
        print(place, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A desk whose processes never idle out by themselves."""
    found = Desk(SystemClock(), idle_s=3600.0)
    yield found
    await found.close()


@pytest.fixture
def target(tmp_path: Path) -> DuckDbTarget:
    return DuckDbTarget(path=str(tmp_path / "w.duckdb"))


def words(*names: str, run: str = "r1", **more: object) -> Load:
    return Load("words", "acme", run, (page(*[{"word": name} for name in names]),), **more)  # type: ignore[arg-type]


def process_of(warehouse: Warehouse) -> int:
    assert isinstance(warehouse, LoadingProcess)
    assert warehouse.process_id is not None
    return warehouse.process_id


def is_alive(process_id: int) -> bool:
    """Whether a process runs still; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ends(process_id: int) -> bool:
    """Wait for the end of a process that may not be ours."""
    for _ in range(600):
        if not is_alive(process_id):
            return True
        await asyncio.sleep(0.05)
    return False


async def counted(warehouse: Warehouse) -> int:
    return sum(one.rows for one in await warehouse.counts() if one.table == "words")


@pytest.mark.spec("R049")
async def test_every_call_reaches_the_target(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target, "key")
    await warehouse.prepare([Shape(WORDS), Shape(PEOPLE, hashed=("email",))])
    await warehouse.begin("words", "acme", "r1")
    wrote = await warehouse.load(words("one", "two", seen=True, state={"a": "1"}))
    assert (wrote.read, wrote.written) == (2, 2)
    await warehouse.begin("words", "acme", "r2")
    await warehouse.load(words("one", run="r2", seen=True))
    assert await warehouse.finish("words", "acme", "r2", state={"b": "2"}) == Gone(1, 2)
    await warehouse.keep({"c": "3", "b": None})
    kept = await warehouse.state("")
    mine = {key: value for key, value in kept.items() if not key.startswith("_towpath/")}
    assert mine == {"a": "1", "c": "3"}
    (counted,) = [one for one in await warehouse.counts() if one.table == "words"]
    assert (counted.rows, counted.deleted) == (1, 1)
    await warehouse.load(Load("people", "acme", "r1", (page(person("c1")),)))
    assert (await warehouse.erase(["c1"]))["people"] == 1
    await warehouse.execute(["CREATE VIEW seen AS SELECT word FROM words"])
    await warehouse.reset(["words"], None, ["a"])
    assert await warehouse.state("c") == {"c": "3"}
    assert await warehouse.state("a") == {}


async def test_many_callers_share_a_process_and_are_served_in_order(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    assert desk.warehouse(target.model_copy()) is warehouse
    await warehouse.prepare([Shape(WORDS)])
    process = process_of(warehouse)
    done: list[int] = []

    async def call(place: int) -> None:
        await warehouse.load(words(f"w{place}", state={"place": str(place)}))
        done.append(place)

    await asyncio.gather(*[call(place) for place in range(30)])
    assert (done, await warehouse.state("")) == (list(range(30)), {"place": "29"})
    assert (await counted(warehouse), process_of(warehouse)) == (30, process)


async def test_large_batches_pass(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(PEOPLE)])
    records = [person(f"c{i}", attributes={"text": "x" * 2000}) for i in range(8000)]
    wrote = await warehouse.load(Load("people", "acme", "r1", (page(*records),) * 2))
    assert (wrote.read, wrote.written) == (16000, 8000)


async def test_an_error_is_told_as_it_was_and_the_process_goes_on(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    with pytest.raises(TowpathError) as found:
        await warehouse.load(words("one"))
    assert "words" in found.value.title
    assert (found.value.fix, isinstance(found.value, Lost)) != ("", True)
    process = process_of(warehouse)
    await warehouse.prepare([Shape(WORDS, contract="freeze")])
    with pytest.raises(TowpathError, match="frozen"):
        await warehouse.load(Load("words", "acme", "r1", (page({"word": "a", "odd": 1}),)))
    assert (await warehouse.load(words("one"))).written == 1
    assert process_of(warehouse) == process


async def test_what_nobody_foresaw_is_told_without_values(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(WORDS)])
    unfit: tuple[object, ...] = ("secret of ann",)
    with pytest.raises(TowpathError) as found:
        await warehouse.load(Load("words", "acme", "r1", unfit))  # type: ignore[arg-type]
    assert found.value.code == faults.UNFORESEEN
    assert "ann" not in "".join(found.value.lines())
    assert (await warehouse.load(words("one"))).written == 1


async def test_a_target_that_is_held_by_others_can_be_tried_again(desk: Desk, target: DuckDbTarget) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS, target.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"held\n"
    warehouse = desk.warehouse(target)
    with pytest.raises(Lost):
        await warehouse.prepare([Shape(WORDS)])
    await other.communicate(b"")
    await warehouse.prepare([Shape(WORDS)])


async def test_one_target_with_two_hash_keys_is_refused(desk: Desk, target: DuckDbTarget) -> None:
    desk.warehouse(target, "one")
    with pytest.raises(TowpathError, match="hash keys"):
        desk.warehouse(target, "two")


async def test_secrets_are_neither_in_the_command_nor_in_the_environment(
    desk: Desk, target: DuckDbTarget
) -> None:
    warehouse = desk.warehouse(target, "the-hash-key")
    await warehouse.prepare([])
    process = Path(f"/proc/{process_of(warehouse)}")
    for name in ("cmdline", "environ"):
        assert b"the-hash-key" not in (process / name).read_bytes()


# Ends


async def test_it_ends_when_it_is_idle_and_starts_again(target: DuckDbTarget) -> None:
    clock = FakeClock()
    desk = Desk(clock)
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(WORDS)])
    await warehouse.load(words("one"))
    process = process_of(warehouse)
    await clock.advance(4.9)
    assert is_alive(process)
    await clock.advance(0.2)
    assert await ends(process)
    with duckdb.connect(target.path) as other:
        assert other.execute("SELECT word FROM words").fetchall() == [("one",)]
    assert (await warehouse.load(words("two"))).written == 1
    await desk.close()
    assert await counted_in(target) == 2


async def counted_in(target: DuckDbTarget) -> int:
    with duckdb.connect(target.path) as other:
        ((count,),) = other.execute("SELECT count(*) FROM words").fetchall()
        return int(count)


async def test_closing_does_what_was_asked_and_nothing_after_it(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(WORDS)])
    process = process_of(warehouse)
    last = asyncio.create_task(warehouse.load(words("one")))
    await asyncio.sleep(0)
    await desk.close()
    assert (await last).written == 1
    assert not is_alive(process)
    with pytest.raises(TowpathError, match="closed"):
        await warehouse.state("")


async def test_one_that_hangs_at_the_end_is_killed(
    desk: Desk, target: DuckDbTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_S", 0.05)
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(WORDS)])
    process = process_of(warehouse)
    os.kill(process, signal.SIGSTOP)
    await desk.close()
    assert not is_alive(process)


async def test_a_caller_that_is_cancelled_takes_no_answer_from_another(
    desk: Desk, target: DuckDbTarget
) -> None:
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(WORDS)])
    tasks = [
        asyncio.create_task(warehouse.load(words(*[f"{i}-{n}" for n in range(i + 1)]))) for i in range(6)
    ]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    written = [one if isinstance(one, BaseException) else one.written for one in done]
    assert [written[i] for i in (1, 2, 4, 5)] == [2, 3, 5, 6]
    assert await warehouse.state("") == {}


@pytest.mark.spec("R044")
async def test_killed_between_loads_it_is_started_again(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    await warehouse.prepare([Shape(WORDS)])
    await warehouse.load(words("one", state={"place": "1"}))
    process = process_of(warehouse)
    os.kill(process, signal.SIGKILL)
    assert await ends(process)
    try:
        state = await warehouse.state("")
    except Lost:  # its end was not known yet
        state = await warehouse.state("")
    assert (state, await counted(warehouse)) == ({"place": "1"}, 1)


@pytest.mark.spec("R044")
async def test_killed_at_any_moment_nothing_is_lost_or_doubled(desk: Desk, target: DuckDbTarget) -> None:
    warehouse = desk.warehouse(target)
    shape = Shape(WORDS)
    await warehouse.prepare([shape])
    lost = 0
    for wait_s in (0.0, 0.003, 0.03, 0.1):  # anywhere in it will do
        place = int((await warehouse.state("")).get("place", 0))
        batch = words(*[f"{place}-{n}" for n in range(2000)], state={"place": str(place + 1)})
        task = asyncio.create_task(warehouse.load(batch))
        await asyncio.sleep(wait_s)
        os.kill(process_of(warehouse), signal.SIGKILL)
        (came,) = await asyncio.gather(task, return_exceptions=True)
        assert not isinstance(came, BaseException) or isinstance(came, faults.Hindered)
        lost += isinstance(came, Lost)
        place = int((await _again(warehouse)).get("place", 0))
        assert await counted(warehouse) == 2000 * place
    assert lost


async def _again(warehouse: Warehouse) -> dict[str, str]:
    """The states, by a second try where the end of the process was not known."""
    try:
        return dict(await warehouse.state(""))
    except Lost:
        return dict(await warehouse.state(""))


@pytest.mark.spec("R044")
async def test_it_does_not_outlive_a_program_that_is_killed(target: DuckDbTarget) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, target.path, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    process = int(await program.stdout.readline())
    while int(await program.stdout.readline()) < 5:
        pass
    program.kill()
    await program.wait()
    assert await ends(process)
    with duckdb.connect(target.path) as left:
        ((place,),) = left.execute("SELECT value FROM _towpath_state").fetchall()
    assert await counted_in(target) == 100 * int(place)
    assert int(place) >= 5


# Opening


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [
        (PostgresTarget(url="postgresql://x"), "psycopg", "warehouse"),  # type: ignore[arg-type]
        (DltTarget(destination="duckdb"), "dlt", "dlt"),
    ],
)
def test_a_package_that_is_missing_is_named(
    target: PostgresTarget | DltTarget, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=sought)

    sought = package
    monkeypatch.setattr(opening, "import_module", missing)
    with pytest.raises(TowpathError) as found:
        opening.open_loader(target)
    assert package in found.value.title
    assert f"towpath[{extra}" in found.value.fix


@pytest.mark.spec("R048", "R051")
async def test_another_hash_key_is_refused_before_anything_is_written_or_missed(
    tmp_path: Path, target: DuckDbTarget
) -> None:
    clock = SystemClock()
    for key, other in (("the first key", False), ("another key", True), ("the first key", False)):
        desk = Desk(clock, tmp_path)
        warehouse = desk.warehouse(target, key)
        try:
            if other:
                with pytest.raises(TowpathError, match="hash_key") as caught:
                    await warehouse.prepare([Shape(PEOPLE, hashed=("email",))])
                assert caught.value.code == "E5625"
                with pytest.raises(TowpathError, match="hash_key"):
                    await warehouse.erase(["ann@x.example"])
            else:
                await warehouse.prepare([Shape(PEOPLE, hashed=("email",))])
                await warehouse.erase(["ann@x.example"])
        finally:
            await desk.close()


@pytest.mark.spec("R049")
async def test_one_file_with_two_schemas_is_refused_before_they_lock_each_other_out(tmp_path: Path) -> None:
    desk, path = Desk(SystemClock(), tmp_path), str(tmp_path / "one.duckdb")
    first = desk.warehouse(DuckDbTarget(path=path))
    assert desk.warehouse(DuckDbTarget(path=path)) is first
    with pytest.raises(TowpathError, match="same duckdb file") as caught:
        desk.warehouse(DuckDbTarget(path=path, schema="other"))
    assert caught.value.code == "E5626"
    await desk.retain(())
    desk.warehouse(DuckDbTarget(path=path, schema="other"))
    await desk.close()
