"""Each table of the spec: where it is read, by which key and cursor, whether rows that vanish are marked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec import Struct

from tests.replicate.world import World
from towpath.replicate.tables import REPLICATED


class Line(Struct, frozen=True):
    """A line of the spec."""

    table: str
    path: str
    key: tuple[str, ...]
    cursor: str = ""
    marked: bool = True
    under: str = ""


def line(
    mark: pytest.MarkDecorator, table: str, path: str, key: tuple[str, ...], cursor: str = "", **more: Any
) -> Any:
    return pytest.param(Line(table, path, key, cursor, **more), marks=mark, id=table)


SPEC = (
    line(pytest.mark.spec("R011"), "broadcasts", "/v1/broadcasts", ("id",), "updated"),
    line(pytest.mark.spec("R012"), "transactional_messages", "/v1/transactional", ("id",), "updated_at"),
    line(pytest.mark.spec("R013"), "customers", "/v1/customers/attributes", ("cio_id",)),
    line(pytest.mark.spec("R014"), "campaigns", "/v1/campaigns", ("id",), "updated"),
    line(pytest.mark.spec("R015"), "newsletters", "/v1/newsletters", ("id",), "updated"),
    line(pytest.mark.spec("R016"), "segments", "/v1/segments", ("id",), "updated_at"),
    line(pytest.mark.spec("R017"), "messages", "/v1/messages", ("id",), "created", marked=False),
    line(pytest.mark.spec("R018"), "exports", "/v1/exports", ("id",), "updated_at", marked=False),
    line(pytest.mark.spec("R019"), "activities", "/v1/activities", ("id",), "timestamp", marked=False),
    line(pytest.mark.spec("R020"), "sender_identities", "/v1/sender_identities", ("id",)),
    line(pytest.mark.spec("R021"), "reporting_webhooks", "/v1/reporting_webhooks", ("id",)),
    line(pytest.mark.spec("R022"), "snippets", "/v1/snippets", ("name",), "updated_at"),
    line(pytest.mark.spec("R023"), "ip_addresses", "/v1/info/ip_addresses", ("ip",)),
    line(pytest.mark.spec("R024"), "collections", "/v1/collections", ("id",)),
    line(pytest.mark.spec("R025"), "subscription_topics", "/v1/subscription_topics", ("id",)),
    line(pytest.mark.spec("R026"), "workspaces", "/v1/workspaces", ("id",)),
    line(pytest.mark.spec("R027"), "object_types", "/v1/object_types", ("id",)),
    line(
        pytest.mark.spec("R028"),
        "esp_suppressions",
        "/v1/esp/suppression/",
        ("suppression_type", "domain", "email"),
    ),
    line(
        pytest.mark.spec("R031"),
        "campaign_actions",
        "/actions",
        ("campaign_id", "id"),
        "updated",
        under="campaigns",
    ),
    line(
        pytest.mark.spec("R031"),
        "broadcast_actions",
        "/actions",
        ("broadcast_id", "id"),
        "updated",
        under="broadcasts",
    ),
    line(
        pytest.mark.spec("R032"),
        "newsletter_variants",
        "/contents",
        ("newsletter_id", "id"),
        under="newsletters",
    ),
    line(pytest.mark.spec("R033"), "segment_usage", "/used_by", ("segment_id",), under="segments"),
    line(
        pytest.mark.spec("R033"),
        "segment_memberships",
        "/membership",
        ("segment_id", "cio_id"),
        under="segments",
    ),
    line(
        pytest.mark.spec("R034"),
        "campaign_metrics",
        "/metrics",
        ("campaign_id", "resolution", "bucket"),
        "bucket",
        marked=False,
        under="campaigns",
    ),
    line(
        pytest.mark.spec("R034"),
        "newsletter_metrics",
        "/metrics",
        ("newsletter_id", "resolution", "bucket"),
        "bucket",
        marked=False,
        under="newsletters",
    ),
)
SIZES = {"newsletters": 105, "senders": 105, "messages": 1200, "message_days": 20, "people": 120}
FEWER = {"newsletters": 5, "people": 20}


@pytest.mark.parametrize("told", SPEC)
def test_it_is_declared_as_the_spec_says(told: Line) -> None:
    found = REPLICATED[told.table]
    assert (found.table.key, found.table.cursor, found.vanishes, found.parent) == (
        told.key,
        told.cursor,
        told.marked,
        told.under,
    )


@pytest.mark.parametrize("told", SPEC)
async def test_it_is_read_where_the_spec_says_and_every_row_has_its_key(told: Line) -> None:
    world = World(**{**SIZES, **(FEWER if told.under == "newsletters" else {})})
    report = await world.one(told.table)
    assert (report.outcome, report.refused) == ("ok", 0)
    paths = {urlsplit(request.url).path for request in world.wire.asked}
    assert any(told.path in path for path in paths)
    rows = world.warehouse.table(told.table)
    assert len(rows) == report.read - report.passed > 0
    keys = {tuple(row[name] for name in told.key) for row in rows}
    assert len(keys) == len(rows)
    again = await world.one(told.table)
    assert (again.outcome, again.written, again.gone) == ("ok", 0, 0)
