"""`towpath firebase`: which source it means, what it is told, and what it says where it cannot begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import Shell

CONFIG = """\
version: 1
storage: ./data
sources:
{sources}
destinations:
  cio: {{type: customerio, site_id: s, api_key: k, base_url: "http://127.0.0.1:9"}}
connections:
  - {{from: app, to: [cio]}}
"""
APP = "  app: {type: firebase, project: demo-p, push_token: 0123456789abcdef}"
EMULATED = (
    "  app: {type: firebase, project: demo-p, emulator: true, auth_url: 'http://127.0.0.1:9', "
    "firestore_url: 'http://127.0.0.1:9', collections: [users]}"
)


def configured(directory: Path, *sources: str) -> None:
    (directory / "towpath.yaml").write_text(CONFIG.format(sources="\n".join(sources)))


@pytest.mark.spec("F008", "F056")
def test_without_a_service_account_it_says_what_is_missing(shell: Shell, tmp_path: Path) -> None:
    configured(tmp_path, APP)
    said = shell("firebase", "backfill")
    assert (said.code, "E4409" in said.err, "service_account" in said.err) == (2, True, True)


def test_one_of_several_sources_has_to_be_named(shell: Shell, tmp_path: Path) -> None:
    configured(tmp_path, APP, APP.replace("app:", "other:"))
    said = shell("firebase", "reconcile")
    assert ("E4412" in said.err, "app, other" in said.err) == (True, True)


def test_a_resumed_run_takes_no_other_options(shell: Shell, tmp_path: Path) -> None:
    configured(tmp_path, EMULATED)
    said = shell("firebase", "backfill", "--resume", "--full")
    assert ("E5201" in said.err, "Nothing was started" in said.err) == (True, True)


@pytest.mark.spec("F056")
def test_an_emulator_that_is_not_there_fails_the_attempt_and_is_tried_again(
    shell: Shell, tmp_path: Path
) -> None:
    configured(tmp_path, EMULATED)
    said = shell("firebase", "backfill", "--full", "--only", "users", "--json").json()
    assert (said["job"], said["state"]) == ("app.backfill", "snoozed")
