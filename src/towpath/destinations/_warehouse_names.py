"""Names in a warehouse: of tables from event names, and of columns from the paths of properties."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from unicodedata import category, combining, normalize

MOST_BYTES = 63
"""PostgreSQL's limit; every target gets the same names, so that queries move from one to another."""
HASH_LENGTH = 8

KEYWORDS = frozenset(
    """all analyse analyze and any array as asc asymmetric authorization between bigint binary boolean both
    case cast check collate column constraint create cross current_date current_time current_timestamp
    current_user date default deferrable desc describe distinct do double else end except exists false fetch
    float for foreign freeze from full grant group having ilike in initially inner integer intersect into is
    isnull join lambda lateral leading left like limit localtime localtimestamp natural not notnull null
    offset on only or order outer overlaps partition pivot placing primary qualify references returning right
    row rows select session_user set show similar some summarize symmetric table tablesample then time
    timestamp to trailing true union unique unpivot update user using values variadic verbose when where
    window with""".split()  # noqa: SIM905 - one a line would be a page
)
"""Words that a query has to quote in DuckDB, PostgreSQL, BigQuery or Snowflake."""

TABLES = frozenset("aliases groups identifies pages screens tracks users".split())  # noqa: SIM905
REPLICATED = frozenset(
    """activities broadcast_actions broadcast_metrics broadcasts campaign_actions campaign_funnel_daily
    campaign_metrics campaigns collection_contents collections customer_relationships customers
    deliverability deliveries esp_suppressions exports ip_addresses message_events message_funnel_weekly
    messages newsletter_funnel_weekly newsletter_metrics newsletter_test_groups newsletter_variants
    newsletter_variants_compared newsletters object_relationships object_types objects person_engagement
    reporting_webhooks segment_days segment_growth segment_memberships segment_usage segments
    sender_identities snippets subscription_topics transactional_messages unsubscribes_and_bounces
    workspace_days workspaces""".split()  # noqa: SIM905
)
"""Tables and views that a replication of Customer.io may keep in the same place."""

OWN_COLUMNS = frozenset("cmax cmin ctid rowid tableoid xmax xmin".split())  # noqa: SIM905
"""Columns that every table of DuckDB or PostgreSQL has: one of the same name hides it, or cannot be made."""
CATALOGUE = "pg_"
"""What PostgreSQL's own tables begin with; it finds them before any other."""

_BORDERS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHERS = re.compile(r"[^a-z0-9]+")


def table_of(event: str, prefix: str = "") -> str:
    """Return the table of an event: `Order Completed`, `order-completed` and `orderCompleted` share one.

    `event_` comes before a name that has another meaning or begins with a digit. Where letters are lost (no
    Latin ones, or too many), the end is a hash of the whole name.
    """
    said, lost = _words(event)
    if not said or said[0].isdigit() or said in KEYWORDS or _is_another(said, prefix):
        said = f"event_{said}" if said else "event"
    return _limited(prefix + said, event, lost=lost)


def column_of(path: Sequence[str], prefix: str = "") -> str:
    """Return the column of a value by its path: `("address", "postalCode")` is `address_postal_code`.

    By the same rules as a table's name; a digit in front gets an underscore, and so does what databases keep.
    """
    words = [_words(key) for key in path]
    said = "_".join(word for word, _ in words if word)
    if not said or (said[0].isdigit() and not prefix):
        said = f"_{said}" if said else "unnamed"
    elif said in OWN_COLUMNS and not prefix:
        said = f"_{said}"
    return _limited(prefix + said, ".".join(path), lost=any(lost for _, lost in words))


def _is_another(said: str, prefix: str) -> bool:
    """Whether a table of that name has another meaning, with the prefix or without."""
    return (
        said in TABLES
        or bool({said, prefix + said} & REPLICATED)
        or CATALOGUE in {said[:3], (prefix + said)[:3]}
    )


def _limited(name: str, original: str, *, lost: bool) -> str:
    if not lost and len(name) <= MOST_BYTES:
        return name
    told = sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LENGTH]
    return f"{name[: MOST_BYTES - HASH_LENGTH - 1].rstrip('_')}_{told}"


def _words(text: str) -> tuple[str, bool]:
    """Text in snake case and ASCII, and whether letters, digits or symbols of it were lost."""
    return _short_words(text) if len(text) <= MOST_BYTES else _split(text)


def _split(text: str) -> tuple[str, bool]:
    plain = text
    if not text.isascii():
        plain = "".join(one for one in normalize("NFKD", text) if not combining(one))
    lost = not plain.isascii() and any(not one.isascii() and category(one)[0] in "LNSC" for one in plain)
    said = _OTHERS.sub("_", _BORDERS.sub("_", plain).lower()).strip("_")
    return said, lost or not said


_short_words = lru_cache(maxsize=8192)(_split)
