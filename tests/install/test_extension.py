"""The params of the Firebase extension, .env or JSON, into a plan and what became of each."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.errors import TowpathError
from towpath.install.extension import ANONYMOUS, Imported, read, translate
from towpath.install.firebase import Firebase

ENV = """\
# made by firebase ext:export
LOCATION=us-central1
SITE_ID="site"
export API_KEY=projects/123456/secrets/ext-sync-customerio-API_KEY/versions/latest
REGION=eu
USERS_COLLECTION=users

firebaseextensions.v1beta.function/location=us-central1
"""
PLACE = "projects/my-project/secrets/KEY"


def imported(text: str = ENV, project: str = "p", key: str = "") -> Imported:
    return translate(read(text), Firebase("firebase", project), destination="customerio", track_api_key=key)


def fates(found: Imported) -> dict[str, str]:
    return {param.name: param.fate for param in found.params}


@pytest.mark.spec("D23", "F002", "F003", "F004", "F005", "F006")
def test_the_params_become_a_source_a_destination_and_a_connection() -> None:
    found = imported()
    source, destination = found.plan.entries
    assert source.fields == {"type": "firebase", "project": "p", "collections": ["users"]}
    assert destination.fields == {
        "type": "customerio",
        "site_id": "site",
        "api_key": "${secret:customerio_track_api_key}",
        "region": "eu",
    }
    assert found.plan.connections == [{"from": "firebase", "to": ["customerio"]}]
    assert fates(found) == {
        "LOCATION": "ignored",
        "SITE_ID": "mapped",
        "API_KEY": "to set",
        "REGION": "changed",
        "USERS_COLLECTION": "mapped",
        "firebaseextensions.v1beta.function/location": "ignored",
    }
    assert ANONYMOUS in found.plan.notes


@pytest.mark.spec("F004", "D08")
def test_the_place_of_a_secret_is_not_its_value() -> None:
    found = imported()
    assert (found.plan.missing, found.plan.secrets) == (["customerio_track_api_key"], {})
    [key] = [param for param in found.params if param.name == "API_KEY"]
    assert "towpath secrets set customerio_track_api_key" in key.about
    assert "ext-sync-customerio-API_KEY" in key.about
    given = imported(key="real-key")
    assert (given.plan.missing, given.plan.secrets) == ([], {"customerio_track_api_key": "real-key"})
    assert fates(given)["API_KEY"] == "mapped"
    assert "real-key" not in str(given.params) + str([entry.fields for entry in given.plan.entries])


def test_a_key_in_the_params_is_kept_encrypted() -> None:
    found = imported("SITE_ID=s\nAPI_KEY=plain-key\n")
    assert found.plan.secrets == {"customerio_track_api_key": "plain-key"}
    assert "plain-key" not in str(found.params)


def test_a_key_that_is_missing_altogether_is_to_be_set() -> None:
    assert fates(imported("SITE_ID=s\n")) == {"SITE_ID": "mapped", "API_KEY": "to set"}


@pytest.mark.spec("F006", "F007")
@pytest.mark.parametrize("collection", ["_unconfigured_", "", "  "])
def test_no_collection_is_authentication_alone(collection: str) -> None:
    found = imported(f"SITE_ID=s\nAPI_KEY=k\nUSERS_COLLECTION={collection}\n")
    assert "collections" not in found.plan.entries[0].fields
    assert fates(found)["USERS_COLLECTION"] == "mapped"


@pytest.mark.spec("F005")
@pytest.mark.parametrize(
    ("region", "written", "fate"),
    [("us", "us", "mapped"), ("eu", "eu", "changed"), ("asia", "auto", "changed"), ("EU", "eu", "changed")],
)
def test_the_region_is_honoured(region: str, written: str, fate: str) -> None:
    found = imported(f"SITE_ID=s\nAPI_KEY=k\nREGION={region}\n")
    assert found.plan.entries[1].fields["region"] == written
    assert fates(found)["REGION"] == fate


@pytest.mark.parametrize(
    ("text", "project", "known"),
    [
        (f"SITE_ID=s\nAPI_KEY={PLACE}\n", "", "my-project"),
        (f"SITE_ID=s\nAPI_KEY={PLACE}\nPROJECT_ID=other\n", "", "other"),
        (f"SITE_ID=s\nAPI_KEY={PLACE}\nPROJECT_ID=other\n", "said", "said"),
    ],
)
def test_the_project_is_found(text: str, project: str, known: str) -> None:
    assert imported(text, project).plan.entries[0].fields["project"] == known


def test_the_number_of_a_project_is_not_its_id() -> None:
    with pytest.raises(TowpathError) as refused:
        imported(project="")
    assert "--project" in refused.value.fix


@pytest.mark.spec("D23")
@pytest.mark.parametrize("outer", [(), ("params",), ("config", "params")])
def test_json_is_read_at_every_depth_firebase_writes_it(outer: tuple[str, ...]) -> None:
    params: object = {"SITE_ID": "s", "API_KEY": "k", "REGION": "us", "nested": {"x": 1}}
    for name in reversed(outer):
        params = {name: params, "systemParams": {}}
    found = imported(json.dumps(params))
    assert found.plan.entries[1].fields["site_id"] == "s"
    assert set(fates(found)) == {"SITE_ID", "API_KEY", "REGION"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "LOCATION=us-central1\n", '{"params": []}', '{"SITE_ID": null']
)
def test_what_is_not_of_this_extension_is_refused(text: str) -> None:
    with pytest.raises(TowpathError) as refused:
        read(text)
    assert refused.value.code == "E2410"
    assert "sync-customerio.env" in refused.value.fix


NAMES = st.sampled_from(["SITE_ID", "API_KEY", "REGION", "USERS_COLLECTION", "PROJECT_ID", "LOCATION", "X"])
ANYTHING = st.text(max_size=30) | st.sampled_from([PLACE, "projects//secrets/", "eu", "'", '"', "=", ""])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NAMES, ANYTHING), max_size=8), st.booleans())
def test_any_params_are_translated_or_refused(pairs: list[tuple[str, str]], as_json: bool) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in pairs)
    found: Imported | None = None
    with suppress(TowpathError):
        found = imported(json.dumps(dict(pairs)) if as_json else lines)
    if found is None:
        return
    assert {param.name for param in found.params} >= {"SITE_ID", "API_KEY"}
    assert bool(found.plan.missing) != bool(found.plan.secrets)
