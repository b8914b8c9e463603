"""Inputs of our own with the output of the real product, translated from Track v1 to the v2 that we write."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from pydantic import ValidationError

from towpath.destinations.customerio import CustomerIo
from towpath.outcome import Delivered, Rejected

from .customerio_world import RECEIVED, REGION, REGION_EU, World, json_of, message

VECTORS = msgspec.json.decode((Path(__file__).parent / "vectors" / "customerio.json").read_bytes())
BY_NAME = {vector["name"]: vector for vector in VECTORS}
RECEIPT = int(RECEIVED)


def of_person(action: str, user: str = "u1", **more: Any) -> dict[str, Any]:
    return {"type": "person", "action": action, "identifiers": {"id": user}, **more}


# Where the real output is a defect: what the README's text after the colon asks for.
OURS: dict[str, dict[str, Any]] = {
    "id basic": of_person(
        "identify",
        attributes={
            "email": "a@b.c",
            "address": {"city": "X", "street": "s"},
            "a.b": 1,
            "c.d.e": 2,
            "id": "inner",
            "created_at": 1577934245,
            "anonymous_id": "an",
        },
        timestamp=1704067200,
    ),
    "id bad createdAt": of_person("identify", attributes={}, timestamp=RECEIPT),
    "id numeric createdAt secs": of_person(
        "identify", attributes={"created_at": 1577934245}, timestamp=RECEIPT
    ),
    "screen ev": of_person("screen", "u", name="Main", timestamp=RECEIPT, attributes={"name": "P"}),
    "device no timestamp": of_person(
        "add_device", device={"token": "tok", "platform": "ios", "last_used": RECEIPT}
    ),
}
REJECTED = {"track noid", "device uninstall no token", "group bad action", "group none"}
NO_CONFIG = {"no cfg"}
EQUAL = set(BY_NAME) - set(OURS) - REJECTED - NO_CONFIG


def world_of(vector: dict[str, Any]) -> World:
    """A Customer.io of the vector's datacenter."""
    europe = vector["settings"].get("datacenter") == "EU"
    given = {{"siteID": "site_id", "apiKey": "api_key"}.get(k, k): v for k, v in vector["settings"].items()}
    return World(REGION_EU if europe else REGION, **given)


def in_v2(request: dict[str, Any]) -> dict[str, Any]:
    """A v1 request as the v2 item that does the same, as the vectors' README says."""
    path = unquote(request["url"].split("/api/", 1)[1]).split("/", 3)
    body = dict(request["json"] or {})
    user = path[2]
    if len(path) == 3:
        timestamp = {"timestamp": body.pop("_timestamp")} if "_timestamp" in body else {}
        return of_person("identify", user, attributes=body, **timestamp)
    if path[3] == "events":
        data = {"attributes": body.pop("data")} if "data" in body else {}
        return of_person(body.pop("type"), user, **body, **data)
    if path[3] == "devices":
        device = body["device"]
        named = {"token": device.pop("id")}
        named |= {name: device.pop(name) for name in ("platform", "last_used")}
        return of_person("add_device", user, device={**named, "attributes": device})
    return of_person("delete_device", user, device={"token": path[3].removeprefix("devices/")})


def compared(item: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """An item without what the real one does not send: our dedup id, and the time where it sent none."""
    kept = {name: value for name, value in item.items() if name != "id"}
    if "timestamp" not in expected:
        assert kept.pop("timestamp", RECEIPT) == RECEIPT
    return kept


async def delivered(name: str) -> tuple[str, dict[str, Any]]:
    world = world_of(BY_NAME[name])
    assert await world.deliver(message(BY_NAME[name]["message"])) == Delivered(200)
    (request,) = world.sent
    return request.url, json_of(request)


def test_every_vector_is_used() -> None:
    assert len(VECTORS) == len(BY_NAME) == 17
    assert len(EQUAL) + len(OURS) + len(REJECTED) + len(NO_CONFIG) == 17


@pytest.mark.spec("C060", "C061", "C063", "C114", "C121", "C122")
@pytest.mark.parametrize("name", sorted(EQUAL))
async def test_same_meaning_as_the_real_one(name: str) -> None:
    assert BY_NAME[name]["quirk"] is None
    (request,) = BY_NAME[name]["expected"]["requests"]
    url, item = await delivered(name)
    expected = in_v2(request)
    assert compared(item, expected) == expected
    assert url.split("/api/")[0] == request["url"].split("/api/")[0]
    assert url.endswith("/api/v2/entity")


@pytest.mark.spec("C060", "C120", "C121")
@pytest.mark.parametrize("name", sorted(OURS))
async def test_a_better_request_where_the_real_one_is_defective(name: str) -> None:
    assert BY_NAME[name]["quirk"]
    _, item = await delivered(name)
    item.pop("id", None)
    assert item == OURS[name]


@pytest.mark.spec("C121")
@pytest.mark.parametrize("name", sorted(REJECTED))
def test_rejected_before_any_request(name: str) -> None:
    verdict = world_of(BY_NAME[name]).destination.prepare(message(BY_NAME[name]["message"]))
    assert isinstance(verdict, Rejected)
    assert verdict.reason


@pytest.mark.spec("C111")
@pytest.mark.parametrize("name", sorted(NO_CONFIG))
def test_a_missing_key_is_an_error_of_the_configuration(name: str) -> None:
    with pytest.raises(ValidationError, match="site_id"):
        CustomerIo.Settings.model_validate(BY_NAME[name]["settings"])
