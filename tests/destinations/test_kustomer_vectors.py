"""Inputs of our own with the output of the real product, and ours where the real one has a defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from towpath.destination import Payload
from towpath.http import Reply, Request, TransportError
from towpath.outcome import Delivered, Rejected, Retry, Skipped

from .kustomer_world import TRACKED, World, answer, json_of, message

VECTORS = msgspec.json.decode((Path(__file__).parent / "vectors" / "kustomer.json").read_bytes())
BY_NAME = {vector["name"]: vector for vector in VECTORS}


def tracked(event: dict[str, Any], external_id: str = "u1") -> dict[str, Any]:
    body = {"identity": {"externalId": external_id}, "event": event}
    return {"method": "POST", "url": TRACKED, "json": body}


def put(url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"method": "PUT", "url": url, "json": body}


def post(body: dict[str, Any]) -> dict[str, Any]:
    return {"method": "POST", "url": "https://api.kustomerapp.com/v1/customers", "json": body}


EMAIL = [{"type": "home", "email": "a@b.c"}]
# Where the real output is a defect: what the requirement asks for instead.
OURS: dict[str, dict[str, Any]] = {
    "iso year string": tracked(
        {
            "name": "E-v",
            "meta": {
                "year": "2020",
                "ym": "2020-01",
                "dAt": "2020-01-02",
                "dtAt": "2020-01-02T10:11",
                "dtsAt": "2020-01-02T10:11:12",
                "dtfAt": "2020-01-02T10:11:12.1234+05:30",
                "sp": "2020-01-02 10:11:12",
                "lowAt": "2020-01-02t10:11:12z",
                "bad": "9999-99-99",
                "five": "20200",
            },
        }
    ),
    "array coerced to date": tracked(
        {
            "name": "E-v",
            "meta": {
                "arr": '"2020"',
                "arr2": '"2020","2021"',
                "empty": "",
                "eo": "{}",
                "nul": None,
                "es": "",
                "zeroNum": 0,
                "negNum": -1.5,
                "f": "false",
            },
        }
    ),
    # K027 wins over "as given": the name pattern has none of these characters.
    "page name amp": tracked({"name": "Web-Page-Viewed-Foo-Bar-x-it-s", "meta": {"url": "http://x"}}),
    "disable only": tracked({"name": "E v", "meta": {"x": 1}}),
    "identity email from externalId": tracked({"name": "E v", "meta": {"x": 1}}),
    "id EU found": put(
        "https://api.prod2.kustomerapp.com/v1/customers/X?replace=false",
        {"externalId": "u1", "emails": EMAIL},
    ),
    "id extid no email": put(
        "https://api.kustomerapp.com/v1/customers/KID?replace=false", {"name": "N", "externalId": "u1"}
    ),
    "id company obj noname": post({"externalId": "u1"}),
    "id context traits": post(
        {"name": "CT", "externalId": "an", "emails": [{"type": "home", "email": "c@c"}]}
    ),
}
REJECTED = {
    *("event number", "event 0", "event spaces only", "props is string", "no user", "no type"),
    *("id no ids", "id no ids at all"),
}
# K027 wins over these vectors in advanced mode: Kustomer refuses a name of one letter.
TOO_SHORT = {"type upper", "anon only", "userId from traits", "userId numeric"}
RETRIED = {"id 200 no id", "id refused", "id aborted", "id notfound dns"}
SKIPPED = {"alias"}
EQUAL = set(BY_NAME) - set(OURS) - REJECTED - TOO_SHORT - RETRIED - SKIPPED


def world_of(vector: dict[str, Any]) -> World:
    """A Kustomer that gives the vector's answers to the look-ups, and takes every write."""
    given = {"advancedTransform": False, **vector["settings"]}
    given["api_key"] = given.pop("apiKey")
    answers = {unquote(look_up["url"]): look_up["answer"] for look_up in vector["lookups"]}

    def reply(request: Request) -> Reply:
        if request.method != "GET":
            return answer(201, {})
        found = answers[unquote(request.url)]
        if "network_error" in found:
            raise TransportError(found["network_error"], sent=False)
        return answer(found["status"], found.get("json"))

    return World(("*", "*", reply), **given)


def sent(request: Request) -> dict[str, Any]:
    return {"method": request.method, "url": unquote(request.url), "json": json_of(request)}


async def delivered(vector: dict[str, Any], fields: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Deliver the vector's message; the writes that were sent, after exactly the vector's look-ups."""
    world = world_of(vector)
    assert await world.deliver(message(fields or vector["message"])) == Delivered()
    gets = [unquote(request.url) for request in world.network.requests if request.method == "GET"]
    assert gets == [unquote(look_up["url"]) for look_up in vector["lookups"]]
    return [sent(request) for request in world.network.requests if request.method != "GET"]


def test_every_vector_is_used() -> None:
    assert len(VECTORS) == len(BY_NAME) == 37
    assert len(EQUAL) + len(OURS) + len(REJECTED | TOO_SHORT | RETRIED | SKIPPED) == 37


@pytest.mark.spec("K010", "K011", "K012", "K013", "K014", "K017", "K018", "K019", "K060", "K061", "K062")
@pytest.mark.parametrize("name", sorted(EQUAL))
async def test_same_request_as_the_real_one(name: str) -> None:
    assert BY_NAME[name]["quirk"] is None
    assert await delivered(BY_NAME[name]) == BY_NAME[name]["expected"]["requests"]


@pytest.mark.spec("K004", "K007", "K013", "K027", "K034", "K036", "K044", "K052", "K061")
@pytest.mark.parametrize("name", sorted(OURS))
async def test_a_better_request_where_the_real_one_is_defective(name: str) -> None:
    assert BY_NAME[name]["quirk"]
    assert await delivered(BY_NAME[name]) == [OURS[name]]


@pytest.mark.spec("K009", "K016", "K020", "K062")
@pytest.mark.parametrize("name", sorted(REJECTED))
def test_rejected_before_any_request(name: str) -> None:
    world = world_of(BY_NAME[name])
    verdict = world.destination.prepare(message(BY_NAME[name]["message"]))
    assert isinstance(verdict, Rejected)
    assert verdict.reason


@pytest.mark.spec("K027")
@pytest.mark.parametrize("name", sorted(TOO_SHORT))
async def test_a_name_of_one_letter_is_rejected_and_a_longer_one_is_as_the_real(name: str) -> None:
    vector = BY_NAME[name]
    verdict = world_of(vector).destination.prepare(message(vector["message"]))
    assert isinstance(verdict, Rejected)
    assert "one or more" in verdict.reason
    expected = msgspec.json.decode(msgspec.json.encode(vector["expected"]["requests"]))
    expected[0]["json"]["event"]["name"] = "xy"
    identity = expected[0]["json"]["identity"]
    identity["externalId"] = str(identity["externalId"])  # ids are strings here, also numeric ones
    assert await delivered(vector, {**vector["message"], "event": "xy"}) == expected


@pytest.mark.spec("K062", "K064")
@pytest.mark.parametrize("name", sorted(RETRIED))
async def test_a_failed_look_up_is_retried_at_delivery(name: str) -> None:
    world = world_of(BY_NAME[name])
    outcome = await world.deliver(message(BY_NAME[name]["message"]))
    assert isinstance(outcome, Retry)
    assert [request.method for request in world.network.requests] == ["GET"]


@pytest.mark.spec("K010")
@pytest.mark.parametrize("name", sorted(SKIPPED))
def test_skipped_as_unsupported(name: str) -> None:
    verdict = world_of(BY_NAME[name]).destination.prepare(message(BY_NAME[name]["message"]))
    assert isinstance(verdict, Skipped)
    assert verdict.reason == "unsupported"
    assert "alias is not supported" in verdict.detail


def test_payloads_say_which_capability_they_need() -> None:
    for vector in VECTORS:
        payload = world_of(vector).destination.prepare(message(vector["message"]))
        if isinstance(payload, Payload):
            assert payload.capability == (
                "customers" if vector["message"]["type"] == "identify" else "tracking"
            )
