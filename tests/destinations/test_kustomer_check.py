"""Settings, limits, and what `check` says about a key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from towpath.destination import Check
from towpath.destinations.kustomer import ROLES, Kustomer

from .kustomer_world import World, answer, kustomer

CURRENT = "/v1/auth/tokens/current"


async def lines(status: int = 200, json: Any = None) -> dict[str, Check]:
    world = World(("GET", CURRENT, answer(status, json)))
    found = {line.name: line for line in await world.destination.check(world.scope)}
    assert world.calls() == [f"GET {CURRENT}"]
    return found


def roles(*names: Any) -> dict[str, Any]:
    return {"data": {"type": "auth_token", "attributes": {"roles": list(names)}}}


@pytest.mark.spec("K001", "K002", "K003", "K004", "K005", "K006", "K007", "K066")
def test_defaults() -> None:
    settings = kustomer().settings
    assert settings.advanced_transform
    assert settings.base_url == "https://api.kustomerapp.com"
    assert settings.rate == 300
    assert settings.keep_company
    assert not settings.set_identity_email
    assert not settings.disable_email_as_tracking_property
    assert not settings.generic_page
    assert not settings.generic_screen
    assert not settings.lookup_phone


@pytest.mark.spec("K001", "K002", "K003", "K004", "K005", "K006", "K007")
def test_rudderstacks_spelling_works() -> None:
    settings = Kustomer.Settings.model_validate(
        {
            "apiKey": " k\n",
            "advancedTransform": False,
            "setIdentityEmail": True,
            "disableEmailAsTrackingProperty": True,
            "genericPage": True,
            "genericScreen": True,
            "baseEndpoint": "https://api.prod2.kustomerapp.com",
        }
    )
    assert settings.api_key.get_secret_value() == "k"
    assert settings.base_url == "https://api.prod2.kustomerapp.com"
    assert not settings.advanced_transform
    assert settings.set_identity_email
    assert settings.disable_email_as_tracking_property
    assert settings.generic_page
    assert settings.generic_screen


@pytest.mark.spec("K001")
@pytest.mark.parametrize("settings", [{}, {"api_key": ""}, {"api_key": "a\nb"}, {"api_key": "ключ"}])
def test_the_key_is_required(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="api_key"):
        Kustomer.Settings.model_validate(settings)


@pytest.mark.spec("K001")
def test_the_key_is_secret_and_sent_as_bearer() -> None:
    destination = kustomer()
    assert destination.headers() == {"authorization": "Bearer secret-key"}
    assert "secret-key" not in repr(destination.settings)


@pytest.mark.spec("K007")
def test_base_url() -> None:
    for given in (
        "https://acme.api.kustomerapp.com///",
        "http://127.0.0.1:9001",
        "https://proxy.example/kustomer/",
    ):
        assert kustomer(base_url=given).settings.base_url == given.rstrip("/")
    for wrong in (
        "api.kustomerapp.com",
        "ftp://x",
        "https://",
        "https://a b",
        "https://u:p@x",
        "https://x?y=1",
        "",
    ):
        with pytest.raises(ValidationError, match="http or https"):
            kustomer(base_url=wrong)


@pytest.mark.spec("K066")
def test_rate_and_limits() -> None:
    assert kustomer(rate=1000).budgets() == {"": 1000}
    assert kustomer().limits().in_flight == 16
    assert kustomer().limits().coalesce
    for wrong in (0, -1):
        with pytest.raises(ValidationError):
            kustomer(rate=wrong)


@pytest.mark.spec("K008")
def test_the_settings_help_names_the_roles() -> None:
    description = Kustomer.Settings.model_fields["api_key"].description
    assert description
    assert all(role in description for role in ROLES)


@pytest.mark.spec("K003")
def test_the_settings_help_warns_of_identity_email() -> None:
    description = Kustomer.Settings.model_fields["set_identity_email"].description
    assert description
    assert "finds or creates" in description


@pytest.mark.spec("K008")
async def test_all_roles() -> None:
    found = await lines(200, roles(*ROLES))
    assert list(found) == ["API key", *ROLES]
    assert all(line.ok for line in found.values())
    assert found["org.tracking"].capability == "tracking"
    assert [line.capability for line in found.values()].count("customers") == 3


@pytest.mark.spec("K008")
@pytest.mark.parametrize("missing", list(ROLES))
async def test_each_missing_role_is_named(missing: str) -> None:
    found = await lines(200, roles(*(role for role in ROLES if role != missing)))
    assert [line.name for line in found.values() if not line.ok] == [missing]
    assert "missing" in found[missing].detail
    assert all(role in found[missing].detail for role in ROLES)


@pytest.mark.spec("K008")
async def test_older_roles_count() -> None:
    found = await lines(200, roles("org.user.customer.write", "org.user.customer.read"))
    assert [line.name for line in found.values() if not line.ok] == ["org.tracking"]
    assert "org.user.customer.read" in found["org.permission.customer.read"].detail


@pytest.mark.spec("K008")
@pytest.mark.parametrize(
    ("given", "unsure"),
    [
        (["org"], list(ROLES)),
        (["org.permission.customer", "org.tracking"], [role for role in ROLES if role != "org.tracking"]),
        (["org.user.customer", "org.tracking"], [role for role in ROLES if role != "org.tracking"]),
    ],
)
async def test_a_parent_role_is_not_sure_but_no_failure(given: list[str], unsure: list[str]) -> None:
    found = await lines(200, roles(*given))
    assert all(line.ok for line in found.values())
    assert [line.name for line in found.values() if "not sure" in line.detail] == unsure


@pytest.mark.spec("K008")
async def test_a_role_is_no_parent_of_one_that_only_begins_alike() -> None:
    found = await lines(200, roles("org.permission.cust", "org.track", 5))
    assert [line.name for line in found.values() if not line.ok] == list(ROLES)


@pytest.mark.spec("K008")
@pytest.mark.parametrize("json", [None, {}, [], {"data": {"attributes": {"roles": "org"}}}])
async def test_an_answer_without_roles_is_not_sure(json: Any) -> None:
    found = await lines(200, json)
    assert all(line.ok for line in found.values())
    assert all("not sure" in found[role].detail for role in ROLES)


@pytest.mark.spec("K008", "K064")
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_concerns_the_whole_account(status: int) -> None:
    (line,) = (await lines(status, {"errors": [{"title": "unauthorized"}]})).values()
    assert (line.ok, line.capability) == (False, "")
    assert "org.tracking" in line.detail


@pytest.mark.spec("K007")
async def test_a_key_of_another_region_is_named() -> None:
    said = "Auth token associated with pod prod2 but request is being handled by prod1"
    (line,) = (await lines(401, {"errors": [{"message": said}]})).values()
    assert not line.ok
    assert "wrong region" in line.detail
