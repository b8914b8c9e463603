"""The contract of `Loader`: what every target of a warehouse promises. Inherit, and say how one is opened."""

# ruff: noqa: S101, D102 - asserting is what a contract is for, and the tests' names are sentences
from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.warehouse import (
    DELETED,
    EXTRA,
    LOADED,
    RUN,
    WORKSPACE,
    Column,
    Counted,
    Gone,
    Load,
    Page,
    Shape,
    Table,
    Wrote,
)

from .loader_persons import PersonsContract
from .loader_stage import (
    DAY_S,
    EVENTS,
    HASH_KEY,
    HEARD,
    MEMBERS,
    NOTES,
    PEOPLE,
    SENT,
    TABLES,
    VISITS,
    WORDS,
    hashed,
    moment,
    page,
    person,
)

__all__ = [
    "DAY_S",
    "EVENTS",
    "HASH_KEY",
    "HEARD",
    "MEMBERS",
    "NOTES",
    "PEOPLE",
    "SENT",
    "TABLES",
    "VISITS",
    "WORDS",
    "LoaderContract",
    "hashed",
    "moment",
    "page",
    "person",
]


class LoaderContract(PersonsContract):
    """What a loader promises. Inherit in a class `Test…`, and implement `begin` and `rows`."""

    # Tables and columns

    @pytest.mark.spec("R048")
    def test_prepare_adds_what_is_missing_and_drops_nothing(self) -> None:
        self.load("words", {"word": "one"})
        more = msgspec.structs.replace(WORDS, columns=(*WORDS.columns, Column("length", "integer")))
        self.loader.prepare([Shape(more)])
        self.loader.load(Load("words", "acme", "r2", (page({"word": "two", "length": 3}),)))
        self.loader.prepare([Shape(WORDS)])
        lengths = {key: row["length"] for key, row in self.found("words").items()}
        assert lengths == {"one": None, "two": 3}

    @pytest.mark.spec("R048")
    def test_prepare_again_changes_nothing(self) -> None:
        self.load("words", {"word": "one"})
        before = self.found("words")
        self.loader.prepare([Shape(table) for table in TABLES])
        assert self.found("words") == before

    def test_a_table_can_be_called_otherwise_there(self) -> None:
        table = Table("plain", columns=(Column("word", "text"),), key=("word",))
        self.loader.prepare([Shape(table, called="mine")])
        self.load("plain", {"word": "one"})
        assert [row["word"] for row in self.rows("mine")] == ["one"]

    @pytest.mark.spec("R048")
    def test_columns_that_are_not_kept_are_neither_columns_nor_extra(self) -> None:
        table = msgspec.structs.replace(PEOPLE, name="few")
        self.loader.prepare([Shape(table, columns=("visits",))])
        record = person("c1", visits=3, active=True, identifiers={"email": "ann@example.com"})
        self.loader.load(Load("few", "acme", "r1", (page(record),)))
        (row,) = self.rows("few")
        assert set(row) == {"cio_id", "visits", WORKSPACE, EXTRA, RUN, LOADED, DELETED}
        assert (row["cio_id"], row["visits"], row[EXTRA]) == ("c1", 3, None)

    @pytest.mark.spec("R048", "R056")
    def test_an_integer_column_widens_to_numbers_and_nothing_else_is_altered(self) -> None:
        self.load("sent", {"id": 1, "subject": "a"})
        self.load("notes", {"id": 1, "stars": 5})
        stars = Column("stars", "number")
        wider = msgspec.structs.replace(NOTES, columns=(*NOTES.columns[:-1], stars))
        subject = Column("subject", "integer")
        other = msgspec.structs.replace(SENT, columns=(*SENT.columns[:3], subject, SENT.columns[4]))
        self.loader.prepare([Shape(wider), Shape(other)])
        self.load("notes", {"id": 2, "stars": 4.5})
        self.load("sent", {"id": 2, "subject": 7})
        assert {key: row["stars"] for key, row in self.found("notes").items()} == {1: 5.0, 2: 4.5}
        assert {key: row["subject"] for key, row in self.found("sent").items()} == {1: "a", 2: "7"}

    # Loading

    def test_every_kind_of_column_comes_back(self) -> None:
        attributes = {"plan": "pro", "tags": ["a", None], "n": 1.5, "text": 'é "quoted" \\ \U0001f600'}
        given = person(
            "c1", id="u1", identifiers={"email": "ann@example.com"}, visits=2**53 + 1, score=0.25,
            active=True, born="1990-02-28", updated=1_700_000_000.5, attributes=attributes,
        )  # fmt: skip
        assert self.load("people", given) == Wrote(read=1, written=1, newest=1_700_000_000.5)
        row = self.found("people")["c1"]
        assert row | {LOADED: 0} == {
            "cio_id": "c1", "id": "u1", "email": "ann@example.com", "visits": 2**53 + 1, "score": 0.25,
            "active": True, "born": date(1990, 2, 28), "updated": 1_700_000_000.5, "attributes": attributes,
            WORKSPACE: "acme", EXTRA: None, RUN: "r1", LOADED: 0, DELETED: None,
        }  # fmt: skip
        assert row[LOADED] > 1_700_000_000

    def test_what_is_missing_null_or_blank_is_null(self) -> None:
        self.load("people", person("c1"), person("c2", id="", visits=None, identifiers=None))
        for row in self.found("people").values():
            assert [row[name] for name in ("id", "email", "visits", "attributes", EXTRA)] == [None] * 5

    def test_times_are_read_as_seconds_or_iso(self) -> None:
        said = [1_700_000_000, "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "1700000000"]
        said += [1_700_000_000_000]  # milliseconds
        wrote = self.load("people", *[person(f"c{i}", updated=at) for i, at in enumerate(said)])
        assert {row["updated"] for row in self.found("people").values()} == {1_700_000_000.0}
        assert (wrote.newest, wrote.drift) == (1_700_000_000.0, {})

    def test_sensible_forms_of_a_value_fit(self) -> None:
        records = [
            {"id": "12", "subject": 12}, {"id": 13.0, "subject": True}, {"id": 14, "subject": 1.5},
        ]  # fmt: skip
        assert self.load("sent", *records).drift == {}
        subjects = {key: row["subject"] for key, row in self.found("sent").items()}
        assert subjects == {12: "12", 13: "true", 14: "1.5"}

    @pytest.mark.spec("R041")
    def test_merge_replaces_by_workspace_and_key(self) -> None:
        self.load("people", person("c1", visits=1), person("c2", visits=1))
        wrote = self.load("people", person("c1", visits=2), person("c3", visits=1), run="r2")
        assert wrote == Wrote(read=2, written=2, newest=1_700_000_000.0)
        found = {key: (row["visits"], row[RUN]) for key, row in self.found("people").items()}
        assert found == {"c1": (2, "r2"), "c2": (1, "r1"), "c3": (1, "r2")}

    @pytest.mark.spec("R041")
    def test_equal_rows_are_left_alone(self) -> None:
        records = [
            person("c1", visits=1, score=0.1, attributes={"a": [1, {"b": None}]}, odd="kept"),
            person("c2", id="u2", born="1990-01-01"),
        ]
        self.load("people", *records)
        before = self.found("people")
        wrote = self.load("people", *records, run="r2")
        assert (wrote.read, wrote.written, wrote.unchanged) == (2, 0, 2)
        assert self.found("people") == before

    @pytest.mark.parametrize(
        "change",
        [
            {"visits": 2},
            {"visits": None},
            {"odd": "new"},
            {"attributes": {"a": 2}},
            {"updated": 1_700_000_001},
        ],
    )
    def test_any_difference_is_written(self, change: dict[str, Any]) -> None:
        record = person("c1", visits=1, attributes={"a": 1}, odd="old")
        self.load("people", record)
        wrote = self.load("people", record | change, run="r2")
        assert (wrote.written, wrote.unchanged, self.found("people")["c1"][RUN]) == (1, 0, "r2")

    def test_a_null_becomes_a_value_and_back(self) -> None:
        for visits in (None, 1, None):
            assert self.load("people", person("c1", visits=visits)).written == 1
            assert self.found("people")["c1"]["visits"] == visits

    def test_of_one_key_within_a_load_the_later_wins(self) -> None:
        pages = (page(person("c1", visits=1), person("c2")), page(person("c1", visits=2)))
        wrote = self.loader.load(Load("people", "acme", "r1", pages))
        assert (wrote.read, wrote.written) == (3, 2)
        assert self.found("people")["c1"]["visits"] == 2

    def test_a_key_of_several_columns(self) -> None:
        self.load("members", *[{"segment_id": s, "cio_id": c} for s in (1, 2) for c in ("a", "b")])
        self.load("members", {"segment_id": 1, "cio_id": "b", "since": 5})
        since = {key: row["since"] for key, row in self.found("members").items()}
        assert since == {(1, "a"): None, (1, "b"): 5.0, (2, "a"): None, (2, "b"): None}

    def test_constants_stand_beside_the_records(self) -> None:
        pages = (page({"cio_id": "a"}, segment_id=7), page({"cio_id": "a"}, segment_id=8))
        self.loader.load(Load("members", "acme", "r1", pages))
        assert set(self.found("members")) == {(7, "a"), (8, "a")}

    @pytest.mark.spec("R023")
    def test_records_that_are_no_objects_are_wrapped(self) -> None:
        load = Load("words", "acme", "r1", (Page(b'["192.0.2.1", "192.0.2.2"]', {}, "word"),))
        assert self.loader.load(load).written == 2
        assert set(self.found("words")) == {"192.0.2.1", "192.0.2.2"}

    @pytest.mark.spec("R047")
    def test_empty_and_null_pages_are_no_records(self) -> None:
        pages = (Page(b"[]"), Page(b"null"), Page(b" [ ] "))
        assert self.loader.load(Load("people", "acme", "r1", pages)) == Wrote()

    def test_append_merges_what_a_crash_brings_twice(self) -> None:
        self.load("sent", {"id": 1, "subject": "a"}, {"id": 2}, mode="append")
        wrote = self.load("sent", {"id": 2}, {"id": 3}, mode="append")
        assert (wrote.read, wrote.written, wrote.unchanged) == (2, 1, 1)
        assert set(self.found("sent")) == {1, 2, 3}

    @pytest.mark.spec("R056")
    def test_patch_keeps_what_a_record_lacks_and_the_newer_of_two(self) -> None:
        self.load("people", person("c1", id="u1", visits=1, updated=1000, odd=1), mode="patch")
        self.load("people", person("c1", visits=2, score=0.5, updated=2000), mode="patch", run="r2")
        late = person("c1", id="u0", visits=0, active=True, updated=1500)
        assert self.load("people", late, mode="patch", run="r3").written == 1
        row = self.found("people")["c1"]
        kept = [row[name] for name in ("id", "visits", "score", "active", "updated", RUN)]
        assert kept == ["u1", 2, 0.5, True, 2000.0, "r3"]
        again = self.load("people", late, person("c2"), mode="patch", run="r4")
        assert (again.written, again.unchanged, self.found("people")["c1"]) == (1, 1, row)

    @pytest.mark.spec("R041")
    def test_records_below_since_are_passed_over(self) -> None:
        records = [person(f"c{i}", updated=1000 + i) for i in range(4)]
        wrote = self.load("people", *records, person("c9", updated=None), since=1002.0)
        assert (wrote.read, wrote.written, wrote.passed, wrote.newest) == (5, 3, 2, 1003.0)
        assert set(self.found("people")) == {"c2", "c3", "c9"}

    @pytest.mark.spec("R006")
    def test_workspaces_do_not_touch_one_another(self) -> None:
        self.load("words", {"word": "one"}, workspace="a")
        self.load("words", {"word": "one"}, workspace="b")
        self.loader.begin("words", "b", "r2")
        self.loader.finish("words", "b", "r2", state={})
        marks = {row[WORKSPACE]: row[DELETED] is None for row in self.rows("words")}
        assert marks == {"a": True, "b": False}
        self.loader.reset(["words"], "a", [])
        assert [row[WORKSPACE] for row in self.rows("words")] == ["b"]

    def test_everything_is_there_after_reopening(self) -> None:
        self.load("people", person("c1", visits=1, odd="x"), state={"k": "v"})
        before = self.found("people")
        self.reopen()
        assert (self.found("people"), self.loader.state("")) == (before, {"k": "v"})
        self.loader.prepare([Shape(PEOPLE)])
        assert self.load("people", person("c1", visits=1, odd="x")).unchanged == 1

    def test_many_rows_and_long_values(self) -> None:
        records = [person(f"c{i}", attributes={"text": "x" * (i % 7) * 1000}) for i in range(3000)]
        assert self.load("people", *records).written == 3000
        changed = [*records[:10], *[one | {"visits": 1} for one in records[10:20]]]
        wrote = self.load("people", *changed)
        assert (wrote.written, wrote.unchanged, len(self.found("people"))) == (10, 10, 3000)

    # State

    def test_states_are_kept_dropped_and_found_by_prefix(self) -> None:
        self.loader.keep({"a/b": "1", "a/c": "2", "a_b": "3", "b": "é"})
        assert self.loader.state("a/") == {"a/b": "1", "a/c": "2"}
        self.loader.keep({"a/b": None, "a/c": "4", "none": None})
        assert self.loader.state("") == {"a/c": "4", "a_b": "3", "b": "é"}

    @pytest.mark.spec("R044")
    def test_state_comes_with_the_rows(self) -> None:
        self.load("words", {"word": "one"}, state={"place": "1", "gone": None})
        self.load("words", {"word": "two"}, state={"place": "2"})
        assert self.loader.state("") == {"place": "2"}
        self.loader.load(Load("words", "acme", "r1", (), state={"place": "3"}))
        assert self.loader.state("") == {"place": "3"}

    @pytest.mark.spec("R044")
    def test_a_load_that_fails_leaves_neither_rows_nor_state(self) -> None:
        self.loader.prepare([Shape(WORDS, contract="freeze")])
        with pytest.raises(TowpathError):
            self.load("words", {"word": "one"}, {"word": "two", "odd": 1}, state={"place": "1"})
        assert (self.found("words"), self.loader.state("")) == ({}, {})

    # What a run did not see

    def run_once(self, run: str, *words: str, **more: Any) -> Gone:
        """One full read of `words`."""
        self.loader.begin("words", "acme", run)
        if words:
            self.load("words", *[{"word": word} for word in words], run=run, seen=True)
        return self.loader.finish("words", "acme", run, state=more.pop("state", {}), **more)

    @pytest.mark.spec("R042")
    def test_rows_that_vanished_are_marked_and_lose_the_mark_when_they_return(self) -> None:
        assert self.run_once("r1", "one", "two") == Gone(0, 2)
        assert self.run_once("r2", "one", state={"done": "r2"}) == Gone(1, 2)
        found = self.found("words")
        assert (found["one"][DELETED], found["one"][RUN]) == (None, "r1")
        assert found["two"][DELETED] is not None
        assert self.loader.state("") == {"done": "r2"}
        assert self.run_once("r3", "one") == Gone(0, 1)
        assert self.found("words")["two"] == found["two"]
        assert self.load("words", {"word": "two"}, run="r4").written == 1
        assert self.alive("words") == {"one", "two"}

    @pytest.mark.spec("R042")
    def test_with_remove_rows_that_vanished_are_deleted(self) -> None:
        self.loader.prepare([Shape(WORDS, remove=True)])
        self.run_once("r1", "one", "two")
        assert self.run_once("r2", "one") == Gone(1, 2)
        assert set(self.found("words")) == {"one"}

    @pytest.mark.spec("R043", "D14")
    def test_more_than_the_guard_allows_is_held(self) -> None:
        self.run_once("r1", *"abcdefghij")
        held = self.run_once("r2", *"abcdefg", most=0.2, state={"done": "r2"})
        assert held == Gone(3, 10, held=True)
        assert (len(self.alive("words")), self.loader.state("")) == (10, {})
        confirmed = self.loader.finish("words", "acme", "r2", most=1.0, state={"done": "r2"})
        assert confirmed == Gone(3, 10)
        assert self.alive("words") == set("abcdefg")

    @pytest.mark.spec("R043")
    def test_exactly_the_share_may_go(self) -> None:
        self.run_once("r1", *"abcdefghij")
        assert self.run_once("r2", *"abcdefgh", most=0.2) == Gone(2, 10)

    @pytest.mark.spec("R044")
    def test_a_resumed_run_keeps_what_it_saw_and_another_forgets_it(self) -> None:
        self.run_once("r1", "one", "two", "three")
        self.loader.begin("words", "acme", "r2")
        self.load("words", {"word": "one"}, run="r2", seen=True)
        self.reopen()
        self.loader.prepare([Shape(WORDS)])
        self.loader.begin("words", "acme", "r2")
        self.load("words", {"word": "two"}, run="r2", seen=True)
        assert self.loader.finish("words", "acme", "r2", state={}) == Gone(1, 3)
        self.loader.begin("words", "acme", "r3")
        self.load("words", {"word": "one"}, run="r3", seen=True)
        self.loader.begin("words", "acme", "r4")
        self.load("words", {"word": "two"}, run="r4", seen=True)
        assert self.loader.finish("words", "acme", "r4", state={}) == Gone(1, 2)
        assert self.alive("words") == {"two"}

    @pytest.mark.spec("R041", "R042")
    def test_what_is_below_since_was_seen_all_the_same(self) -> None:
        self.load("people", person("c1", updated=1000), person("c2", updated=1000))
        self.loader.begin("people", "acme", "r2")
        self.load("people", person("c1", updated=1000), run="r2", since=2000.0, seen=True)
        assert self.loader.finish("people", "acme", "r2", state={}) == Gone(1, 2)
        assert self.alive("people") == {"c1"}

    @pytest.mark.spec("R042")
    def test_what_was_not_read_is_left_alone(self) -> None:
        self.load("members", *[{"segment_id": s, "cio_id": c} for s in (1, 2, 3) for c in ("a", "b")])
        self.loader.begin("members", "acme", "r2")
        self.load("members", {"segment_id": 1, "cio_id": "a"}, run="r2", seen=True)
        unread: list[dict[str, Any]] = [
            {"segment_id": 2},
            {"segment_id": 9},
            {"segment_id": 3, "cio_id": "b"},
        ]
        assert self.loader.finish("members", "acme", "r2", unread=unread, state={}) == Gone(2, 6)
        assert self.alive("members") == {(1, "a"), (2, "a"), (2, "b"), (3, "b")}

    # Refusals, drift and contracts

    @pytest.mark.spec("R048", "D05")
    def test_a_record_without_its_key_is_refused_and_kept(self) -> None:
        raw = b'[{"id":1},{"subject":"no key"},{"id":null},7,{"id":2}]'
        wrote = self.loader.load(Load("sent", "acme", "r1", (Page(raw),)))
        assert (wrote.read, wrote.written, wrote.refused) == (5, 2, 3)
        assert [one.record for one in wrote.refusals] == ['{"subject":"no key"}', '{"id":null}', "7"]
        assert all(one.reason for one in wrote.refusals)
        kept = [(row["table_name"], row[WORKSPACE], row["record"]) for row in self.rows("_towpath_refused")]
        assert sorted(kept) == sorted(("sent", "acme", one.record) for one in wrote.refusals)

    @pytest.mark.spec("R048")
    def test_unknown_keys_are_kept_in_extra_and_told_of(self) -> None:
        wrote = self.load(
            "people", person("c1", odd={"a": 1}), person("c2", odd=None, more="x"), person("c3")
        )
        assert wrote.drift == {"odd": 2, "more": 1}
        extra = {key: row[EXTRA] for key, row in self.found("people").items()}
        assert extra == {"c1": {"odd": {"a": 1}}, "c2": {"odd": None, "more": "x"}, "c3": None}
        again = self.load("people", person("c4", odd=2), person("c5", odd=3))
        assert again.drift == {"odd": 2}
        assert self.found("people")["c5"][EXTRA] == {"odd": 3}

    @pytest.mark.spec("R048")
    def test_unknown_keys_beside_a_columns_path_are_kept_too(self) -> None:
        wrote = self.load("people", person("c1", identifiers={"email": "a@example.com", "fax": "12"}))
        assert wrote.drift == {"identifiers.fax": 1}
        row = self.found("people")["c1"]
        assert (row["email"], row[EXTRA]) == ("a@example.com", {"identifiers": {"fax": "12"}})

    @pytest.mark.spec("R048")
    def test_a_value_that_does_not_fit_goes_to_extra(self) -> None:
        wrote = self.load(
            "people",
            person("c1", visits="many", score={"a": 1}, active="perhaps", born="soon"),
            person("c2", visits=2**70, updated="yesterday"),
            person("c3", visits=1.5),
        )
        assert (wrote.written, wrote.refused) == (3, 0)
        assert {name.partition(":")[0] for name in wrote.drift} == {
            "visits", "score", "active", "born", "updated",
        }  # fmt: skip
        found = self.found("people")
        assert found["c1"][EXTRA] == {
            "visits": "many",
            "score": {"a": 1},
            "active": "perhaps",
            "born": "soon",
        }
        assert [found[key]["visits"] for key in ("c1", "c2", "c3")] == [None] * 3
        assert found["c3"][EXTRA] == {"visits": 1.5}

    @pytest.mark.spec("R048")
    @pytest.mark.parametrize("odd", [{"odd": 1}, {"visits": "many"}])
    def test_frozen_a_table_stops_with_nothing_written(self, odd: dict[str, Any]) -> None:
        self.loader.prepare([Shape(PEOPLE, contract="freeze")])
        with pytest.raises(TowpathError) as raised:
            self.load("people", person("c1"), person("c2") | odd)
        assert "people" in raised.value.title
        assert raised.value.fix
        assert self.found("people") == {}
        assert self.load("people", person("c1")).written == 1

    @pytest.mark.spec("R048")
    def test_discarded_an_unknown_key_is_left_out_and_told_of(self) -> None:
        self.loader.prepare([Shape(PEOPLE, contract="discard")])
        wrote = self.load("people", person("c1", odd=1, visits="many"))
        assert (wrote.written, "odd" in wrote.drift, len(wrote.drift)) == (1, True, 2)
        row = self.found("people")["c1"]
        assert (row[EXTRA], row["visits"]) == (None, None)

    @pytest.mark.spec("R056")
    def test_where_a_table_grows_unknown_keys_become_columns(self) -> None:
        records = [
            {
                "id": "e1",
                "plan": "pro",
                "n": 1,
                "deep": {"a": [1]},
                "yes": True,
                "when": "2024-01-01T00:00:00Z",
            },
            {"id": "e2", "price": 1.5, "n": None},
        ]
        wrote = self.load("events", *records)
        assert wrote.drift == {"plan": 1, "n": 2, "deep": 1, "yes": 1, "when": 1, "price": 1}
        found = self.found("events")
        first = found["e1"]
        assert [first[name] for name in ("plan", "n", "yes", "when", EXTRA)] == [
            "pro", 1, True, 1_704_067_200.0, None,
        ]  # fmt: skip
        deep = first["deep"]
        assert (msgspec.json.decode(deep) if isinstance(deep, str) else deep) == {"a": [1]}
        assert (found["e2"]["price"], found["e2"]["plan"]) == (1.5, None)
        again = self.load("events", *records)
        assert (again.unchanged, again.drift) == (2, {})

    @pytest.mark.spec("R056")
    def test_a_column_that_grew_widens_or_gives_way_and_loses_nothing(self) -> None:
        self.load("events", {"id": "e1", "n": 1, "word": "a"})
        self.reopen()
        self.loader.prepare([Shape(EVENTS)])
        wrote = self.load("events", {"id": "e2", "n": 1.5, "word": 7}, {"id": "e3", "n": "none"})
        found = self.found("events")
        assert [found[key]["n"] for key in ("e1", "e2", "e3")] == [1.0, 1.5, None]
        assert (found["e2"]["word"], found["e3"][EXTRA]) == ("7", {"n": "none"})
        assert any(name.startswith("n:") for name in wrote.drift)

    @pytest.mark.spec("R048")
    @pytest.mark.parametrize(
        "raw",
        [
            b'{"cio_id":"c1","attributes":{"score":NaN}}',
            b'{"cio_id":"c1","attributes":{"text":"\\ud800"}}',
            b'{"cio_id":"c1","attributes":{"text":"a\\u0000b"}}',
            b'{"cio_id":"c1","id":"a\\u0000b"}',
            b'{"cio_id":"c1","id":"\\udc00 alone"}',
            b'{"cio_id":"c1","score":1e999}',
            b'{"cio_id":"c1","score":NaN,"visits":-Infinity}',
            b'{"cio_id":"c1","attributes":' + b"[" * 3000 + b"]" * 3000 + b"}",
            b'{"cio_id":"c1","odd":' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}",
            b'{"cio_id":"c1","id":"\xff\xfe"}',
            b'{"cio_id":"c1","visits":123456789012345678901234567890,"attributes":123456789012345678901234567890}',
            b'{"cio_id":"c1","updated":1e300}',
            b'{"cio_id":"c1","updated":"9999999999-01-01"}',
            b'{"cio_id":"c1","born":"0000-00-00"}',
            b'{"cio_id":"c1","attributes":{"a":1,"a":2},"visits":1,"visits":2}',
        ],
    )
    def test_one_odd_record_keeps_no_other_out(self, raw: bytes) -> None:
        good = msgspec.json.encode([person("good1", visits=1), person("good2")])
        wrote = self.loader.load(Load("people", "acme", "r1", (Page(good[:-1] + b"," + raw + b"]"),)))
        assert (wrote.read, wrote.written + wrote.refused) == (3, 3)
        found = self.found("people")
        assert set(found) >= {"good1", "good2"}
        assert found["good1"]["visits"] == 1
        assert ("c1" in found) != (wrote.refused == 1)

    # The rest

    def test_counts_say_what_is_there(self) -> None:
        self.run_once("r1", "one", "two", "three")
        self.run_once("r2", "one")
        self.load("words", {"word": "one"}, workspace="other")
        counts = {(one.table, one.workspace): one for one in self.loader.counts()}
        assert set(counts) == {("words", "acme"), ("words", "other")}
        acme = counts["words", "acme"]
        assert acme == Counted("words", "acme", 1, 2, acme.loaded_at)
        newest = max(row[LOADED].timestamp() for row in self.rows("words") if row[WORKSPACE] == "acme")
        assert acme.loaded_at == pytest.approx(newest, abs=0.001)

    def test_reset_empties_tables_and_drops_states(self) -> None:
        for workspace in ("a", "b"):
            self.load("words", {"word": "one"}, workspace=workspace, state={f"{workspace}/words": "1"})
        self.load("sent", {"id": 1}, workspace="a", state={"a/sent": "1"})
        self.loader.reset(["words"], "a", ["a/words"])
        assert [row[WORKSPACE] for row in self.rows("words")] == ["b"]
        assert self.loader.state("") == {"b/words": "1", "a/sent": "1"}
        self.loader.reset(["words", "sent"], None, [])
        assert (self.rows("words"), self.rows("sent")) == ([], [])
        assert self.load("words", {"word": "one"}).written == 1

    def test_a_reset_table_forgets_what_a_run_saw(self) -> None:
        self.loader.begin("words", "acme", "r1")
        self.load("words", {"word": "one"}, run="r1", seen=True)
        self.loader.reset(["words"], "acme", [])
        self.load("words", {"word": "one"}, run="r1")
        self.loader.begin("words", "acme", "r1")
        assert self.loader.finish("words", "acme", "r1", state={}) == Gone(1, 1)

    def test_names_that_need_quoting(self) -> None:
        odd = Table(
            'select "all"',
            columns=(Column("order", "text"), Column('we"ird é', "text"), Column("Group", "integer")),
            key=("order",),
        )
        self.loader.prepare([Shape(odd)])
        given = {"order": "1", 'we"ird é': "x", "Group": 2}
        self.loader.load(Load(odd.name, "it's", "r'1", (page(given),), state={"a'b": "c'd"}))
        (row,) = self.rows(odd.name)
        assert {name: row[name] for name in given} == given
        assert (row[WORKSPACE], self.loader.state("a'")) == ("it's", {"a'b": "c'd"})

    def test_a_table_nobody_prepared_is_named(self) -> None:
        with pytest.raises(TowpathError, match="nothing_here"):
            self.load("nothing_here", {"id": 1})
