"""The declarations: names, aliases, keys, documents; and that every record fits its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replicate.world import NAMES, World
from towpath.replicate.names import ALIASES, canonical, ours
from towpath.replicate.table_docs import document
from towpath.replicate.tables import HEARD, REPLICATED, in_order, usual

QLIK = [
    "broadcasts", "messages", "customers", "campaigns", "newsletters", "segments", "messages", "exports",
    "activities", "sender_identities", "reporting_webhooks", "snippets", "ip_addresses", "collections",
    "topics", "workspaces", "types", "eps_suppression",
]  # fmt: skip
"""The table list of Qlik's connector, in its order."""
OURS = {
    "messages": "messages", "topics": "subscription_topics", "types": "object_types",
    "eps_suppression": "esp_suppressions", "esp_suppression": "esp_suppressions", "people": "customers",
}  # fmt: skip


@pytest.mark.spec("R007", "R040")
def test_a_list_that_came_from_qlik_is_understood() -> None:
    found = canonical(QLIK)
    assert found.names[:3] == ("broadcasts", "transactional_messages", "customers")
    assert found.names[6] == "messages"
    assert len(found.names) == 18
    assert set(found.names) <= set(REPLICATED)
    assert "listed twice" in found.notes[0]
    assert "`topics` is `subscription_topics` here" in found.notes


@pytest.mark.spec("R040")
def test_messages_alone_are_the_deliveries() -> None:
    assert canonical(["messages", "campaigns"]).names == ("messages", "campaigns")
    assert canonical(["messages"]).notes == ()


@pytest.mark.spec("R040")
def test_messages_twice_beside_the_templates_by_name() -> None:
    found = canonical(["transactional_messages", "messages", "messages"])
    assert found.names == ("transactional_messages", "messages")


@pytest.mark.spec("R007")
@pytest.mark.parametrize(("theirs", "table"), OURS.items())
def test_names_of_others(theirs: str, table: str) -> None:
    assert ours(theirs) == table
    assert ours(theirs.upper()) == table


@pytest.mark.parametrize(
    ("name", "hint"), [("campaign", "did you mean campaigns?"), ("zzz", "there are campaigns")]
)
def test_a_name_that_no_table_has(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint.replace("?", r"\?")):
        canonical([name])


@pytest.mark.spec("R004")
def test_every_table_is_declared_in_full() -> None:
    for name, one in REPLICATED.items():
        columns = {column.name for column in one.table.columns}
        assert set(one.table.key) <= columns, name
        assert set(one.table.persons) <= columns, name
        assert not one.table.cursor or one.table.column(one.table.cursor).kind == "time"
        assert not one.parent or one.parent in REPLICATED
        assert one.table.about.endswith("."), name
        assert all(column.about for column in one.table.columns), name
        assert len(columns) == len(one.table.columns), name
        assert not one.passes or one.table.cursor


@pytest.mark.spec("R048", "R051")
def test_what_tells_who_somebody_is_is_marked() -> None:
    for table in (*(one.table for one in REPLICATED.values()), *HEARD.values()):
        for column in table.columns:
            if column.name in {"email", "recipient", "attributes", "subject"} and table.persons:
                assert column.personal, f"{table.name}.{column.name}"


def test_aliases_name_one_table_each_and_no_table() -> None:
    listed = [alias for one in REPLICATED.values() for alias in one.aliases]
    assert len(listed) == len(ALIASES) == len(set(listed))
    assert not set(listed) & set(REPLICATED)


def test_what_is_usual_and_its_order() -> None:
    assert "customer_relationships" not in usual()
    assert {"campaigns", "messages", "customers"} <= set(usual())
    order = in_order(["campaign_actions", "messages", "campaigns"])
    assert order.index("campaigns") < order.index("campaign_actions")


@pytest.mark.spec("R048")
async def test_no_record_of_the_simulator_has_a_key_without_a_column() -> None:
    world = World(newsletters=5, people=30, messages=50, activities=40)
    report = await world.run(start_at=world.clock.now() - 30 * 86_400)
    assert {one.table: one.drift for one in report.tables if one.drift} == {}
    assert {one.table for one in report.tables} == set(NAMES)


@pytest.mark.spec("R021")
async def test_credentials_in_an_endpoint_stay_outside() -> None:
    world = World(newsletters=1, people=10, messages=0, activities=0)
    assert "s3cret" in world.state.reporting_webhooks[0]["endpoint"]
    await world.one("reporting_webhooks")
    (row,) = world.warehouse.table("reporting_webhooks")
    assert row["endpoint"] == "https://hooks.example.com/customerio"


@pytest.mark.spec("R013", "R020", "R023", "R028")
async def test_what_other_readers_lose_is_there() -> None:
    world = World(newsletters=1, messages=0, activities=0, people=60)
    await world.run("customers", "sender_identities", "ip_addresses", "esp_suppressions", "object_types")
    people = world.warehouse.table("customers")
    assert len(people) == 60
    assert any(row["id"] is None and row["email"] for row in people)
    assert {row["hidden"] for row in world.warehouse.table("sender_identities")} == {False, True}
    assert {row["ip"] for row in world.warehouse.table("ip_addresses")} == set(world.state.ip_addresses)
    assert {row["suppression_type"] for row in world.warehouse.table("esp_suppressions")} > {
        "bounces",
        "blocks",
    }
    assert all(isinstance(row["id"], str) for row in world.warehouse.table("object_types"))


@pytest.mark.spec("R028")
async def test_suppressions_by_domain() -> None:
    world = World(newsletters=1, messages=0, activities=0, people=10, suppressions=5)
    report = await world.one("esp_suppressions", domains=("a.example.com", "b.example.com"))
    assert report.requests == 8
    assert all("domain=" in one.url for one in world.wire.asked)


def test_the_page_of_tables_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "replication-tables.md"
    assert page.read_text(encoding="utf-8") == document(), (
        "python -m towpath.replicate > docs/replication-tables.md"
    )
