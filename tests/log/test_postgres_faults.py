"""The ledger on PostgreSQL when the server, a client or a clock fails, and when several begin at once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from towpath.clock import SystemClock
from towpath.errors import TowpathError
from towpath.log import DeadFilter, Done, Group, Parked, Settlement
from towpath.log.apart import ApartStore
from towpath.log.postgres import LedgerLost, PostgresLedger
from towpath.log.postgres.sessions import Session
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Record
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, lease_of, park
from towpath.testing.log import entry
from towpath.testing.postgres import PostgresServer

from .postgres import begin, begin_ledger, schema_of, server

FREEZER = """
import sys, psycopg
connection = psycopg.connect(sys.argv[1])
connection.execute(f"SET search_path TO {sys.argv[2]}")
connection.execute("UPDATE place SET cursor = 77, epoch = epoch + 9")
connection.execute("INSERT INTO counter VALUES (1, 0, 0, '', 1000)")
print("inside", flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ApartStore]:
    found = await begin(tmp_path, FakeClock())
    await found.connect("out", ["web"], "earliest")
    yield found
    await found.close()


async def keep(store: ApartStore, count: int) -> list[Record]:
    await store.append([Group(Envelope("web", 1.0), [entry(f"m{i}", f"p{i % 7}") for i in range(count)])])
    return [*await store.read(0, count)]


async def even(store: ApartStore) -> tuple[int, int, int]:
    """Delivered, waiting, dead of the only connection, whose two balances agree and are even."""
    (counted,), (again,) = await store.balance(), await store.balance(recount=True)
    assert counted == again
    assert counted.difference == 0
    return counted.delivered, counted.waiting, counted.dead


# Servers


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresServer]:
    """A server of these tests' own, to be broken."""
    server()  # there is a PostgreSQL
    found = PostgresServer()
    found.create()
    found.start()
    yield found
    found.remove()


@pytest.mark.spec("D05", "P2", "P3")
async def test_a_crash_of_the_server_loses_and_doubles_nothing(tmp_path: Path, own: PostgresServer) -> None:
    clock = SystemClock()
    log = await SqliteStore.begin(tmp_path, clock)
    store = await ApartStore.begin(log, await PostgresLedger.begin(own.dsn, clock, schema_of(tmp_path)))
    await store.connect("out", ["web"], "earliest")
    records = await keep(store, 1500)
    lease = await lease_of(store)
    errors: list[Exception] = []
    settled = asyncio.Event()

    async def settle(settlement: Settlement) -> None:
        """As the settler does: the same again until it is kept."""
        while True:
            try:
                assert await store.settle(lease, settlement)
                return
            except OSError as error:
                errors.append(error)
                await asyncio.sleep(0.01)

    async def deliver() -> None:
        for first in range(0, 1500, 10):
            batch = records[first : first + 10]
            done = [Done(r.position, 0, "delivered") for r in batch[:8]]
            dead = Done(batch[8].position, 0, "dead", "no")
            await settle(Settlement(first + 10, [*done, dead], [bury(batch[8])], [park(batch[9])]))
            settled.set()

    async def crash() -> None:
        for _ in range(3):
            settled.clear()
            await settled.wait()
            await asyncio.to_thread(own.crash)

    await asyncio.gather(deliver(), crash())
    assert await even(store) == (1200, 150, 150)
    assert len(await store.dead(DeadFilter())) == len(await store.waiting(None, 999)) == 150
    assert all(isinstance(error, LedgerLost) for error in errors)
    await store.close()


async def test_a_server_that_is_down_is_an_error_to_try_again_after(
    tmp_path: Path, own: PostgresServer
) -> None:
    ledger = await PostgresLedger.begin(own.dsn, FakeClock(), schema_of(tmp_path))
    await ledger.suppress(["ann"])
    own.stop(signal.SIGQUIT)
    for _ in range(2):
        with pytest.raises(OSError, match="the ledger cannot be reached"):
            await ledger.suppressed()
        with pytest.raises(OSError, match="the ledger cannot be reached"):
            await ledger.suppress(["bob"])
    own.start()
    await ledger.suppress(["cid"])
    assert await ledger.suppressed() == {"ann", "cid"}
    own.crash()  # while nobody uses it: nobody notices
    await ledger.suppress(["dan"])
    assert await ledger.suppressed() == {"ann", "cid", "dan"}
    await ledger.close()


async def test_a_server_that_cannot_be_reached_is_said_with_a_fix(tmp_path: Path) -> None:
    for dsn in (f"host={tmp_path} password=hunter2", "nonsense", "postgresql://u:hunter2@127.0.0.1:1/x"):
        with pytest.raises(TowpathError) as caught:
            await PostgresLedger.begin(dsn, FakeClock())
        text = "\n".join(caught.value.lines())
        assert "PostgreSQL cannot be used" in text
        assert "Fix: " in text
        assert "hunter2" not in text


# Clients


@pytest.mark.spec("D05")
async def test_a_client_killed_inside_a_transaction_leaves_nothing(tmp_path: Path, store: ApartStore) -> None:
    await keep(store, 3)
    lease = await lease_of(store)
    command = [sys.executable, "-c", FREEZER, server().dsn, schema_of(tmp_path)]
    client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert client.stdout is not None
    assert await client.stdout.readline() == b"inside\n"
    waiting = asyncio.ensure_future(store.settle(lease, Settlement(1, [Done(1, 0, "delivered")])))
    client.kill()
    await client.communicate()
    assert await waiting
    assert await even(store) == (1, 2, 0)
    assert (await store.progress(lease)).cursor == 1


@pytest.mark.spec("D05")
async def test_a_settlement_that_fails_half_way_is_undone(
    store: ApartStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = await keep(store, 4)
    lease = await lease_of(store)
    settlement = Settlement(
        3, [Done(1, 0, "delivered"), Done(2, 0, "dead", "no")], [bury(records[1])], [park(records[2])]
    )

    def fail(*_: object) -> None:
        raise psycopg.OperationalError("the line is dead")

    with monkeypatch.context() as patch:
        patch.setattr("towpath.log.postgres.settle.relane", fail)
        with pytest.raises(LedgerLost):
            await store.settle(lease, settlement)
    assert await even(store) == (0, 4, 0)
    assert (await store.progress(lease)).cursor == 0
    assert await store.settle(lease, settlement)
    assert await even(store) == (1, 2, 1)


@pytest.mark.spec("D05", "P4")
async def test_owners_whose_clocks_disagree_fence_each_other(tmp_path: Path) -> None:
    """They take the lease from each other in the middle of their work; no delivery is settled twice."""
    clocks = {"one": FakeClock(), "two": FakeClock()}
    one, two = await begin(tmp_path, clocks["one"]), await begin_ledger(tmp_path, clocks["two"])
    await one.connect("out", ["web"], "earliest")
    await keep(one, 200)
    kept = []

    async def work(ledger: ApartStore | PostgresLedger, owner: str) -> None:
        for _ in range(40):
            await clocks[owner].advance(3000.0)
            lease = await ledger.lease("out", owner, 10.0)
            if lease is None:
                continue
            cursor = (await ledger.progress(lease)).cursor
            done = [Done(cursor + i, 0, "delivered") for i in range(1, 6) if cursor + i <= 200]
            if await ledger.settle(lease, Settlement(min(cursor + 5, 200), done)):
                kept.append(len(done))

    await asyncio.gather(work(one, "one"), work(two, "two"))
    delivered, _, _ = await even(one)
    await clocks["one"].advance(1e6)
    stale = await lease_of(one)
    assert delivered == sum(kept) == (await one.progress(stale)).cursor
    await clocks["two"].advance(1e9)
    newest = await two.lease("out", "two", 10.0)
    assert newest is not None
    assert not await one.settle(stale, Settlement(200, [Done(200, 0, "dead", "no")]))
    assert await two.settle(newest, Settlement(0))
    await two.close()
    await one.close()


async def test_several_processes_make_the_tables_once(tmp_path: Path) -> None:
    ledgers = await asyncio.gather(*[begin_ledger(tmp_path, FakeClock()) for _ in range(8)])
    await asyncio.gather(*[ledger.suppress([f"p{i}"]) for i, ledger in enumerate(ledgers)])
    assert await ledgers[0].suppressed() == {f"p{i}" for i in range(8)}
    for ledger in ledgers:
        await ledger.close()
    assert server().run(f"SELECT version FROM {schema_of(tmp_path)}.ledger") == [(1,)]


async def test_tables_of_a_newer_program_are_left_alone(tmp_path: Path) -> None:
    await (await begin_ledger(tmp_path, FakeClock())).close()
    server().run(f"UPDATE {schema_of(tmp_path)}.ledger SET version = 99")
    with pytest.raises(TowpathError, match="written by a newer towpath"):
        await begin_ledger(tmp_path, FakeClock())


# What is kept


@pytest.mark.parametrize(
    "name",
    ["a\x00b", "\x1a0000", "x" * 20_000, "\U0001f6f6\u202e", "'; DROP TABLE lane; --", "%s", "\ud800", ""],
)
async def test_any_text_comes_back_as_given(store: ApartStore, name: str) -> None:
    records = await keep(store, 3)
    lease = await lease_of(store)
    row = Parked(1, 0, name, 5.0, 1, 1.0, name, records[0], hold=name[:50])
    letter = bury(records[1])
    done = [Done(2, 0, "dead", name), Done(3, 0, "skipped", name)]
    assert await store.settle(lease, Settlement(3, done, [letter], [row], [(name, "other"), ("other", name)]))
    assert await store.parked(lease, name) == [row]
    assert (await store.progress(lease)).waiting == {name: 5.0}
    assert [one.reason for _, one in await store.deliveries("out", None, 9)] == [name, name]
    await store.link(name, 1, name)
    assert await store.links(name) == [(1, name)]
    await store.suppress([name])
    assert await store.suppressed() == {name}
    assert await store.dead(DeadFilter(person=name)) == []
    await even(store)


def test_a_session_answers_when_it_is_on_disk(tmp_path: Path) -> None:
    with psycopg.connect(server().dsn, autocommit=True) as administrator:
        administrator.execute("CREATE ROLE hasty LOGIN SUPERUSER")
        administrator.execute("ALTER ROLE hasty SET synchronous_commit = off")
    for durable, expected in ((True, "on"), (False, "off")):
        session = Session(server().dsn.replace("user=postgres", "user=hasty"), "public", durable=durable)
        assert session.rows("SHOW synchronous_commit") == [(expected,)]
        session.close()
