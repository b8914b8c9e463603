"""The ready views give the numbers worked out by hand, in DuckDB and in PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from towpath.replicate.models import MODELS, Dialect, document, views
from towpath.replicate.tables import HEARD, REPLICATED
from towpath.warehouse import Shape

from .model_world import Duck, Postgres, Row, World, asked, at, opened, seconds, shapes, stocked, tables

pytestmark = pytest.mark.spec("R055")

ROOT = Path(__file__).parent.parent.parent
NOW = datetime.now(UTC)


def ago(days: float) -> int:
    return int((NOW - timedelta(days=days)).timestamp())


def message(name: str, created: str, metrics: Any, **more: Any) -> Row:
    return {"id": name, "created": at(created), "metrics": metrics, "type": "email", "cio_id": "a1", **more}


NOON = "2025-03-05T12:00:00"
MARCH: World = {
    "campaigns": [
        {"id": 1, "name": "Welcome", "_deleted_at": at("2025-06-01")},
        {"id": 1, "name": "Of the lab", "_workspace": "lab"},
    ],
    "newsletters": [{"id": 7, "name": "News"}],
    "broadcasts": [{"id": 3, "name": "Sale"}],
    "transactional_messages": [{"id": 5, "name": "Password"}],
    "newsletter_variants": [
        {"newsletter_id": 7, "id": 71, "name": "A", "subject": "Hello", "language": ""},
        {"newsletter_id": 7, "id": 72, "name": "B", "subject": "Hi", "language": ""},
        {"newsletter_id": 8, "id": 71, "name": "of another newsletter"},
    ],
    "messages": [
        # The last second of a Sunday in UTC, Sunday afternoon in New York; opened seven weeks later.
        message(
            "m1",
            "2025-03-02T23:30:00",
            {"sent": seconds("2025-03-02T23:59:59"), "delivered": seconds("2025-03-03T00:00:10"),
             "opened": seconds("2025-04-20T10:00:00"), "clicked": None},
            campaign_id=1, action_id=11, recipient="Ada <Ada@Example.COM>", customer_id="u1",
        ),
        # Made on that Sunday, sent on the Monday.
        message(
            "m2",
            "2025-03-02T23:59:59",
            {"sent": seconds("2025-03-03T00:00:01"), "bounced": seconds("2025-03-03T00:00:05")},
            campaign_id=1, action_id=11, recipient="b@example.com", failure_message="no such user",
        ),
        # Metrics that are not there, not an object, or hold what no moment is.
        message("m3", "2025-03-05T12:00:00", None, campaign_id=1, type="push", recipient="token"),
        message("m4", "2025-03-05T12:00:00", {"sent": "nil", "failed": str(seconds("2025-03-06T00:00:00")),
                                              "opened": "", "clicked": -5, "converted": [1]},
                campaign_id=1, action_id=12),
        message("m5", NOON, {"sent": 1741176000.5}, transactional_message_id=5, type="twilio"),
        message("m6", NOON, {"sent": 1741176000}, broadcast_id=3, campaign_id=1),
        message("m7", NOON, {"sent": 1741176000}, _deleted_at=at("2025-05-01"), campaign_id=1),
        message("x1", "2025-03-04T00:00:00", {"sent": seconds("2025-03-04T00:00:00")},
                campaign_id=1, action_id=11, _workspace="lab"),
    ],
    "message_events": [
        {"delivery_id": "m1", "metric": "opened", "at": at("2025-04-21T10:00:00")},
        {"delivery_id": "m1", "metric": "opened", "at": at("2025-04-20T10:00:00"), "prefetched": False},
        {"delivery_id": "m1", "metric": "opened", "at": at("2025-03-03T00:00:11"), "prefetched": True},
        {"delivery_id": "m1", "metric": "delivered", "at": at("2025-03-03T00:00:09")},
        {"_workspace": "hooks", "delivery_id": "m2", "metric": "spammed", "at": at("2025-03-08T00:00:00")},
        {"delivery_id": "m2", "metric": "something new", "at": at("2025-03-08T00:00:00")},
        {"delivery_id": "not read yet", "metric": "sent", "at": at("2025-03-08T00:00:00")},
    ],
}  # fmt: skip


def test_what_the_views_read_is_what_is_replicated() -> None:
    known = {**{name: one.table for name, one in REPLICATED.items()}, **HEARD}
    read = {(table.name, column.name): column.kind for table in tables().values() for column in table.columns}
    assert read == {(table, column): known[table].column(column).kind for table, column in read}


def test_the_page_about_the_views_is_as_they_are() -> None:
    page = (ROOT / "docs" / "replication-models.md").read_text(encoding="utf-8")
    assert page == document(), "make it anew: python -m towpath.replicate.models > docs/replication-models.md"


@pytest.fixture(params=["duckdb", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[Duck | Postgres]:
    with opened(request.param) as found:
        yield found


def test_a_delivery_has_its_moments_and_names(engine: Duck | Postgres) -> None:
    stocked(engine, MARCH, shapes())
    rows = asked(engine, "select * from deliveries order by _workspace, delivery_id")
    by_id = {(row["_workspace"], row["delivery_id"]): row for row in rows}
    assert [key[1] for key in by_id] == ["x1", "m1", "m2", "m3", "m4", "m5", "m6"]
    first = by_id["shop", "m1"]
    assert {name: first[name] for name in ("sent_at", "delivered_at", "opened_at", "clicked_at")} == {
        "sent_at": "2025-03-02T23:59:59",
        "delivered_at": "2025-03-03T00:00:10",
        "opened_at": "2025-04-21T10:00:00",
        "clicked_at": None,
    }
    assert first["human_opened_at"] == "2025-04-20T10:00:00"
    assert first["prefetch_opened_at"] == "2025-03-03T00:00:11"
    assert (first["sent_on"], first["week"], first["recipient_domain"]) == (
        "2025-03-02", "2025-02-24", "example.com",
    )  # fmt: skip
    assert (first["campaign_name"], first["source"], first["source_name"]) == (
        "Welcome",
        "campaign",
        "Welcome",
    )
    second = by_id["shop", "m2"]
    assert (second["sent_on"], second["week"]) == ("2025-03-03", "2025-03-03")
    assert (second["spammed_at"], second["failure_message"]) == ("2025-03-08T00:00:00", "no such user")
    assert by_id["lab", "x1"]["campaign_name"] == "Of the lab"
    assert by_id["lab", "x1"]["opened_at"] is None


def test_metrics_that_are_none_are_no_moments(engine: Duck | Postgres) -> None:
    stocked(engine, MARCH, shapes())
    rows = asked(
        engine, "select * from deliveries where delivery_id in ('m3', 'm4', 'm5') order by delivery_id"
    )
    third, fourth, fifth = rows
    assert (third["channel"], third["sent_at"], third["sent_on"], third["recipient_domain"]) == (
        "push", None, "2025-03-05", None,
    )  # fmt: skip
    assert [fourth[name] for name in ("sent_at", "opened_at", "clicked_at", "converted_at")] == [None] * 4
    assert fourth["failed_at"] == "2025-03-06T00:00:00"
    assert (fifth["channel"], fifth["source"], fifth["source_name"]) == ("sms", "transactional", "Password")
    assert fifth["sent_at"].startswith("2025-03-05T12:00:00")


def test_campaigns_by_day_of_sending(engine: Duck | Postgres) -> None:
    stocked(engine, MARCH, shapes())
    rows = asked(
        engine,
        "select _workspace, day, channel, campaign_name, sent, delivered, opened, bounced, spammed, unsent, "
        "delivery_rate, open_rate from campaign_funnel_daily order by _workspace, day, channel",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("lab", "2025-03-04", "email", "Of the lab", 1, 0, 0, 0, 0, 0, 0.0, None),
        ("shop", "2025-03-02", "email", "Welcome", 1, 1, 1, 0, 0, 0, 1.0, 1.0),
        ("shop", "2025-03-03", "email", "Welcome", 1, 0, 0, 1, 1, 0, 0.0, None),
        ("shop", "2025-03-05", "email", "Welcome", 1, 0, 0, 0, 0, 1, 0.0, None),
        ("shop", "2025-03-05", "push", "Welcome", 0, 0, 0, 0, 0, 0, None, None),
    ]


def test_messages_by_week_and_step(engine: Duck | Postgres) -> None:
    stocked(engine, MARCH, shapes())
    rows = asked(
        engine,
        "select week, source, source_id, source_name, action_id, channel, sent, unsent from "
        "message_funnel_weekly where _workspace = 'shop' order by week, source, action_id, channel",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("2025-02-24", "campaign", 1, "Welcome", 11, "email", 1, 0),
        ("2025-03-03", "broadcast", 3, "Sale", None, "email", 1, 0),
        ("2025-03-03", "campaign", 1, "Welcome", 11, "email", 1, 0),
        ("2025-03-03", "campaign", 1, "Welcome", 12, "email", 0, 1),
        ("2025-03-03", "campaign", 1, "Welcome", None, "push", 0, 0),
        ("2025-03-03", "transactional", 5, "Password", None, "sms", 1, 0),
    ]


def newsletter(variant: int, number: int, *happened: str) -> Row:
    sent = seconds("2025-03-05T12:00:00")
    metrics = dict.fromkeys(("sent", "delivered", *happened), sent + 60)
    return message(
        f"n{variant}-{number}", "2025-03-05T12:00:00", metrics, newsletter_id=7, content_id=variant
    )


NEWSLETTER: World = {
    **MARCH,
    "messages": [
        *(newsletter(71, number, *(["opened"] if number < 60 else [])) for number in range(100)),
        *(newsletter(72, number, *(["opened", "clicked"] if number < 40 else [])) for number in range(100)),
    ],
}


def test_newsletters_by_week_and_variant(engine: Duck | Postgres) -> None:
    stocked(engine, NEWSLETTER, shapes())
    rows = asked(engine, "select newsletter_name, week, sent, opened, clicked from newsletter_funnel_weekly")
    assert [tuple(row.values()) for row in rows] == [("News", "2025-03-03", 200, 100, 40)]
    rows = asked(
        engine,
        "select variant_name, variants, share, sent, open_rate, open_score, conversion_score from "
        " newsletter_variants_compared order by content_id",
    )
    # 60 of 100 beside 40 of 100: 0.2 / sqrt(0.5 * 0.5 * (1 / 100 + 1 / 100)) = 2.8284.
    assert [tuple(row.values()) for row in rows] == [
        ("A", 2, 0.5, 100, 0.6, pytest.approx(8**0.5), None),
        ("B", 2, 0.5, 100, 0.4, pytest.approx(-(8**0.5)), None),
    ]


def test_a_newsletter_with_one_variant_is_compared_with_nothing(engine: Duck | Postgres) -> None:
    one: World = {**MARCH, "messages": [newsletter(71, 1, "opened"), newsletter(71, 2)]}
    stocked(engine, one, shapes())
    rows = asked(engine, "select variants, share, open_rate, open_score from newsletter_variants_compared")
    assert [tuple(row.values()) for row in rows] == [(1, 1.0, 0.5, None)]


PEOPLE: World = {
    "customers": [
        {"cio_id": "a1", "id": "u1", "email": "ada@example.com", "unsubscribed": False},
        {"cio_id": "a2", "id": "u2", "email": "bob@example.com", "unsubscribed": True},
        {"cio_id": "a3", "id": "", "email": "never@example.com", "unsubscribed": False},
        {"cio_id": "a4", "id": "u4", "email": "gone@example.com", "_deleted_at": at("2025-01-01")},
        {"cio_id": "b1", "id": "u1", "email": "ada@lab.example.com", "_workspace": "lab"},
    ],
    "messages": [
        # Sent 100 days ago, opened 10 days ago.
        message(
            "p1", "2025-01-01", {"sent": ago(100), "delivered": ago(100), "opened": ago(10)}, cio_id="a1"
        ),
        message("p2", "2025-01-01", {"sent": ago(20), "delivered": ago(20)}, cio_id="a1", customer_id="u1"),
        # Of a workspace or a time without cio_id: found by the person's own id.
        message("p3", "2025-01-01", {"sent": ago(40), "clicked": ago(35)}, cio_id=None, customer_id="u1"),
        message("p4", "2025-01-01", {"sent": ago(1)}, cio_id="a4"),
        message("p5", "2025-01-01", {"sent": ago(1)}, cio_id="a5", forgotten=True),
        message("p6", "2025-01-01", {"sent": ago(1), "unsubscribed": ago(0.5)}, cio_id="a2"),
        message("p7", "2025-01-01", {"sent": ago(1)}, cio_id=None, customer_id="u9"),
        message("p8", "2025-01-01", {"sent": ago(1)}, cio_id=None, customer_id="u1", _workspace="lab"),
    ],
}


def test_how_persons_answer(engine: Duck | Postgres) -> None:
    stocked(engine, PEOPLE, shapes())
    rows = asked(
        engine,
        "select _workspace, person, customer_id, email, sent, opened, clicked, unsubscribes, sent_30_days, "
        "opened_30_days, sent_90_days, clicked_90_days, clicked_30_days, open_rate "
        "from person_engagement order by _workspace, person",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("lab", "b1", "u1", "ada@lab.example.com", 1, 0, 0, 0, 1, 0, 1, 0, 0, None),
        ("shop", "a1", "u1", "ada@example.com", 3, 1, 1, 0, 1, 1, 2, 1, 0, 0.5),
        ("shop", "a2", "u2", "bob@example.com", 1, 0, 0, 1, 1, 0, 1, 0, 0, None),
        ("shop", "a3", "", "never@example.com", 0, 0, 0, 0, 0, 0, 0, 0, 0, None),
        ("shop", "u9", "u9", None, 1, 0, 0, 0, 1, 0, 1, 0, 0, None),
    ]
    rows = asked(engine, "select last_opened_at, last_sent_at from person_engagement where person = 'a1' "
                 "and _workspace = 'shop'")  # fmt: skip
    assert [str(value)[:19] for value in rows[0].values()] == [
        datetime.fromtimestamp(ago(days), UTC).replace(tzinfo=None).isoformat() for days in (10, 20)
    ]


def test_segments_grow_and_shrink(engine: Duck | Postgres) -> None:
    def member(cio_id: str, seen: str, **more: Any) -> Row:
        return {"segment_id": 4, "cio_id": cio_id, "_loaded_at": at(seen), **more}

    members = [
        member("a1", "2025-03-01T23:00:00"),
        member("a2", "2025-03-01T01:00:00"),
        member("a3", "2025-03-02T23:59:59", _deleted_at=at("2025-03-02T23:59:59")),
        member("a4", "2025-03-02T02:00:00"),
        member("a1", "2025-03-01", _workspace="lab"),
    ]
    days = [{"segment_id": 4, "day": f"2025-03-0{day}", "members": 5 + day} for day in (2, 3)]
    segments = [{"id": 4, "name": "Gold"}]
    world: World = {"segment_memberships": members, "segments": segments, "segment_days": days}
    stocked(engine, world, shapes())
    rows = asked(
        engine,
        "select _workspace, segment_name, day, joined, departed, members, counted from segment_growth "
        "order by _workspace, day",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("lab", None, "2025-03-01", 1, 0, 1, None),
        ("shop", "Gold", "2025-03-01", 2, 0, 3, None),
        ("shop", "Gold", "2025-03-02", 1, 1, 3, 7),
        ("shop", "Gold", "2025-03-03", 0, 0, 3, 8),
    ]


SUPPRESSED: World = {
    **MARCH,
    "esp_suppressions": [
        # Asked for by two of the sending domains.
        {"suppression_type": "bounces", "email": "b@example.com", "created": at("2025-03-03T00:00:06"),
         "reason": "550"},
        {"suppression_type": "bounces", "email": "b@example.com", "created": at("2025-03-03T00:00:06"),
         "reason": "550"},
        {"suppression_type": "spam_reports", "email": "c@Example.com", "created": at("2025-03-09T23:59:59"),
         "_deleted_at": at("2025-04-01")},
        {"suppression_type": "blocks", "email": "d@other.example", "created": at("2025-03-10")},
        {"suppression_type": "blocks", "email": "undated@other.example", "created": None},
    ],
}  # fmt: skip


def test_deliverability_by_week_and_domain(engine: Duck | Postgres) -> None:
    stocked(engine, SUPPRESSED, shapes())
    rows = asked(
        engine,
        "select week, domain, sent, delivered, bounced, spammed, suppressed, lifted, bounce_rate "
        "from deliverability where _workspace = 'shop' order by week, domain",
    )
    by_key = {(row["week"], row["domain"]): list(row.values())[2:] for row in rows}
    assert by_key == {
        ("2025-02-24", "example.com"): [1, 1, 0, 0, 0, 0, 0.0],
        ("2025-03-03", "example.com"): [1, 0, 1, 1, 2, 1, 1.0],
        ("2025-03-03", None): [1, 0, 0, 0, 0, 0, 0.0],
        ("2025-03-10", "other.example"): [0, 0, 0, 0, 1, 0, None],
    }


def test_who_was_lost_and_why(engine: Duck | Postgres) -> None:
    stocked(engine, SUPPRESSED, shapes())
    rows = asked(
        engine,
        "select kind, day, delivery_id, source_name, recipient_domain, reason from unsubscribes_and_bounces "
        "where _workspace = 'shop' order by lost_at, kind",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("bounced", "2025-03-03", "m2", "Welcome", "example.com", "no such user"),
        ("provider_bounces", "2025-03-03", None, None, "example.com", "550"),
        ("failed", "2025-03-06", "m4", "Welcome", None, None),
        ("spammed", "2025-03-08", "m2", "Welcome", "example.com", "no such user"),
        ("provider_blocks", "2025-03-10", None, None, "other.example", None),
    ]


def test_the_questions_of_the_example_have_answers(engine: Duck | Postgres) -> None:
    stocked(engine, {**SUPPRESSED, "messages": [*PEOPLE["messages"], *SUPPRESSED["messages"]]}, shapes())
    text = (ROOT / "examples" / "replication" / "questions.sql").read_text(encoding="utf-8")
    questions = [one for one in text.split(";") if one.strip()]
    answers = [len(asked(engine, one)) for one in questions]
    assert len(answers) == 4
    assert min(answers[:3]) > 0


def test_every_column_of_every_view_is_explained(engine: Duck | Postgres) -> None:
    stocked(engine, {}, shapes())
    explained = {
        "duckdb": "select c.column_name, c.comment, v.comment from duckdb_columns() c join duckdb_views() v "
        "on v.view_name = c.table_name where c.table_name = '{}' order by c.column_index",
        "postgres": "select a.attname, col_description(a.attrelid, a.attnum), obj_description(a.attrelid) "
        "from pg_attribute a where a.attrelid = 'models.{}'::regclass and a.attnum > 0 order by a.attnum",
    }[engine.dialect]
    for view in views(shapes(), engine.dialect):
        rows = engine.run(explained.format(view.name))
        assert [(name, about) for name, about, _ in rows] == list(view.columns.items())
        assert {about for _, _, about in rows} == {view.about}


def test_views_can_be_made_again_and_after_they_changed(engine: Duck | Postgres) -> None:
    stocked(engine, MARCH, shapes())
    for view in views(shapes("campaigns"), engine.dialect):
        for statement in view.statements:
            engine.run(statement)
    assert asked(engine, "select count(campaign_name) as named from campaign_funnel_daily") == [{"named": 0}]
    engine.run("drop view newsletter_funnel_weekly")
    engine.run("create view newsletter_funnel_weekly as select 1 as other")
    engine.run("create or replace view newsletter_funnel_weekly as select 1 as other, 2 as columns")
    for view in views(shapes(), engine.dialect):
        for statement in view.statements:
            engine.run(statement)
    assert asked(engine, "select count(campaign_name) as named from campaign_funnel_daily") == [{"named": 5}]
    assert asked(engine, "select * from newsletter_funnel_weekly") == []


def test_tables_that_are_called_otherwise_in_a_schema_of_their_own(engine: Duck | Postgres) -> None:
    engine.run('drop schema if exists "An ""odd"" one" cascade')
    engine.run('create schema "An ""odd"" one"')
    wanted = shapes(messages=Shape(tables()["messages"], called="Sent messages"))
    engine.run("set search_path to '\"An \"\"odd\"\" one\"'" if isinstance(engine, Duck)
               else 'set search_path to "An ""odd"" one"')  # fmt: skip
    stocked(engine, MARCH, wanted)
    engine.run("set search_path to main" if isinstance(engine, Duck) else "set search_path to models")
    for view in views(wanted, engine.dialect, 'An "odd" one'):
        for statement in view.statements:
            engine.run(statement)
    assert engine.run('select count(*) from "An ""odd"" one".deliveries') == [(7,)]
    engine.run('drop schema "An ""odd"" one" cascade')


@pytest.mark.parametrize("left", sorted(tables()))
def test_a_table_that_is_not_there_leaves_out_what_needs_it(left: str, engine: Duck | Postgres) -> None:
    wanted = shapes(left)
    stocked(engine, NEWSLETTER, wanted)
    made = {view.name: view for view in views(wanted, engine.dialect)}
    missing = {name for name, view in made.items() if view.left_out}
    alone = {"messages": set(MODELS) - {"segment_growth"}, "segment_memberships": {"segment_growth"}}
    assert missing == alone.get(left, set())
    for name in set(MODELS) - missing:
        engine.run(f"select count(*) from {name}")
    said = [note for view in made.values() for note in (view.left_out, *view.notes)]
    assert any(left in note for note in said)


def test_columns_left_out_and_hashed(engine: Duck | Postgres) -> None:
    table = tables()["messages"]
    kept = tuple(column.name for column in table.columns if column.name not in ("subject", "newsletter_id"))
    hashed = ("id", "recipient", "cio_id", "action_id")
    wanted = shapes(messages=Shape(table, columns=kept, hashed=hashed))
    rows = [{key: value for key, value in row.items() if key in (*kept, "_workspace", "_deleted_at")}
            for row in MARCH["messages"]]  # fmt: skip
    for row in rows:
        row.pop("action_id", None)
        row |= {"recipient": "5f2a", "cio_id": "77aa"} if "recipient" in row else {}
    stocked(engine, {**MARCH, "messages": rows}, wanted)
    found = asked(engine, "select * from deliveries where delivery_id = 'm1' and _workspace = 'shop'")
    assert {name: found[0][name] for name in ("recipient", "recipient_domain", "subject", "action_id")} == {
        "recipient": "5f2a", "recipient_domain": None, "subject": None, "action_id": None,
    }  # fmt: skip
    assert found[0]["opened_at"] == "2025-04-21T10:00:00"
    (deliveries,) = (view for view in views(wanted, engine.dialect) if view.name == "deliveries")
    assert deliveries.notes == (
        "the column messages.subject is left out",
        "the column messages.action_id is hashed",
        "the column messages.newsletter_id is left out",
    )


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Shape(tables()["messages"], columns=("id", "created")), "the column messages.metrics is left out"),
        (Shape(tables()["messages"], hashed=("metrics",)), "the column messages.metrics is hashed"),
        (Shape(tables()["messages"], called="deliveries"), "a table is called deliveries"),
    ],
)
def test_why_a_view_is_left_out(shape: Shape, why: str, dialect: Dialect) -> None:
    made = {view.name: view for view in views(shapes(messages=shape), dialect)}
    assert made["deliveries"].left_out == why
    assert not made["deliveries"].statements
    assert made["deliverability"].left_out == "it reads deliveries, which is left out too"
    assert made["segment_growth"].statements
