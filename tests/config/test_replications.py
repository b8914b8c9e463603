"""The section `replications:`: what it takes, and what it says of what is wrong, at its line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from towpath.config import Config, ConfigError, parse
from towpath.config.resolved import ReplicationEntry
from towpath.replicate.tables import REPLICATED
from towpath.warehouse.settings import PostgresTarget

TOP = """\
version: 1
accounts:
  cio: {type: customerio, app_api_key: key-1, region: eu}
  second: {type: customerio, access_token: key-2}
  keyless: {type: customerio, region: us}
  wh: {type: warehouse, duckdb: ./warehouse.duckdb}
  lake: {type: warehouse, parquet: ./lake, hash_key: pepper-and-salt-and-more}
replications:
"""

Load = Callable[[str], Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda text: parse(TOP + text, tmp_path / "towpath.yaml", {})


def only(config: Config) -> ReplicationEntry:
    (entry,) = config.replications.values()
    return entry


def refusal(load: Load, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return "; ".join(f"{problem.line}: {problem.title} {problem.hint}" for problem in caught.value.problems)


@pytest.mark.spec("R001", "R006")
def test_several_workspaces_into_one_warehouse(load: Load) -> None:
    entry = only(load("  copy: {from: [cio, second], to: wh}\n"))
    assert [entry.sources[name].fields["app_api_key"] for name in ("cio", "second")] == ["key-1", "key-2"]
    assert entry.target.target.about == "DuckDB ./warehouse.duckdb"
    assert entry.settings.chosen() == {}
    assert "key-1" not in repr(entry)


@pytest.mark.spec("R002")
@pytest.mark.parametrize("written", ["01/31/2025", "2025-01-31", "2025-01-31T00:00:00Z", '"2025-01-31"'])
def test_the_start_date_in_either_form_is_utc(load: Load, written: str) -> None:
    entry = only(load(f"  copy: {{from: cio, to: wh, start_date: {written}}}\n"))
    assert entry.settings.start_date == datetime(2025, 1, 31, tzinfo=UTC)


@pytest.mark.spec("R002")
@pytest.mark.parametrize(
    ("written", "said"),
    [("01/31/2999", "lies in the future"), ("31/01/2025", "is no date"), ("soon", "is no date")],
)
def test_a_start_date_that_is_none_or_to_come_is_refused(load: Load, written: str, said: str) -> None:
    told = refusal(load, f"  copy: {{from: cio, to: wh, start_date: {written}}}\n")
    assert said in told
    assert told.startswith("9: ")


@pytest.mark.spec("R040")
def test_a_list_from_qlik_that_names_messages_twice_is_both_tables(load: Load) -> None:
    entry = only(load("  copy: {from: cio, to: wh, tables: [broadcasts, messages, types, messages]}\n"))
    names = ["broadcasts", "transactional_messages", "object_types", "messages"]
    assert list(entry.settings.chosen()) == names
    assert "listed twice" in entry.settings.notes[0]
    alone = only(load("  copy: {from: cio, to: wh, tables: [messages]}\n"))
    assert list(alone.settings.chosen()) == ["messages"]
    assert list(alone.settings.notes) == []


@pytest.mark.spec("R006", "R048")
def test_each_table_may_differ(load: Load) -> None:
    entry = only(
        load(
            "  copy:\n    from: cio\n    to: lake\n    every: 1h\n    contract: freeze\n    tables:\n"
            "      messages: {every: 5m, exclude: [subject], hash: [recipient], look_back: 7d}\n"
            "      topics:\n      customers: {called: people, contract: discard}\n"
        )
    )
    chosen = entry.settings.chosen()
    assert list(chosen) == ["messages", "subscription_topics", "customers"]
    assert chosen["messages"].hash == ("recipient",)
    assert chosen["messages"].times().every_s == 300
    assert not chosen["subscription_topics"].repeats
    assert chosen["customers"].called == "people"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{from: nobody, to: wh}", 'there is no account "nobody"'),
        ("{from: wh, to: wh}", "is of the type warehouse, not customerio"),
        ("{from: cio, to: second}", "is of the type customerio, not warehouse"),
        ("{from: keyless, to: wh}", 'the account "keyless" has no app_api_key'),
        ("{from: cio, to: wh, tables: [mesages]}", "did you mean messages?"),
        ("{from: cio, to: wh, tables: {messages: {exclude: [subjct]}}}", 'did you mean "subject"?'),
        ("{from: cio, to: wh, tables: {messages: {exclude: [id]}}}", "cannot do without id"),
        ("{from: cio, to: wh, tables: {messages: {hash: [recipient]}}}", "has no hash_key"),
        ("{from: cio, to: wh, tables: [message_events]}", "reporting webhooks fill it"),
        ("{from: cio, to: wh, every: 1h, schedule: '0 3 * * *'}", "either cron or every"),
        ("{from: cio, to: wh, guard: 3}", "is not a share"),
        ("{from: cio, to: wh, evry: 1h}", 'unknown key "evry"'),
    ],
)
def test_what_is_wrong_is_said_at_its_line(load: Load, text: str, said: str) -> None:
    told = refusal(load, f"  copy: {text}\n")
    assert said in told
    assert "key-1" not in told


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ("{type: warehouse}", "needs exactly one of"),
        ("{type: warehouse, duckdb: a.db, parquet: ./b}", "needs exactly one of"),
        ("{type: warehouse, postgres: 'postgresql://u:pw-0123@[bad/db'}", "needs exactly one of"),
        ("{type: warehouse, postgres: {url: 'postgresql://u:pw-0123@[bad/db'}}", "is not a PostgreSQL URL"),
        ("{type: warehouse, duckdb: a.db, hash_key: x}", "16"),
    ],
)
def test_a_warehouse_that_is_wrong_is_told_of_where_only_a_replication_uses_it(
    account: str, said: str
) -> None:
    whole = TOP.replace(
        "replications:\n", f"  odd: {account}\nreplications:\n  copy: {{from: cio, to: odd}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse(whole, Path("towpath.yaml"), {})
    words = "; ".join(f"{problem.title} {problem.hint}" for problem in caught.value.problems)
    assert said in words or "PostgreSQL URL" in words
    assert "pw-0123" not in words


@pytest.mark.spec("D08")
@pytest.mark.parametrize(
    ("url", "about"),
    [
        ("postgresql://u:pw-0123@db.example:5433/cdp", "PostgreSQL db.example:5433/cdp, schema customerio"),
        ("postgres:///cdp", "PostgreSQL local/cdp, schema customerio"),
        (
            "host=/run/pg port=5433 user=u password='pw-0123 x' dbname=cdp",
            "PostgreSQL /run/pg:5433/cdp, schema customerio",
        ),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, about: str) -> None:
    assert PostgresTarget(url=SecretStr(url)).about == about


@pytest.mark.parametrize("url", ["not a url", "mysql://h/d", "postgresql://u:pw@[bad/db", ""])
def test_what_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a PostgreSQL URL"):
        PostgresTarget(url=SecretStr(url))


def test_a_name_is_one_thing(load: Load) -> None:
    text = "  copy: {from: cio, to: wh}\nsources:\n  copy: {type: segment, write_keys: [k]}\n"
    assert '"copy" is the name of a source and of a replication' in refusal(load, text)


@pytest.mark.spec("R006")
def test_every_table_can_be_chosen_by_its_name(load: Load) -> None:
    entry = only(load(f"  copy: {{from: cio, to: wh, tables: [{', '.join(REPLICATED)}]}}\n"))
    assert list(entry.settings.chosen()) == list(REPLICATED)


@pytest.mark.spec("R006", "R042")
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("{from: cio, to: wh, tables: [topics, segments]}", 'segments is read into "wh" by "one" already'),
        ("{from: second, to: wh, tables: {segments: {called: groups}}}", "in another way"),
        ("{from: second, to: wh, deletes: remove}", "in another way"),
    ],
)
def test_two_replications_do_not_share_a_table(load: Load, other: str, said: str) -> None:
    one = "  one: {from: cio, to: wh, tables: [campaigns, segments]}\n"
    assert said in refusal(load, f"{one}  other: {other}\n")
    assert len(load(f"{one}  other: {{from: second, to: wh, tables: [segments]}}\n").replications) == 2
    assert len(load(f"{one}  other: {{from: cio, to: wh, tables: [topics]}}\n").replications) == 2
