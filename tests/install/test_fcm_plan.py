"""Firebase Cloud Messaging from a key file to a plan, and the plan in a file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.install import Draft, Setting, draft
from towpath.install.fcm import Fcm, plan

from .account import ACCOUNT

GIVEN = Fcm("app", ACCOUNT)


def drafted(file: Path, text: str, *, replace: bool = False) -> Draft:
    file.write_text(text)
    return draft(file, plan(GIVEN), stored=lambda _: {}, replace=replace, env={})


@pytest.mark.spec("P003", "D08")
def test_the_key_goes_into_the_store_and_its_name_into_the_file() -> None:
    made = plan(GIVEN)
    assert made.entries[0].fields == {"type": "fcm", "service_account": "${secret:app_service_account}"}
    assert made.secrets == {"app_service_account": ACCOUNT}
    assert made.settings == [Setting("push", "account", "app")]
    assert made.wrote == ["accounts.app", "push.account"]
    assert not made.notes


@pytest.mark.spec("P003")
def test_another_project_than_the_keys_is_taken_and_noted() -> None:
    made = plan(msgspec.structs.replace(GIVEN, project="shop-2", url="http://127.0.0.1:9"))
    assert made.entries[0].fields["project"] == "shop-2"
    assert made.entries[0].fields["fcm_url"] == "http://127.0.0.1:9"
    assert "of the project demo-p" in made.notes[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version: 1\n", "\npush:\n  account: app\n"),
        ("version: 1\npush:\n", "push:\n  account: app\n"),
        ("version: 1\npush:\n  quiet_for: 2d\n", "push:\n  quiet_for: 2d\n  account: app\n"),
        ("version: 1\npush: {quiet_for: 2d}\n", 'push: {quiet_for: 2d, "account": "app"}\n'),
        ("version: 1\npush: {}\n", 'push: {"account": "app"}\n'),
    ],
)
def test_the_section_gets_its_account_however_it_is_written(tmp_path: Path, before: str, after: str) -> None:
    made = drafted(tmp_path / "towpath.yaml", before)
    assert after in made.after
    assert made.config.push is not None
    assert made.config.push.account == "app"


@pytest.mark.spec("D23")
def test_another_account_is_replaced_only_when_asked(tmp_path: Path) -> None:
    key = 'service_account: "${secret:app_service_account}"'
    before = f"version: 1\naccounts:\n  old: {{type: fcm, {key}}}\npush:\n  account: old   # of last year\n"
    with pytest.raises(TowpathError, match=r"push.account .* is old already"):
        drafted(tmp_path / "towpath.yaml", before)
    assert "  account: app\n" in drafted(tmp_path / "towpath.yaml", before, replace=True).after


def test_an_account_of_that_name_is_replaced_only_when_asked(tmp_path: Path) -> None:
    before = "version: 1\naccounts:\n  app: {type: fcm, service_account: x}\n"
    with pytest.raises(TowpathError, match='account "app"'):
        drafted(tmp_path / "towpath.yaml", before)
    before = "version: 1\nsources:\n  app: {type: segment, write_keys: [wk]}\n"
    assert "app" in drafted(tmp_path / "towpath.yaml", before).config.accounts
