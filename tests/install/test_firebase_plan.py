"""Firebase from a project and a service account to a plan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.install.firebase import Firebase, plan

from .account import ACCOUNT

GIVEN = Firebase("fb", service_account=ACCOUNT, collections=["users", "tenants/{t}/members"])


@pytest.mark.spec("F002", "F006", "F007", "D08")
def test_a_service_account_brings_its_project_and_is_kept_in_the_store() -> None:
    made = plan(GIVEN)
    assert made.entries[0].fields == {
        "type": "firebase",
        "project": "demo-p",
        "service_account": "${secret:fb_service_account}",
        "collections": ["users", "tenants/{t}/members"],
    }
    assert made.secrets == {"fb_service_account": ACCOUNT}
    assert not made.connections
    assert not made.notes


@pytest.mark.parametrize("lacking", [{"collections": ()}, {"service_account": ""}, {"listen": False}])
def test_listening_needs_a_key_and_a_collection(lacking: dict[str, Any]) -> None:
    listening = msgspec.structs.replace(GIVEN, project="demo-p", listen=True)
    assert plan(listening).entries[0].fields["listen"] is True
    assert "listen" not in plan(msgspec.structs.replace(listening, **lacking)).entries[0].fields


def test_another_project_than_the_accounts_is_taken_and_noted() -> None:
    made = plan(msgspec.structs.replace(GIVEN, project="p2"))
    assert made.entries[0].fields["project"] == "p2"
    assert "of the project demo-p" in made.notes[0]


@pytest.mark.spec("F007")
def test_authentication_alone_with_a_token_for_pushes() -> None:
    made = plan(Firebase("firebase", "p", push_token="t" * 16, destinations=["customerio"]))
    assert made.entries[0].fields == {
        "type": "firebase",
        "project": "p",
        "push_token": "${secret:firebase_push_token}",
    }
    assert made.connections == [{"from": "firebase", "to": ["customerio"]}]


@pytest.mark.parametrize("account", ["{", "[]", "{}", '{"client_email": 1, "private_key": "x"}', "\ud800"])
def test_a_file_that_is_no_key_is_refused(account: str) -> None:
    with pytest.raises(TowpathError) as refused:
        plan(msgspec.structs.replace(GIVEN, service_account=account))
    assert refused.value.code == "E2408"


def test_a_project_is_needed() -> None:
    with pytest.raises(TowpathError) as refused:
        plan(Firebase("firebase"))
    assert "--project" in refused.value.fix
