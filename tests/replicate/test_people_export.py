"""People by export: the rows of a search, piece by piece; whatever goes wrong with it, a search follows."""

from __future__ import annotations

import pytest

from tests.replicate.test_resuming import contents
from tests.replicate.world import Cut, World
from towpath.replicate import gathering, people_export
from towpath.replicate.people_export import whole_records
from towpath.sandbox.customerio_state import Person

FEW = {"people": 60, "messages": 0, "activities": 0, "newsletters": 0, "suppressions": 0, "senders": 0}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_export, "PIECE_BYTES", 2000)
    monkeypatch.setattr(gathering, "ROWS", 1)


def add(world: World, **attributes: object) -> None:
    made = Person(cio_id=f"0300{len(world.state.people):06x}", created_at=1, attributes=dict(attributes))
    world.state.people[made.cio_id] = made


def attributes(world: World) -> dict[str, object]:
    found = world.warehouse.table("customers")
    return {row["cio_id"]: (row["id"], row["email"], row["unsubscribed"], row["attributes"]) for row in found}


@pytest.mark.spec("R053")
@pytest.mark.usefixtures("small_pieces")
async def test_an_export_gives_the_rows_of_a_search() -> None:
    world = World(**FEW)
    add(world, email="line@example.com", note='two\nlines, "quoted", über', plan="x")
    assert (await world.one("customers", people="search")).outcome == "ok"
    searched = attributes(world)
    report = await world.one("customers", people="export")
    assert (report.outcome, report.read, report.gone, report.notes) == ("ok", len(searched), 0, ())
    assert attributes(world) == searched
    assert not any("authorization" in one.headers for one in world.wire.asked if ".csv" in one.url)


@pytest.mark.spec("R053")
async def test_many_people_are_exported_and_few_are_searched_for() -> None:
    world = World(**FEW)
    for count, way in ((60, "exports"), (10_000, "attributes")):
        await world.run("customers", people="auto", export_from=count)
        assert any(way in one.url for one in world.wire.asked)


@pytest.mark.spec("R053")
@pytest.mark.parametrize("trouble", ["failed", "pending", "expired", "forbidden", "no ranges"])
async def test_whatever_goes_wrong_with_an_export_a_search_follows(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(**FEW)
    if trouble == "forbidden":
        world.state.forbidden.add("/v1/exports/customers")
    elif trouble == "no ranges":
        world.wire.ranges = False
        monkeypatch.setattr("towpath.replicate.chains.LARGEST_PIECE_BYTES", 1000)
    else:
        world.state.export_fate = trouble  # type: ignore[assignment]
    report = await world.one("customers", people="export")
    assert (report.outcome, report.read) == ("ok", 60)
    assert "searched for instead" in report.notes[0]
    assert len(attributes(world)) == 60
    assert not [key for key in world.warehouse.states if key.endswith(("/chains", "/run"))]


@pytest.mark.spec("R044", "R053")
@pytest.mark.usefixtures("small_pieces")
async def test_an_export_cut_off_goes_on_in_the_same_file() -> None:
    world = World(**FEW)
    whole = await world.one("customers", people="export")
    expected = contents(world.warehouse)
    for cut in range(whole.requests):
        world.warehouse.__init__()  # type: ignore[misc]
        world.wire.cut_after = cut
        with pytest.raises(Cut):
            await world.one("customers", people="export")
        world.wire.cut_after = None
        report = await world.one("customers", people="export")
        assert contents(world.warehouse) == expected
        assert report.requests <= whole.requests - cut + 6


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b"a,b\n1,2\n", 8),
        (b"a,b\n1,2", 4),
        (b'a,b\n"1\n2",3\n4', 12),
        (b'a,b\n"1\n2', 4),
        (b'a,b\n"1""\n2"\nx', 12),
        (b"", 0),
        (b'"a', 0),
    ],
)
def test_a_record_ends_with_a_line_outside_of_quotes(body: bytes, whole: int) -> None:
    assert whole_records(body) == whole
