"""Other tools' states become our cursors, and what cannot is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.errors import TowpathError
from towpath.replicate.imported import Kind, cursors, moment

pytestmark = pytest.mark.spec("R007", "R050")

AT = 1_735_689_600.0
"""2025-01-01 in UTC."""
NOW = AT + 86_400


def stream(name: str, state: Any) -> dict[str, Any]:
    return {"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": state}}


@pytest.mark.parametrize(
    "value",
    [
        1735689600,
        1735689600.0,
        "1735689600",
        "1735689600.000",
        1735689600000,
        "1735689600000",
        1735689600000000,
        "1735689600000000000",
        "2025-01-01",
        "2025-01-01T00:00:00Z",
        "2025-01-01T00:00:00.000000Z",
        "2025-01-01T00:00:00.000000000+00:00",
        "2025-01-01 01:00:00+01:00",
        " 01/01/2025 ",
    ],
)
def test_moments_in_every_form(value: Any) -> None:
    assert moment(value) == AT


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, "", "soon", "31/01/2025", "9" * 30, "٣", "1969-12-31", "0001-01-01T00:00:00+14:00"),
        *(-1, 10**400, float("nan"), float("inf"), [], {}),
    ],
)
def test_what_is_no_moment(value: Any) -> None:
    assert moment(value) is None


def test_the_state_of_tap_customerio() -> None:
    state = {
        "bookmarks": {
            "campaigns": {"updated": "2025-01-01T00:00:00.000000Z"},
            "transactional_messages": {"updated_at": "2025-01-01T00:00:00.000000Z"},
            "snippets": {"updated_at": "2024-12-31T00:00:00.000000Z"},
            "collections": {"updated_at": "2025-01-01T00:00:00.000000Z"},
            "objects": {"updated_at": "2025-01-01T00:00:00.000000Z"},
            "of_another_tap": {"updated_at": "2025-01-01T00:00:00.000000Z"},
            "message_events": {"at": "2025-01-01T00:00:00.000000Z"},
        },
        "currently_syncing": "exports",
    }
    for kind in ("auto", "singer"):
        found = cursors(json.dumps(state), kind, now=NOW)
        assert found.cursors == {
            "campaigns": AT, "transactional_messages": AT, "snippets": AT - 86_400,
        }  # fmt: skip
        assert found.notes == (
            "collections: it is read whole in each run, and needs no cursor",
            "objects: object_types is read whole in each run, and needs no cursor",
            "of_another_tap: no table is called so",
            "message_events: no table is called so",
        )


def test_of_many_state_messages_the_last_counts() -> None:
    lines = [
        {"type": "RECORD", "stream": "campaigns", "record": {"id": 1}},
        {"type": "STATE", "value": {"bookmarks": {"campaigns": {"updated": "2024-01-01"}}}},
        {"type": "STATE", "value": {"bookmarks": {"campaigns": {"updated": "2025-01-01"}}}},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    assert cursors(f"\ufeff{text}\n\n", now=NOW).cursors == {"campaigns": AT}


def test_bookmarks_of_the_singer_sdk() -> None:
    state = {
        "bookmarks": {
            "segments": {"replication_key": "updated_at", "replication_key_value": "2025-01-01T00:00:00"},
            "campaign_actions": {
                "partitions": [
                    {"context": {"id": 1}, "replication_key": "updated", "replication_key_value": AT - 5},
                    {"context": {"id": 2}, "replication_key": "updated", "replication_key_value": AT - 9},
                ]
            },
            "newsletters": "2025-01-01",
        }
    }
    assert cursors(json.dumps(state), now=NOW).cursors == {
        "segments": AT, "campaign_actions": AT - 9, "newsletters": AT,
    }  # fmt: skip


GLOBAL = {"shared_state": {}, "stream_states": [stream("campaigns", {"updated": "1735689600"})["stream"]]}


@pytest.mark.parametrize(
    "state",
    [
        [stream("campaigns", {"updated": 1735689600})],
        stream("campaigns", {"updated": 1735689600}),
        {"type": "STATE", "state": stream("campaigns", {"updated": "1735689600"})},
        [{"type": "GLOBAL", "global": GLOBAL}],
        {"type": "LEGACY", "data": {"campaigns": {"updated": 1735689600}}},
        {"campaigns": {"updated": 1735689600}},
        {"stateType": "legacy", "state": {"campaigns": {"updated": 1735689600}}},
        {
            "stateType": "stream",
            "connectionId": "5f",
            "streamState": [
                {"streamDescriptor": {"name": "campaigns"}, "streamState": {"updated": "1735689600"}}
            ],
        },
        {
            "stateType": "global",
            "globalState": {
                "streamStates": [
                    {"streamDescriptor": {"name": "campaigns"}, "streamState": {"updated": "1735689600"}}
                ]
            },
        },
    ],
)
@pytest.mark.parametrize("kind", ["auto", "airbyte"])
def test_every_kind_of_airbytes_state(state: Any, kind: Kind) -> None:
    assert cursors(json.dumps(state), kind, now=NOW).cursors == {"campaigns": AT}


def test_airbytes_cursors_of_partitions_and_slices() -> None:
    parts = [
        {"partition": {"parent_id": 7, "parent_slice": {}}, "cursor": {"updated": str(int(AT) - 7)}},
        {"partition": {"parent_id": 8, "parent_slice": {}}, "cursor": {"updated": str(int(AT) - 8)}},
    ]
    slices = [
        {"start": "2024-06-01T00:00:00Z", "end": "2025-01-01T00:00:00Z"},
        {"start": "2024-01-01T00:00:00Z", "end": "2024-05-01T00:00:00Z", "most_recent_cursor_value": AT - 99},
    ]
    everything = [
        stream("campaigns_actions", {"use_global_cursor": False, "states": parts, "state": {"updated": AT}}),
        stream("broadcast_actions", {"use_global_cursor": True, "states": parts, "state": {"updated": AT}}),
        stream("messages", {"state_type": "date-range", "slices": slices}),
        stream("newsletters", {"7": {"updated": AT - 1}, "8": {"updated": AT - 2}}),
        stream("segments", {"__ab_full_refresh_sync_complete": True}),
        stream("people", {"__ab_no_cursor_state_message": True}),
        stream("campaigns", {"state": {"updated": AT}, "parent_state": {}, "lookback_window": 3}),
    ]
    found = cursors("\n".join(json.dumps(one) for one in everything), now=NOW)
    assert found.cursors == {
        "campaign_actions": AT - 8,
        "broadcast_actions": AT,
        "messages": AT - 99,
        "newsletters": AT - 2,
        "campaigns": AT,
    }
    assert "campaigns_actions: has 2 cursors, one for each part; the earliest is taken" in found.notes
    assert "segments: holds no cursor" in found.notes
    assert "people: customers is read whole in each run, and needs no cursor" in found.notes


@pytest.mark.parametrize("heading", ["", "table,cursor\n", "Stream Name,Bookmark,Rows\n"])
@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_table_of_cursors(heading: str, between: str) -> None:
    text = f"{heading}campaigns,2025-01-01\n\n exports , 1735689600000,12\ntopics,2025-01-01\nsegments,\n"
    found = cursors(text.replace(",", between), now=NOW)
    assert found.cursors == {"campaigns": AT, "exports": AT}
    assert found.notes == (
        "topics: subscription_topics is read whole in each run, and needs no cursor",
        "segments: holds no cursor",
    )


@pytest.mark.spec("R040")
def test_messages_once_are_the_deliveries_and_twice_the_templates_too() -> None:
    assert cursors("messages,2025-01-01", now=NOW).cursors == {"messages": AT}
    twice = cursors("messages,2024-12-31\nmessages,2025-01-01", now=NOW)
    assert twice.cursors == {"transactional_messages": AT - 86_400, "messages": AT}


@pytest.mark.parametrize(
    ("state", "found", "note"),
    [
        ({"updated": "2099-01-01"}, NOW, "campaigns: its cursor lies in the future; it is set to now"),
        (
            {"updated_at": "2025-01-01"},
            AT,
            "campaigns: its cursor is of updated_at, which is taken for updated",
        ),
        ({"a": "2025-01-01", "b": "2025-01-01"}, None, "campaigns: holds no cursor"),
        ({"updated": None}, None, "campaigns: holds no cursor"),
        ({"updated": 0}, None, "campaigns: stands at the very beginning"),
        ({"updated": "soon"}, None, 'campaigns: "soon" is no moment'),
        ({"updated": True}, None, "campaigns: true is no moment"),
        ({"updated": "0001-01-01"}, None, 'campaigns: "0001-01-01" is no moment'),
    ],
)
def test_a_cursor_that_is_none_or_odd(state: Any, found: float | None, note: str) -> None:
    text = json.dumps({"bookmarks": {"campaigns": state, "exports": {"updated_at": AT}}})
    given = cursors(text, now=NOW)
    assert given.cursors.get("campaigns") == found
    assert given.notes == (note,)


def test_two_names_of_one_table_take_the_earlier_cursor() -> None:
    found = cursors("campaigns_actions,2025-01-01\ncampaign_actions,2024-12-31\n", now=NOW)
    assert found.cursors == {"campaign_actions": AT - 86_400}
    assert found.notes == ("campaign_actions: named more than once; the earlier cursor is taken",)


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("", "auto", "E5620"),
        (" \n\t ", "auto", "E5620"),
        ("{", "auto", "E5620"),
        ('{"bookmarks": {}} and more', "auto", "E5620"),
        ("[" * 100_000, "auto", "E5620"),
        ("not a state", "auto", "E5620"),
        ("campaigns,2025-01-01\nexports", "csv", "E5620"),
        ("campaigns,2025-01-01", "singer", "E5620"),
        ("[]", "auto", "E5621"),
        ("{}", "auto", "E5621"),
        ("[1, null, true]", "auto", "E5621"),
        ('{"version": 1}', "airbyte", "E5621"),
        ('{"bookmarks": {"campaigns": {"updated": 1}}}', "airbyte", "E5621"),
        ('[{"type": "STREAM", "stream": null}]', "singer", "E5621"),
        ('{"bookmarks": {}}', "auto", "E5622"),
        ('{"bookmarks": {"campaigns": []}}', "auto", "E5622"),
        ('{"bookmarks": {"orders": {"updated": 1735689600}}}', "auto", "E5622"),
        ('[{"type": "STREAM", "stream": null}]', "auto", "E5622"),
        ("table,cursor", "csv", "E5622"),
    ],
)
def test_files_that_are_no_states_say_so(text: str, kind: Kind, code: str) -> None:
    with pytest.raises(TowpathError) as caught:
        cursors(text, kind, now=NOW)
    assert caught.value.code == code
    assert caught.value.fix
    assert caught.value.data == "nothing was changed"


WORDS = """
bookmarks value type STATE state stream streams global stream_state stream_states stream_descriptor name
streamState streamDescriptor globalState data states cursor slices start end campaigns updated messages
partitions replication_key replication_key_value use_global_cursor most_recent_cursor_value
"""
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["2025-01-01", "1735689600", "STREAM", ""]) | st.text(max_size=5)
)  # fmt: skip
KEYS = st.sampled_from(WORDS.split())
ANY = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=25
)


def is_understood_or_refused(text: str, kind: Kind) -> bool:
    """Whether cursors of the past come of it, or an error for people."""
    try:
        found = cursors(text, kind, now=NOW)
    except TowpathError as error:
        return error.code in ("E5620", "E5621", "E5622")
    return all(0 < at <= NOW for at in found.cursors.values())


@settings(max_examples=200, deadline=None)
@given(state=ANY, kind=st.sampled_from(["auto", "singer", "airbyte", "csv"]))
def test_whatever_document_it_is(state: Any, kind: Kind) -> None:
    assert is_understood_or_refused(json.dumps(state), kind)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="campignsexort,;\t\"'\n0125-T:{}[]Zé\x00\r", max_size=60))
def test_whatever_text_it_is(text: str) -> None:
    assert is_understood_or_refused(text, "auto")
