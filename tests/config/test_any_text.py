"""Whatever the file holds, it loads or is refused with a ConfigError that renders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towpath.config import ConfigError, parse
from towpath.config.model import ConnectionBlock, File

ANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENV = {"A": "a", "B": ""}
WHOLE = """\
version: 1
server: {listen: "127.0.0.1:8080", limits: {event: 64KB}, tls: {certificate: a, key: b}}
storage: ./data
accounts: {main: {type: parcel, api_key: "${A}"}}
sources:
  web: {type: drum, write_keys: [wk_demo, "${A:-x}"]}
destinations:
  tool: &tool {type: parcel, account: main, retry: {schedule: [5s, 2h]}}
  copy: {<<: *tool, region: "${file:x}"}
connections:
  - {from: web, to: [tool, copy], max_age: {Sale: 2h}, only: [track]}
"""
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["parcel", "drum", "web", "tool", "5s", "${A}", "${B}", "${", "${secret:x}", "$${", "now", "::1:80"]
    ),
)
KEYS = st.one_of(
    st.sampled_from(
        [*File.model_fields, *ConnectionBlock.model_fields, "from", "type", "account", "web", "tool", "<<"]
    ),
    st.text(max_size=5),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def check(text: str) -> None:
    try:
        parse(text, Path("/nowhere/towpath.yaml"), ENV, lambda storage: {})
    except ConfigError as refused:
        error = refused
    else:
        return
    assert error.render()
    assert all(problem.file and problem.title for problem in error.problems)


@pytest.mark.usefixtures("kinds")
@ANY
@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    check(text)


@pytest.mark.usefixtures("kinds")
@ANY
@given(st.text(alphabet="ab01 \t\n\r:-[]{},\"'|>&*!%@`#?<\x85\u2028${}~.", max_size=60))
def test_any_text_of_yaml_signs(text: str) -> None:
    check(text)


@pytest.mark.usefixtures("kinds")
@ANY
@given(st.dictionaries(st.sampled_from(list(File.model_fields)), TREES, max_size=6))
def test_any_tree_under_known_keys(tree: dict[str, object]) -> None:
    check(json.dumps(tree))


@pytest.mark.usefixtures("kinds")
@ANY
@given(st.data())
def test_a_right_file_with_a_stretch_exchanged(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(WHOLE)))
    end = data.draw(st.integers(start, min(start + 12, len(WHOLE))))
    check(WHOLE[:start] + data.draw(st.text(max_size=6)) + WHOLE[end:])
