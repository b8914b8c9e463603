"""The contract of `Loader` about persons: hashing and erasing."""

# ruff: noqa: S101, D102 - asserting is what a contract is for, and the tests' names are sentences
from __future__ import annotations

import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.warehouse import EXTRA, Column, Contract, Shape

from .loader_stage import NOTES, PEOPLE, SENT, VISITS, LoaderStage, hashed, person


class PersonsContract(LoaderStage):
    """What a loader promises about persons."""

    @pytest.mark.spec("R051")
    @pytest.mark.parametrize("contract", ["evolve", "discard"])
    def test_hashed_columns_join_and_give_nothing_away(self, contract: Contract) -> None:
        self.loader.prepare(
            [
                Shape(PEOPLE, hashed=("cio_id", "email", "visits"), contract=contract),
                Shape(SENT, hashed=("cio_id", "recipient"), contract=contract),
            ]
        )
        self.load("people", person("c1", identifiers={"email": "ann@example.com"}), person("c2", visits=12))
        self.load("sent", {"id": 1, "cio_id": "c1", "recipient": "ann@example.com"}, {"id": 2, "cio_id": 12})
        people, sent = self.found("people"), self.found("sent")
        assert set(people) == {hashed("c1"), hashed("c2")}
        assert people[hashed("c1")]["email"] == sent[1]["recipient"] == hashed("ann@example.com")
        assert people[hashed("c2")]["visits"] == sent[2]["cio_id"] == hashed("12")
        assert (people[hashed("c2")]["email"], sent[2]["recipient"]) == (None, None)
        assert self.load("people", person("c1", identifiers={"email": "ann@example.com"})).unchanged == 1

    @pytest.mark.spec("R051", "D10")
    def test_erase_follows_a_persons_ids_through_the_tables(self) -> None:
        self.load(
            "people",
            person("c1", id="u1", identifiers={"email": "ann@example.com"}),
            person("c2", id="u2", identifiers={"email": "bob@example.com"}),
        )
        sent = [
            {"id": 1, "cio_id": "c1"},
            {"id": 2, "cio_id": "c2"},
            {"id": 3, "recipient": "ann@example.com"},
        ]
        self.load("sent", *sent)
        self.load("members", {"segment_id": 1, "cio_id": "c1"}, {"segment_id": 1, "cio_id": "c2"})
        erased = self.loader.erase(["ann@example.com"])
        assert {table: rows for table, rows in erased.items() if rows} == {
            "people": 1,
            "sent": 2,
            "members": 1,
        }
        assert set(self.found("people")) == {"c2"}
        assert set(self.found("sent")) == {2}
        assert set(self.found("members")) == {(1, "c2")}
        assert not any(self.loader.erase(["ann@example.com", "u1", "nobody"]).values())

    @pytest.mark.spec("R051", "D10")
    def test_erase_finds_what_is_hashed(self) -> None:
        self.loader.prepare([Shape(PEOPLE, hashed=("email",)), Shape(SENT, hashed=("recipient", "cio_id"))])
        self.load("people", person("c1", identifiers={"email": "ann@example.com"}))
        self.load("sent", {"id": 1, "cio_id": "c1"}, {"id": 2, "recipient": "ann@example.com"}, {"id": 3})
        self.loader.erase(["ann@example.com"])
        assert (set(self.found("people")), set(self.found("sent"))) == (set(), {3})

    @pytest.mark.spec("R051", "D10")
    def test_erase_blanks_where_the_row_is_to_stay(self) -> None:
        self.load("notes", {"id": 1, "cio_id": "c1", "text": "mine", "stars": 5, "odd": "mine"}, {"id": 2})
        assert self.loader.erase(["c1"])["notes"] == 1
        row = self.found("notes")[1]
        assert [row[name] for name in ("cio_id", "text", "stars", EXTRA)] == [None, None, 5, None]
        assert not self.loader.erase(["c1"])["notes"]

    @pytest.mark.spec("R051", "D15")
    @pytest.mark.parametrize("secret", [(), ("user_id", "anonymous_id")])
    def test_an_id_that_several_share_joins_nobody(self, secret: tuple[str, ...]) -> None:
        self.loader.prepare([Shape(VISITS, hashed=secret)])
        self.load(
            "visits",
            {"id": "v1", "anonymous_id": "tablet", "user_id": "ann"},
            {"id": "v2", "anonymous_id": "tablet", "user_id": "bob"},
            {"id": "v3", "anonymous_id": "tablet"},
        )
        assert self.loader.erase(["ann"])["visits"] == 1
        assert set(self.found("visits")) == {"v2", "v3"}
        assert self.loader.erase(["tablet"])["visits"] == 1
        assert set(self.found("visits")) == {"v2"}

    @pytest.mark.spec("R051", "D15")
    def test_who_shares_an_email_with_an_erased_person_stays(self) -> None:
        email = {"identifiers": {"email": "family@example.com"}}
        self.load("people", person("c1", id="u1") | email, person("c2", id="u2") | email)
        self.load("sent", *[{"id": i, "cio_id": f"c{i}", "recipient": "family@example.com"} for i in (1, 2)])
        self.load("sent", {"id": 3, "recipient": "family@example.com"})
        assert self.loader.erase(["u1"])["sent"] == 2
        assert (set(self.found("people")), set(self.found("sent"))) == ({"c2"}, {2})
        self.loader.erase(["family@example.com"])
        assert (self.found("people"), self.found("sent")) == ({}, {})

    @pytest.mark.spec("R051", "D15")
    def test_ids_found_in_one_workspace_say_nothing_in_another(self) -> None:
        self.load("people", person("c1", id="u1"), workspace="a")
        self.load("people", person("c9", id="c1"), person("c8", id="u1"), workspace="b")
        assert self.loader.erase(["u1"])["people"] == 2
        assert set(self.found("people")) == {"c9"}

    @pytest.mark.spec("R051", "D10")
    def test_where_a_workspace_is_no_account_ids_of_any_count(self) -> None:
        ann = person("c1", id="u1", identifiers={"email": "ann@example.com"})
        self.load("people", ann, person("c2", id="u2"), workspace="a")
        heard = [{"id": 1, "cio_id": "c1", "email": "ann@example.com"}, {"id": 2, "cio_id": "c2"}]
        heard += [
            {"id": 3, "email": "ann@example.com"},
            {"id": 4, "cio_id": "c9", "email": "ann@example.com"},
        ]
        self.load("heard", *heard, workspace="webhooks")
        assert self.loader.erase(["u1"])["heard"] == 2
        assert {key: row["cio_id"] for key, row in self.found("heard").items()} == {
            1: None, 2: "c2", 3: None, 4: "c9",
        }  # fmt: skip

    @pytest.mark.spec("R051", "D10")
    def test_erase_reaches_refused_records_and_marked_rows(self) -> None:
        self.load("people", person("c1", id="u1"))
        self.loader.begin("people", "acme", "r2")
        self.loader.finish("people", "acme", "r2", state={})
        self.load("people", {"id": "u1", "note": "no key"}, {"id": "u11"})
        self.loader.erase(["u1"])
        assert self.found("people") == {}
        assert [row["record"] for row in self.rows("_towpath_refused")] == ['{"id":"u11"}']

    @pytest.mark.spec("R051")
    @pytest.mark.parametrize(
        "odd", ["x'; DROP TABLE people; --", "%", "_", "", "é\U0001f600", "a\x00b", "\\"]
    )
    def test_odd_ids_erase_nobody_else(self, odd: str) -> None:
        self.load("people", person("c1", id="u1"), person("c2"))
        assert not any(self.loader.erase([odd]).values())
        assert set(self.found("people")) == {"c1", "c2"}

    def test_erase_after_reopening_needs_no_preparation(self) -> None:
        self.load("people", person("c1"))
        self.reopen()
        assert self.loader.erase(["c1"])["people"] == 1
        assert self.found("people") == {}

    @pytest.mark.spec("R051", "D10")
    def test_erase_knows_columns_of_shapes_before(self) -> None:
        self.load("notes", {"id": 1, "cio_id": "c1", "text": "mine", "stars": 5})
        self.reopen()
        fewer = msgspec.structs.replace(NOTES, columns=(NOTES.columns[0], NOTES.columns[1]))
        self.loader.prepare([Shape(fewer)])
        self.load("notes", {"id": 2, "cio_id": "c1"})
        assert self.loader.erase(["c1"])["notes"] == 2
        row = self.found("notes")[1]
        assert [row[name] for name in ("cio_id", "text", "stars")] == [None, None, 5]

    @pytest.mark.spec("R051")
    def test_a_table_with_rows_does_not_change_what_it_hashes(self) -> None:
        self.load("people", person("c1", id="u1"))
        self.reopen()
        with pytest.raises(TowpathError) as raised:
            self.loader.prepare([Shape(PEOPLE, hashed=("id",))])
        assert raised.value.fix
        self.loader.reset(["people"], None, [])
        self.loader.prepare([Shape(PEOPLE, hashed=("id", "visits"))])
        self.load("people", person("c1", id="u1", visits=7))
        assert self.found("people")["c1"]["visits"] == hashed("7")
        with pytest.raises(TowpathError):
            self.loader.prepare([Shape(PEOPLE)])
        more = msgspec.structs.replace(PEOPLE, columns=(*PEOPLE.columns, Column("phone", "text")))
        self.loader.prepare([Shape(more, hashed=("id", "visits", "phone"))])  # a new column may be hashed
        assert self.load("people", person("c1", id="u1", visits=7, phone="12")).written == 1
