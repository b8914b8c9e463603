"""A Customer.io of 250,300 rows into a warehouse: towpath, dlt three ways, singer-sdk + target-duckdb.

All read the same lists from one server of prepared pages, each contestant in processes of its own, one after
another; what arrived is counted again in the database. singer-sdk and target-duckdb are installed into
build/peers-replication from bench/peers-replication.txt. Then the same lists with 300 ms an answer and ten
requests a second, and what a million people would take.
Run: python bench/replication.py [--messages 200000] [--only NAME] [--skip NAME] [--rounds 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import msgspec
from msgspec import Struct
from replicating.measure import Measured, measure, used_by
from replicating.pages import CAMPAIGNS, SEGMENTS, served, serving

from towpath.replicate.plan import Plan
from towpath.replicate.report import Report
from towpath.testing.postgres import PostgresServer

HERE = Path(__file__).parent
PARTS = HERE / "replicating"
PEERS = HERE.parent / "build" / "peers-replication"
TABLES = ("messages", "activities", "campaigns", "segments")
MOST_CPU_S, MOST_MB = 7.4, 600
FLOORS = {"dlt default": 8.0, "dlt tuned": 2.0, "singer-sdk": 5.0}
"""How many times less CPU towpath takes than each."""
MILLION, PER_THOUSAND = 1_000_000, 11
NEEDED_MB = 11_000
LATENCY_S, PER_S, BUDGET_SHARE = 0.3, 10, 0.9
OURS = "towpath → DuckDB"


class Unavailable(Exception):
    """Something a contestant needs cannot be had; says what, and how to get it."""


class Score(Struct, frozen=True):
    """One run that came to its end: `note` is what else there is to say of it."""

    name: str
    measured: Measured
    rows: int
    note: str = ""

    def line(self) -> str:
        one = self.measured
        rates = f"{self.rows / one.wall_s:9,.0f} rows/s  {self.rows / one.cpu_s:9,.0f} rows/CPU-s"
        used = f"{one.wall_s:7.2f} s  {one.cpu_s:7.2f} CPU-s  {one.peak_mb:6,.0f} MB"
        return f"{self.name:34} {used}  {rates}  load {os.getloadavg()[0]:.1f}  {self.note}"


Contestant = Callable[["Field"], Iterator[Score]]


class Field(Struct, frozen=True):
    """Where contestants run: the server, a directory of their own, and the rows they must bring home."""

    url: str
    place: Path
    counts: Mapping[str, int]

    @property
    def rows(self) -> int:
        """All rows there are."""
        return sum(self.counts.values())

    def python(self, script: str, *given: str) -> Measured:
        """Run one of the parts with this interpreter."""
        return self.run([sys.executable, str(PARTS / script), self.url, *given])

    def run(self, command: Sequence[str], **environment: str) -> Measured:
        """Run a program. Raises `Unavailable` when it fails, with the end of what it said."""
        found = measure(command, self.place, {"RUNTIME__DLTHUB_TELEMETRY": "false", **environment})
        if found.code:
            raise Unavailable(f"failed with {found.code}: {found.said.strip()[-1500:]}")
        return found

    def check(self, database: Path, schema: str) -> None:
        """Count what arrived. Raises `Unavailable` where a row is missing or there twice."""
        with duckdb.connect(str(database), read_only=True) as opened:
            for table, count in self.counts.items():
                query = f'select count(*), count(distinct id) from "{schema}"."{table}"'
                self.compare(table, opened.execute(query).fetchone(), count)

    @staticmethod
    def compare(table: str, found: tuple[Any, ...] | None, count: int) -> None:
        """Hold rows and distinct ids against what there is. Raises `Unavailable`."""
        if found != (count, count):
            raise Unavailable(f"{table}: {found} rows and distinct ids of {count:,}")


# -- the contestants ---------------------------------------------------------------------------------------


def towpath_duckdb(field: Field) -> Iterator[Score]:
    """First run, and a second that finds nothing new."""
    database = field.place / "towpath.duckdb"
    for number, name in enumerate((OURS, f"{OURS}, again")):
        found = field.python("ours.py", str(database), f"r{number}", "0", ",".join(TABLES))
        field.check(database, "main")
        yield Score(name, found, field.rows if number == 0 else _read(found), _told(found))


def towpath_again(field: Field) -> Iterator[Score]:
    """Everything read once more into rows that are there already, as `replicate run --full` does."""
    database = field.place / "full.duckdb"
    field.python("ours.py", str(database), "r0", "0", ",".join(TABLES))
    found = field.python("ours.py", str(database), "forgetful", "0", ",".join(TABLES))
    field.check(database, "main")
    yield Score(f"{OURS}, all of it again", found, _read(found), _told(found))


def towpath_postgres(field: Field) -> Iterator[Score]:
    """First and second run into a server of our own; its CPU is told beside ours."""
    try:
        server = PostgresServer(durable=False)
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error
    try:
        server.create()
        server.start()
        ((root,),) = server.run("select split_part(pg_read_file('postmaster.pid'), e'\\n', 1)::int")
        for number, name in enumerate(("towpath → PostgreSQL", "towpath → PostgreSQL, again")):
            before_s = used_by(root)
            found = field.python("ours.py", server.dsn, f"r{number}", "0", ",".join(TABLES))
            note = f"and {used_by(root) - before_s:.2f} CPU-s of the server"
            for table, count in field.counts.items():
                rows = server.run(f'select count(*), count(distinct id) from customerio."{table}"')
                field.compare(table, rows[0], count)
            yield Score(name, found, field.rows if number == 0 else _read(found), note)
    finally:
        server.remove()


def dlt_default(field: Field) -> Iterator[Score]:
    """dlt's rest_api as it comes; with DuckDB 2 it needs nearly 9 GB for 200,000 messages."""
    if field.rows > 100_000 and available_mb() < NEEDED_MB:
        raise Unavailable(f"needs {NEEDED_MB:,} MB, {available_mb():,} MB are free; try --messages 40000")
    yield _dlt(field, "dlt default", "dlt_rest.py", "default")


def dlt_tuned(field: Field) -> Iterator[Score]:
    """dlt's rest_api with parquet, two normalise workers, file rotation and no nested tables."""
    yield _dlt(field, "dlt tuned", "dlt_rest.py", "tuned")


def dlt_arrow(field: Field) -> Iterator[Score]:
    """dlt fed with Arrow, merged by key."""
    yield _dlt(field, "dlt Arrow, merged", "dlt_arrow.py")


def _dlt(field: Field, name: str, script: str, *given: str) -> Score:
    database = field.place / f"{script}-{'-'.join(given)}.duckdb"
    found = field.python(script, str(database), *given)
    field.check(database, "cio")
    return Score(name, found, field.rows)


def singer(field: Field) -> Iterator[Score]:
    """A tap of singer-sdk into target-duckdb, merged by key."""
    programs, database, settings = installed(), field.place / "singer.duckdb", field.place / "target.json"
    settings.write_text(json.dumps({"path": str(database), "default_target_schema": "cio"}))
    tap = f"{programs}/python {PARTS}/singer_tap.py {field.url} 2>tap.txt"
    found = field.run(["/bin/sh", "-c", f"{tap} | {programs}/target-duckdb --config {settings}"])
    field.check(database, "cio")
    yield Score("singer-sdk + target-duckdb", found, field.rows)


CONTESTANTS: Mapping[str, Contestant] = {
    "towpath": towpath_duckdb,
    "towpath-again": towpath_again,
    "towpath-postgres": towpath_postgres,
    "dlt-arrow": dlt_arrow,
    "dlt-tuned": dlt_tuned,
    "singer": singer,
    "dlt-default": dlt_default,
}


def installed() -> Path:
    """Make the peers' environment once; its directory of programs. Raises `Unavailable`."""
    programs, wanted, done = PEERS / "bin", HERE / "peers-replication.txt", PEERS / "installed"
    if not done.exists() or done.read_bytes() != wanted.read_bytes():
        venv.create(PEERS, with_pip=True, clear=True)
        command = [str(programs / "pip"), "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        ran = subprocess.run([*command, "-r", str(wanted)], capture_output=True, text=True, check=False)
        if ran.returncode:
            raise Unavailable(f"the peers could not be installed: {ran.stderr.strip()[-500:]}")
        done.write_bytes(wanted.read_bytes())
    return programs


def available_mb() -> int:
    """How much memory programs can still have."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) // 1000


def _report(found: Measured) -> Report:
    return msgspec.json.decode(found.said.strip().splitlines()[-1], type=Report)


def _read(found: Measured) -> int:
    return sum(table.read for table in _report(found).tables)


def _told(found: Measured) -> str:
    tables = _report(found).tables
    return (
        f"{sum(each.requests for each in tables)} requests, {sum(each.written for each in tables):,} written"
    )


# -- the three parts ---------------------------------------------------------------------------------------


@contextmanager
def workplace(messages: int, activities: int, **more: float) -> Iterator[Field]:
    """A server, and a directory."""
    latency_s, per_s = more.get("latency_s", 0.0), int(more.get("per_s", 0))
    many = int(more.get("people", 0))
    counts = {"messages": messages, "activities": activities, "campaigns": CAMPAIGNS, "segments": SEGMENTS}
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(messages, activities, people=many, latency_s=latency_s, per_s=per_s) as url,
    ):
        yield Field(url, Path(directory), counts)


def speed(options: argparse.Namespace) -> bool:
    """Every contestant, as many rounds as asked for; whether the floors are met."""
    scores: dict[str, list[Measured]] = {}
    for _ in range(options.rounds):
        for name, contestant in CONTESTANTS.items():
            if options.only not in name or name in options.skip.split(","):
                continue
            with workplace(options.messages, options.messages // 4) as field:
                try:
                    for score in contestant(field):
                        scores.setdefault(score.name, []).append(score.measured)
                        print(score.line(), flush=True)
                except Unavailable as error:
                    print(f"NOT COMPARED: {name}: {error}", flush=True)
    return ratios(scores, options.messages)


def ratios(scores: Mapping[str, Sequence[Measured]], messages: int) -> bool:
    """Print towpath's figures beside the goals and the peers'; whether all floors are met."""
    if OURS not in scores:
        return False
    mine_s = median(one.cpu_s for one in scores[OURS])
    mine_mb = median(one.peak_mb for one in scores[OURS])
    met = True
    if messages == 200_000:
        met = mine_s <= MOST_CPU_S and mine_mb <= MOST_MB
        figures = {
            "cpu_s": round(mine_s, 2),
            "floor_s": MOST_CPU_S,
            "mb": round(mine_mb),
            "floor_mb": MOST_MB,
        }
        print(json.dumps({**figures, "met": met}))
    for name, runs in scores.items():
        floor = next((floor for peer, floor in FLOORS.items() if name.startswith(peer)), None)
        times = median(one.cpu_s for one in runs) / mine_s
        if not name.startswith("towpath"):
            print(
                json.dumps(
                    {"beside": name, "times_less_cpu": round(times, 1), "floor": floor}, ensure_ascii=False
                )
            )
        met &= floor is None or times >= floor
    return met


def budget(options: argparse.Namespace) -> bool:
    """How much of ten requests a second is used when every answer takes 300 ms."""
    messages = min(options.messages, 100_000)
    with workplace(messages, messages // 50, latency_s=LATENCY_S, per_s=PER_S) as field:
        found = field.python("ours.py", str(field.place / "slow.duckdb"), "r0", str(PER_S), ",".join(TABLES))
        field.check(field.place / "slow.duckdb", "main")
        told = served(field.url)
    share = (told.requests - 1) / (PER_S * told.span_s)
    print(
        f"{LATENCY_S * 1000:.0f} ms an answer, {PER_S} requests a second: {told.requests} requests in "
        f"{told.span_s:.1f} s, {share:.0%} of the allowance (floor {BUDGET_SHARE:.0%}), "
        f"{told.refused} answered 429; {found.cpu_s:.2f} CPU-s"
    )
    return share >= BUDGET_SHARE


def people(_: argparse.Namespace) -> bool:
    """What a million people take, by searching and by an export, as `replicate plan` tells it."""
    with workplace(1, 1, people=MILLION) as field:
        found = field.python("planned.py", str(field.place / "plan.duckdb"))
    plans = [msgspec.json.decode(line, type=Plan) for line in found.said.strip().splitlines()[-2:]]
    for each in plans:
        print(f"1,000,000 people by {each.by}: {each.requests:,} requests, {each.seconds / 60:.1f} minutes")
    return plans[0].requests <= MILLION // 1000 * PER_THOUSAND and plans[1].requests < plans[0].requests


def main() -> int:
    """Run the parts; 1 where a floor is missed."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--messages", type=int, default=200_000)
    given.add_argument("--rounds", type=int, default=1)
    given.add_argument("--only", default="", help="a part of the contestants' names")
    given.add_argument("--skip", default="", help="names of contestants to leave out")
    given.add_argument("--part", choices=["speed", "budget", "people"], help="one part alone")
    options = given.parse_args()
    parts = {"speed": speed, "budget": budget, "people": people}
    met = [part(options) for name, part in parts.items() if options.part in (None, name)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
