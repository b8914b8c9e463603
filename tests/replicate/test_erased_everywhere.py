"""A person who was replicated is gone from every target: from tables, views and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from pydantic import SecretStr

from tests.log.postgres import server
from tests.replicate.world import World
from towpath.clock import SystemClock
from towpath.replicate.models import views
from towpath.replicate.tables import HEARD, REPLICATED
from towpath.warehouse import Load, Loader, Page, Shape
from towpath.warehouse.arrow import hashed
from towpath.warehouse.desk import Desk
from towpath.warehouse.open import open_loader
from towpath.warehouse.settings import DuckDbTarget, ParquetTarget, PostgresTarget, Target

pytestmark = pytest.mark.spec("R051", "D10")

USER, CIO_ID, EMAIL = "user-0f3a9c-ada", "cio0f3a9cada", "ada.0f3a9c@example.com"
SECRETS = (USER, CIO_ID, EMAIL, "Adelheid-0f3a9c", "token-0f3a9c", "old.0f3a9c@example.com")
"""All that tells who she is, her name, device and former address included."""

OTHER = {"id": "user-2", "cio_id": "cio2", "email": "bob@example.com"}
NAMESAKE = {"id": "user-3", "cio_id": "cio3", "email": EMAIL}
"""Somebody else, who reads mail at the same address."""

SCHEMA = "erased"


def identifiers(person: Mapping[str, Any]) -> dict[str, Any]:
    return {"customer_id": person["id"], "customer_identifiers": dict(person)}


def message(name: str, person: Mapping[str, Any], recipient: str, **more: Any) -> dict[str, Any]:
    metrics = {"sent": 1735689600, "opened": 1735689700}
    return {
        "id": name, "type": "email", "created": 1735689600, "recipient": recipient, "metrics": metrics,
        "campaign_id": 1, **identifiers(person), **more,
    }  # fmt: skip


def records(namesake: Mapping[str, Any] | None = None) -> dict[str, list[dict[str, Any]]]:
    """What there is of her and of others; of a namesake too, where one is given."""
    ada = {"id": USER, "cio_id": CIO_ID, "email": EMAIL}
    quoted = f"550 5.1.1 <{EMAIL}>: user unknown"
    device = {"id": "token-0f3a9c", "platform": "ios"}
    everybody = [ada, OTHER, *([namesake] if namesake else [])]
    return {
        "customers": [
            {
                **person,
                "unsubscribed": False,
                "attributes": {"first_name": "Adelheid-0f3a9c", "plan": "gold"} if person is ada else {},
                "devices": [device] if person is ada else [],
            }
            for person in everybody
        ],
        "messages": [
            message("m1", ada, EMAIL, subject="Hello Adelheid-0f3a9c", unknown_key={"to": EMAIL}),
            message("m2", {"id": None, "cio_id": CIO_ID, "email": None}, "old.0f3a9c@example.com"),
            message("m3", {"id": USER, "cio_id": None, "email": None}, EMAIL, failure_message=quoted),
            message("m4", OTHER, "bob@example.com", subject="Hello Bob"),
            *([message("m5", namesake, EMAIL)] if namesake else []),
        ],
        "activities": [
            {
                "id": f"a{number}",
                "type": "page",
                "timestamp": 1735689600,
                "url": f"https://example.com/{person['id']}",
                "data": {"note": f"of {person['email']}"},
                **identifiers(person),
            }
            for number, person in enumerate(everybody)
        ],
        "segments": [{"id": 1, "name": "Gold", "updated_at": 1735689600}],
        "segment_memberships": [{"segment_id": 1, **person} for person in everybody],
        "objects": [{"object_type_id": "1", "identifiers": {"cio_object_id": "ob1", "object_id": "acme"}}],
        "object_relationships": [
            {
                "object_type_id": "1",
                "cio_object_id": "ob1",
                "object_id": "acme",
                "identifiers": dict(person),
                "attributes": {"note": str(person["email"])},
            }
            for person in everybody
        ],
        "customer_relationships": [
            {"cio_id": person["cio_id"], "object_type_id": "1", "identifiers": {"cio_object_id": "ob1"}}
            for person in everybody
        ],
        "esp_suppressions": [
            {"suppression_type": "bounces", "domain": "", "email": one, "created": 1735689600, "reason": one}
            for one in (EMAIL, "bob@example.com")
        ],
        "message_events": [
            {
                "id": "e1",
                "delivery_id": "m1",
                "metric": "clicked",
                "at": 1735689800,
                "person_id": USER,
                "email": EMAIL,
                "recipient": EMAIL,
                "href": f"https://example.com/?email={EMAIL}",
                "failure_message": quoted,
            },
            {"id": "e2", "delivery_id": "m4", "metric": "clicked", "at": 1735689800, "person_id": "user-2"},
        ],
    }


KNOWN = {**{name: one.table for name, one in REPLICATED.items()}, **HEARD}


def shapes(*hashed: str) -> list[Shape]:
    """All tables, with columns of these names hashed."""
    return [
        Shape(table, hashed=tuple(column.name for column in table.columns if column.name in hashed))
        for name, table in KNOWN.items()
        if name in records()
    ]


@pytest.fixture(params=["duckdb", "parquet", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if request.param == "duckdb":
        yield DuckDbTarget(path=str(tmp_path / "warehouse.duckdb"))
    elif request.param == "parquet":
        yield ParquetTarget(path=str(tmp_path / "lake"))
    else:
        with psycopg.connect(server().dsn, autocommit=True) as connection:
            connection.execute(f"drop schema if exists {SCHEMA} cascade")
        yield PostgresTarget(url=SecretStr(server().dsn), schema=SCHEMA)


def fill(loader: Loader, wanted: Sequence[Shape], given: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    loader.prepare(wanted)
    for name, rows in given.items():
        page = Page(json.dumps(rows).encode())
        wrote = loader.load(Load(name, "shop", "r1", (page,), state={f"cio/shop/{name}/cursor": "1"}))
        assert (wrote.read, wrote.refused) == (len(rows), 0), (name, wrote.refusals)


def make_views(loader: Loader, target: Target, wanted: Sequence[Shape]) -> None:
    if not isinstance(target, DuckDbTarget | PostgresTarget):
        return
    made = views(wanted, target.kind, target.db_schema)
    assert not [view.name for view in made if view.left_out and "segment" not in view.name]
    loader.execute([statement for view in made for statement in view.statements])


def ask(target: Target, query: str) -> list[tuple[Any, ...]]:
    """What a person's query gives, while nothing is being written."""
    if isinstance(target, PostgresTarget):
        with psycopg.connect(server().dsn) as postgres:
            postgres.execute(f"set search_path to {SCHEMA}")
            return postgres.execute(query.encode()).fetchall()
    path = target.path if isinstance(target, DuckDbTarget) else ":memory:"
    with duckdb.connect(path, read_only=path != ":memory:") as opened:
        return opened.execute(query).fetchall()


def texts(target: Target) -> str:
    """Every row of every table, our own ones included, and every file that can be read as text."""
    if isinstance(target, ParquetTarget):
        return "".join(map(str, _parquet_rows(Path(target.path))))
    tables = "select table_name from information_schema.tables where table_type = 'BASE TABLE' and "
    schema = "main" if isinstance(target, DuckDbTarget) else SCHEMA
    names = [name for (name,) in ask(target, f"{tables} table_schema = '{schema}'")]
    assert "customers" in names
    return "".join(
        str(row) for name in names for row in ask(target, f'select cast(t as varchar) from "{name}" as t')
    )


def _parquet_rows(directory: Path) -> Iterator[Any]:
    """What all files hold, those out of force that are still there included."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert any(path.suffix == ".parquet" for path in files)
    for path in files:
        if path.suffix == ".parquet":
            yield duckdb.execute(f"select * from read_parquet('{path}')").fetchall()
        else:
            yield path.read_text(errors="replace")


def raw(target: Target) -> bytes:
    """The bytes of an embedded target's files and of whatever lies beside them."""
    if not isinstance(target, DuckDbTarget | ParquetTarget):
        return b""
    beside = Path(target.path).parent
    return b"".join(path.read_bytes() for path in beside.rglob("*") if path.is_file())


def reopened(target: Target, hash_key: str = "") -> Loader:
    """As another process opens it that has prepared nothing."""
    return open_loader(target, hash_key)


@pytest.mark.parametrize("given", [USER, CIO_ID, EMAIL])
def test_nothing_is_left_by_whichever_id(given: str, target: Target) -> None:
    loader = open_loader(target)
    fill(loader, shapes(), records())
    loader.close()
    before = texts(target)
    assert [secret for secret in SECRETS if secret not in before] == []
    # What the files hold can be found in their bytes, so that its absence means something.
    assert isinstance(target, PostgresTarget) or all(secret.encode() in raw(target) for secret in SECRETS)

    loader = reopened(target)
    erased = loader.erase([given])
    loader.close()

    left = texts(target)
    assert [secret for secret in SECRETS if secret in left] == []
    assert [secret for secret in SECRETS if secret.encode() in raw(target)] == []
    assert {name: count for name, count in erased.items() if count} == {
        "customers": 1, "messages": 3, "activities": 1, "segment_memberships": 1, "object_relationships": 1,
        "customer_relationships": 1, "esp_suppressions": 1, "message_events": 1,
    }  # fmt: skip
    assert "bob@example.com" in left
    assert "Hello Bob" in left


def test_hashes_of_a_person_go_too(target: Target) -> None:
    wanted = shapes("id", "email", "customer_id", "person_id", "recipient")
    wanted = [one for one in wanted if one.table.name in ("customers", "activities", "segment_memberships")]
    given = {name: rows for name, rows in records().items() if name in {one.table.name for one in wanted}}
    loader = open_loader(target, "a key of hashes")
    wanted = [
        Shape(one.table, hashed=tuple(name for name in one.hashed if name not in one.table.key))
        for one in wanted
    ]
    fill(loader, wanted, given)
    loader.close()
    hashes = [hashed(b"a key of hashes", one) for one in (USER, EMAIL)]
    before = texts(target)
    assert all(one in before for one in hashes)
    assert USER not in before.replace(f"https://example.com/{USER}", "")

    loader = reopened(target, "a key of hashes")
    loader.erase([USER])
    loader.close()

    left = texts(target)
    assert [one for one in (*SECRETS, *hashes) if one in left] == []
    assert hashed(b"a key of hashes", "bob@example.com") in left


def test_somebody_else_at_the_same_address_stays(target: Target) -> None:
    loader = open_loader(target)
    fill(loader, shapes(), records(NAMESAKE))
    loader.close()
    loader = reopened(target)
    erased = loader.erase([USER])
    loader.close()
    assert (erased["customers"], erased["messages"], erased["activities"]) == (1, 3, 1)
    left = texts(target)
    assert USER not in left
    assert CIO_ID not in left
    assert left.count("user-3") >= 4


def test_reports_of_webhooks_go_although_their_workspace_is_a_source(target: Target) -> None:
    loader = open_loader(target)
    fill(loader, shapes(), records())
    reports = [
        {"id": "e3", "delivery_id": "m2", "metric": "opened", "person_id": EMAIL, "cio_id": CIO_ID},
        {"id": "e4", "delivery_id": "m4", "metric": "opened", "person_id": "user-2", "cio_id": "cio2"},
    ]
    page = Page(json.dumps([{**one, "at": 1735689800} for one in reports]).encode())
    loader.load(Load("message_events", "cio_reports", "events", (page,), state={}))
    loader.close()

    loader = reopened(target)
    erased = loader.erase([USER])  # neither of the two reports names it
    loader.close()

    left = texts(target)
    assert erased["message_events"] == 2
    assert [secret for secret in SECRETS if secret in left] == []
    assert "cio2" in left


def test_views_stay_and_count_without_the_person(target: Target) -> None:
    if isinstance(target, ParquetTarget):
        return  # has no views
    loader = open_loader(target)
    fill(loader, shapes(), records())
    make_views(loader, target, shapes())
    counted = "select count(*), count(cio_id), count(recipient), count(opened_at) from deliveries"
    loader.close()
    assert ask(target, counted) == [(4, 3, 4, 4)]

    loader = reopened(target)
    loader.erase([USER])
    loader.close()

    assert ask(target, counted) == [(4, 1, 1, 4)]
    assert ask(target, "select person, opened from person_engagement") == [("cio2", 1)]
    if isinstance(target, DuckDbTarget):
        explained = (
            "select count(*) from duckdb_columns() where comment is not null and table_name = 'deliveries'"
        )
        assert ask(target, explained)[0][0] > 40


def test_erasing_again_and_erasing_nobody_changes_nothing(target: Target) -> None:
    loader = open_loader(target)
    fill(loader, shapes(), records())
    loader.erase([USER])
    again = loader.erase([USER])
    nobody = loader.erase(["nobody-at-all"])
    loader.close()
    assert not any(again.values())
    assert not any(nobody.values())
    assert len(ask(target, "select 1")) == 1


async def test_the_program_erases_through_the_loading_process(tmp_path: Path) -> None:
    target = DuckDbTarget(path=str(tmp_path / "warehouse.duckdb"))
    desk = Desk(SystemClock())
    try:
        warehouse = desk.warehouse(target, "")
        await warehouse.prepare(shapes())
        for name, rows in records().items():
            page = Page(json.dumps(rows).encode())
            await warehouse.load(Load(name, "shop", "r1", (page,), state={}))
        erased = await warehouse.erase([USER])
    finally:
        await desk.close()
    assert erased["messages"] == 3
    assert [secret for secret in SECRETS if secret.encode() in raw(target)] == []


class Direct:
    """A loader as the program's side of a warehouse, without a process between."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._loader, name)

        async def called(*values: Any, **named: Any) -> Any:
            return asked(*values, **named)

        return called


async def test_what_a_run_of_every_table_of_people_left(tmp_path: Path) -> None:
    world = World(
        people=12, messages=60, activities=40, objects=4, suppressions=3, actions=1, newsletters=1, senders=1
    )
    target = DuckDbTarget(path=str(tmp_path / "warehouse.duckdb"))
    loader = open_loader(target)
    world.warehouse = Direct(loader)  # type: ignore[assignment]
    about_people = [name for name, one in KNOWN.items() if one.persons and name in REPLICATED]
    report = await world.run(*about_people, "segments", "object_types")
    assert report.good
    loader.close()
    known = "select cio_id, email from customers where id is not null and email is not null"
    cio_id, email = ask(
        target, f"{known} and cio_id in (select cio_id from messages) order by cio_id limit 1"
    )[0]
    assert texts(target).count(cio_id) > 5

    loader = reopened(target)
    loader.erase([cio_id])
    loader.close()

    assert cio_id not in texts(target)
    assert email not in texts(target)
    assert cio_id.encode() not in raw(target)
    assert email.encode() not in raw(target)
