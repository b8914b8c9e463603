"""Records taken apart: the fast path and the patient one agree, and odd records teach the fast one."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.testing.loader import HASH_KEY, PEOPLE, page, person
from towpath.warehouse import Column, Load, Page, Shape, Table
from towpath.warehouse.arrow import Reading
from towpath.warehouse.fitting import Misfit, fit
from towpath.warehouse.records import Records, Taken
from towpath.warehouse.salvage import split
from towpath.warehouse.table import Kind

DEEP = Table(
    "deep",
    columns=(
        Column("id", "text"),
        Column("email", "text", path=("who", "email"), blank_is_null=True),
        Column("who", "json"),
        Column("inner", "integer", path=("a", "b", "c")),
        Column("created", "time"),
        Column("day", "date"),
        Column("score", "number"),
        Column("count", "integer"),
        Column("yes", "boolean"),
    ),
    key=("id",),
    cursor="created",
)


class Watched(Records):
    """Records that count the pages that had to be taken with patience."""

    patient = 0

    def _slow(self, page: Page, taken: Taken) -> None:
        self.patient += 1
        super()._slow(page, taken)


def watched(table: Table) -> Watched:
    return Watched(table.columns, table.key)


ODD = ["", "12", "2024-01-01", "2024-01-01T00:00:00Z", "true", "1e3", 1.7e9]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(ODD)
)
KEYS = st.sampled_from(["b", "c", "email", "x"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner), max_leaves=4
)
RECORD = st.dictionaries(
    st.sampled_from([*(column.name for column in DEEP.columns), "a", "odd", "x"]), VALUES, max_size=9
)


@settings(max_examples=80, deadline=None)
@given(records=st.lists(RECORD, max_size=4), before=st.lists(RECORD, max_size=2))
def test_the_fast_path_takes_what_the_patient_one_takes(
    records: list[dict[str, Any]], before: list[dict[str, Any]]
) -> None:
    quick = Records(DEEP.columns, DEEP.key)
    quick.take([page(*before)])  # whatever it learnt from it
    patient = Records(DEEP.columns, DEEP.key)
    patient._hard = True
    one, other = quick.take([page(*records)]), patient.take([page(*records)])
    assert one.columns == other.columns
    assert (one.drift, one.read, one.refusals) == (other.drift, other.read, other.refusals)
    sorted_json = msgspec.json.Encoder(order="sorted").encode
    assert [(row, sorted_json(extra)) for row, extra in sorted(one.extras.items())] == [
        (row, sorted_json(extra)) for row, extra in sorted(other.extras.items())
    ]


@pytest.mark.spec("R048")
@pytest.mark.parametrize(
    "odd",
    [
        {"new": 1},
        {"who": {"email": "a@example.com", "new": 1}},
        {"a": {"b": {"c": 1}, "new": {"x": 1}}},
        {"count": "12"},
        {"count": 12.0},
        {"score": "1.5"},
        {"created": "2024-01-01T00:00:00Z"},
        {"created": "1700000000"},
        {"day": 1_700_000_000},
        {"day": "2024-01-01T10:00:00Z"},
        {"yes": 1},
        {"id": 7},
        {"count": "misfit"},
    ],
)
def test_what_came_once_is_no_longer_slow(odd: dict[str, Any]) -> None:
    records = watched(DEEP)
    pages = [page({"id": "1"}, {"id": "2"} | odd) for _ in range(6)]
    taken = records.take(pages)
    assert taken.count == 12
    assert records.patient <= 2


def test_what_is_expected_is_never_slow() -> None:
    records = watched(DEEP)
    usual = {
        "id": "1", "who": {"email": "", "id": 7}, "a": {"b": None}, "created": 1.5, "day": "2024-02-29",
        "score": 1, "count": 2**63 - 1, "yes": None,
    }  # fmt: skip
    taken = records.take([page(usual, {"id": "2", "who": None, "a": None}), Page(b"null"), Page(b"[]")])
    assert (records.patient, taken.count, taken.drift) == (0, 2, {})
    assert taken.columns["day"] == [date(2024, 2, 29), None]
    assert taken.columns["email"] == [None, None]
    assert taken.columns["who"] == [b'{"email":"","id":7}', None]


def test_too_many_unknown_keys_are_not_all_learnt() -> None:
    records = watched(DEEP)
    taken = records.take([page({"id": "1"} | {f"k{n}-{i}": 1 for i in range(50)}) for n in range(20)])
    assert len(taken.drift) == 1000
    assert len(records._root.below) < 200


@pytest.mark.spec("R051")
@pytest.mark.parametrize(
    "who", ["ann@example.com", ["ann@example.com"], 7, {"email": {"at": "ann@example.com"}}]
)
@pytest.mark.parametrize("left_out", [True, False])
def test_what_is_hashed_or_left_out_never_goes_to_extra(who: Any, left_out: bool) -> None:
    kept = ("visits",) if left_out else ()
    reading = Reading(Shape(PEOPLE, columns=kept, hashed=() if left_out else ("email",)), HASH_KEY)
    for _ in range(2):
        batch = reading.read(Load("people", "acme", "r1", (page(person("c1", identifiers=who)),)))
        assert "ann" not in str(batch.rows.to_pylist())
        assert batch.rows.num_rows == 1


def test_a_lone_surrogate_is_replaced_and_a_pair_is_not() -> None:
    reading = Reading(Shape(PEOPLE), "")
    raw = rb'[{"cio_id":"1","id":"\ud83d\ude00"},{"cio_id":"2","attributes":{"a":"\ud83d x"}}]'
    rows = reading.read(Load("people", "acme", "r1", (Page(raw),))).rows.to_pylist()
    assert rows[0]["id"] == "\U0001f600"
    assert msgspec.json.decode(rows[1]["attributes"]) == {"a": "\ufffd x"}


@pytest.mark.parametrize(
    ("array", "records"),
    [
        (b"[]", []),
        (b"[1,2]", [b"1", b"2"]),
        (b'[NaN, {"a":",]"} ,"x,\\"]",[1,[2]]]', [b"NaN", b'{"a":",]"}', b'"x,\\"]"', b"[1,[2]]"]),
        (b'[{"a":NaN}]', [b'{"a":NaN}']),
        (b'{"a":', [b'{"a":']),
        (b"[ ]", []),
    ],
)
def test_records_are_split_whatever_they_hold(array: bytes, records: list[bytes]) -> None:
    assert split(array) == records


@given(records=st.lists(VALUES, max_size=5))
def test_splitting_with_patience_agrees(records: list[Any]) -> None:
    array = msgspec.json.encode([*records, "end"])
    assert split(array) == split(array[:-1] + b",NaN]")[:-1]


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("text", 12, "12"),
        ("text", 12.0, "12"),
        ("text", False, "false"),
        ("integer", "-7", -7),
        ("number", "1e3", 1000.0),
        ("boolean", "Yes", True),
        ("boolean", 0, False),
        ("time", 1_700_000_000_000_000_000, 1_700_000_000.0),
        ("time", "2023-11-14 22:13:20", 1_700_000_000.0),
        ("time", "9999-12-31T00:00:00Z", 253_402_214_400.0),
        ("time", -1, -1.0),
        ("date", "2024-01-01", date(2024, 1, 1)),
    ],
)
def test_forms_that_mean_the_same_fit(kind: Kind, value: Any, fits: Any) -> None:
    assert fit(kind, value) == fits


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", {"a": 1}),
        ("integer", True),
        ("integer", "1_000"),
        ("integer", "٣"),
        ("integer", 1.5),
        ("integer", 2**63),
        ("integer", "9" * 5000),
        ("number", "nan"),
        ("number", "inf"),
        ("number", True),
        ("number", 10**400),
        ("boolean", 2),
        ("boolean", "perhaps"),
        ("time", True),
        ("time", 1e300),
        ("time", "0000-00-00"),
        ("date", "soon"),
        ("date", 1e30),
    ],
)
def test_what_does_not_fit_is_a_misfit(kind: Kind, value: Any) -> None:
    with pytest.raises(Misfit):
        fit(kind, value)


@pytest.mark.spec("R048", "R051")
def test_a_refused_record_holds_nothing_that_is_hashed_or_left_out() -> None:
    columns = (Column("id", "text"), Column("email", "text", path=("who", "email")))
    records = Records(columns, ("id",), left_out=[Column("phone", "text")], hashed=["email"])
    taken = records.take([page({"who": {"email": "ann@x.example"}, "phone": "+49", "n": 1})])
    assert [one.record for one in taken.refusals] == ['{"n":1}']
    assert [one.record for one in records.take([Page(b"[7]")]).refusals] == ["{}"]
