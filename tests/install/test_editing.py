"""Adding to a YAML file: what was there stays, byte by byte, and what is added says what was meant."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from towpath.config.document import Document
from towpath.errors import TowpathError
from towpath.install.editing import with_connection, with_entry

FIELDS = {"type": "customerio", "site_id": "0a1b", "api_key": "${secret:k}", "region": "eu"}
COMMENTED = """\
# mine
version: 1   # the format

destinations:
  # the first
  kustomer:
    type: kustomer
    api_key: "${KUSTOMER_KEY}"   # from the vault

# who hears what
connections:
- {from: web, to: [kustomer]}  # all of it

# the end
"""
ADDED = """\
# mine
version: 1   # the format

destinations:
  # the first
  kustomer:
    type: kustomer
    api_key: "${KUSTOMER_KEY}"   # from the vault
  customerio:
    type: customerio
    site_id: 0a1b
    api_key: "${secret:k}"
    region: eu

# who hears what
connections:
- {from: web, to: [kustomer]}  # all of it
- from: web
  to:
    - customerio

# the end
"""


def data(text: str) -> dict[str, Any]:
    return Document(text, "towpath.yaml").data


@pytest.mark.spec("D23", "C032")
def test_comments_and_everything_else_stay_where_they_were() -> None:
    added = with_entry(COMMENTED, "destinations", "customerio", FIELDS)
    assert with_connection(added, {"from": "web", "to": ["customerio"]}) == ADDED


def test_an_entry_takes_the_place_of_its_namesake() -> None:
    once = with_entry(COMMENTED, "destinations", "customerio", {"type": "webhook", "url": "https://a.b/c"})
    assert 'url: "https://a.b/c"' in once
    assert with_entry(once, "destinations", "customerio", FIELDS) == with_entry(
        COMMENTED, "destinations", "customerio", FIELDS
    )
    first = with_entry(COMMENTED, "destinations", "kustomer", FIELDS)
    assert data(first)["destinations"] == {"kustomer": FIELDS}
    assert "# the first\n  kustomer:\n    type: customerio" in first
    assert first.endswith(COMMENTED[COMMENTED.index("\n# who hears") :])


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\n",
        "version: 1",
        "version: 1\ndestinations:\n",
        "version: 1\ndestinations:   # none yet\nstorage: ./data\n",
        "version: 1\ndestinations: {}\n",
        "version: 1\ndestinations: {a: {type: webhook}}\nstorage: ./data\n",
        "version: 1\ndestinations: {\n  a: {type: webhook}\n}\n",
        "version: 1\ndestinations:\n    a:\n        type: webhook\n# end",
        "version: 1\ndestinations:\n  a: {type: webhook, url: x}",
        "version: 1\ndestinations:\n  a:\n    note: |\n      one\n\n      two\n\nstorage: ./data\n",
        "version: 1\ndestinations:\n  a:\n    note: >-\n      one\n# next\nstorage: ./data\n",
        "version: 1\ndestinations:\n  a:\n    list:\n    - 1\n    - 2 # two\nstorage: ./data\n",
        'version: 1\ndestinations:\n  a:\n    text: "one\n      two"\nstorage: ./data\n',
        "version: 1\ndestinations: &d\n  a: {type: webhook}\nstorage: ./data\n",
        "version: 1\r\ndestinations:\r\n  a:\r\n    type: webhook\r\n\r\n# c\r\nstorage: ./data\r\n",
        "version: 1\ndestinations:\n  a:\n    type:\nstorage: ./data\n",
        "# ☃ before\nversion: 1\ndestinations:\n  ä: {type: webhook} # ☃\nstorage: ./data\n",
    ],
)
def test_an_entry_is_added_however_the_section_is_written(text: str) -> None:
    edited = with_entry(text, "destinations", "customerio", FIELDS)
    before = data(text)
    assert data(edited) == {
        **before,
        "destinations": {**(before.get("destinations") or {}), "customerio": FIELDS},
    }
    assert all(line.rstrip("}\r") in edited for line in text.splitlines())
    assert edited.count("\r\n") == (edited.count("\n") if "\r\n" in text else 0)


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\n",
        "version: 1\nconnections:\n",
        "version: 1\nconnections: []\nstorage: ./data\n",
        "version: 1\nconnections: [{from: a, to: [b]}]\n",
        "version: 1\nconnections:\n  - from: a\n    to: [b]\n# c\nstorage: ./data\n",
        "version: 1\nconnections:\n- from: a\n  to:\n  - b\n",
    ],
)
def test_a_connection_is_added_however_they_are_written(text: str) -> None:
    line = {"from": "web", "to": ["customerio"]}
    edited = with_connection(text, line)
    before = data(text)
    assert data(edited) == {**before, "connections": [*(before.get("connections") or []), line]}


@pytest.mark.parametrize(
    "text",
    [
        "destinations: nothing\n",
        "{version: 1}\n",
        "version: 1\ndestinations: {a: {type: webhook},}\n",
        "version: 1\ndestinations: null\n",
        "version: 1\nsources: &s {}\ndestinations: *s\n",
        "version: 1\n...\n",
        "version: 1\ndestinations:\n  ? a\n  : {type: webhook}\n  ? customerio\n  : {type: webhook}\n",
        "[1, 2\n",
    ],
)
def test_what_cannot_be_added_to_is_left_alone_with_the_block_to_paste(text: str) -> None:
    edited = tried(text, FIELDS)
    if isinstance(edited, str):
        assert data(edited)["destinations"]["customerio"] == FIELDS
        return
    assert edited.data == "Nothing was changed."
    assert edited.code != "E2402" or "customerio:\n    type: customerio" in edited.fix


def tried(text: str, fields: dict[str, Any]) -> str | TowpathError:
    try:
        return with_entry(text, "destinations", "customerio", fields)
    except TowpathError as error:
        return error


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text("aé:#-'\"{}[]&*!|>%@`,? \n\t0123", max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)
SECTIONS = st.dictionaries(
    st.text("abcd", min_size=1, max_size=3), st.dictionaries(st.text("xyz", min_size=1), VALUES), max_size=3
)


@settings(max_examples=50, deadline=None)
@given(SECTIONS, VALUES, st.sampled_from([None, True, False]), VALUES)
def test_any_file_is_extended_or_refused_and_never_damaged(
    section: dict[str, Any], rest: Any, flow: bool | None, value: Any
) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    written = io.StringIO()
    yaml.dump({"version": 1, "destinations": section, "rest": rest}, written)
    text = written.getvalue()
    fields = {"type": "customerio", "value": value}
    try:
        before = data(text)
    except TowpathError:
        reject()  # the writer of the test wrote what no reader takes
    edited = tried(text, fields)
    if isinstance(edited, str):
        section = {**(before["destinations"] or {}), "customerio": fields}
        assert data(edited) == {**before, "destinations": section}
    else:
        assert edited.data == "Nothing was changed."
