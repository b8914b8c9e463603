"""Names of tables and columns in a warehouse of events."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.destinations._warehouse_names import KEYWORDS, REPLICATED, TABLES, column_of, table_of
from towpath.replicate.models import MODELS
from towpath.replicate.tables import REPLICATED as IN_REPLICATIONS

PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def told(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:8]


@pytest.mark.spec("R056")
@pytest.mark.parametrize(
    ("event", "table"),
    [
        ("Order Completed", "order_completed"),
        ("order-completed", "order_completed"),
        ("orderCompleted", "order_completed"),
        ("OrderCompleted!", "order_completed"),
        ("HTTPError", "http_error"),
        ("Réservé à l'été", "reserve_a_l_ete"),
        ("Users", "event_users"),
        ("tracks", "event_tracks"),
        ("Messages", "event_messages"),
        ("Order", "event_order"),
        ("SELECT", "event_select"),
        ("2nd Visit", "event_2nd_visit"),
        ("🛶", f"event_{told('🛶')}"),
        ("!!!", f"event_{told('!!!')}"),
        ("Café 店", f"cafe_{told('Café 店')}"),
        ("e" * 70, "e" * 54 + "_" + told("e" * 70)),
    ],
)
def test_a_table_is_named_for_its_event(event: str, table: str) -> None:
    assert table_of(event) == table


def test_a_prefix_comes_first_and_counts() -> None:
    assert table_of("Order Completed", "web_") == "web_order_completed"
    assert len(table_of("e" * 60, "web_")) == 63


@pytest.mark.spec("R056")
@pytest.mark.parametrize(
    ("path", "column"),
    [
        (("firstName",), "first_name"),
        (("address", "postalCode"), "address_postal_code"),
        (("2nd",), "_2nd"),
        (("_extra",), "extra"),
        (("",), f"unnamed_{told('')}"),
        (("a", "", "b"), f"a_b_{told('a..b')}"),
        (("größe",), f"gro_e_{told('größe')}"),
        (("名",), f"unnamed_{told('名')}"),
    ],
)
def test_a_column_is_named_for_its_path(path: tuple[str, ...], column: str) -> None:
    assert column_of(path) == column


@pytest.mark.spec("R056")
@given(st.text(max_size=100), st.sampled_from(["", "web_"]))
def test_any_event_has_a_table_of_its_own_kind(event: str, prefix: str) -> None:
    table = table_of(event, prefix)
    assert PLAIN.fullmatch(table)
    assert len(table) <= 63
    assert table not in TABLES | REPLICATED | KEYWORDS


@pytest.mark.spec("R056")
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_any_path_has_a_column(path: list[str]) -> None:
    column = column_of(path)
    assert PLAIN.fullmatch(column)
    assert len(column) <= 63
    assert column not in {"_workspace", "_extra", "_run_id", "_loaded_at", "_deleted_at"}


@pytest.mark.spec("R056")
def test_replications_may_load_into_the_same_place() -> None:
    assert {*IN_REPLICATIONS, *MODELS} <= REPLICATED
