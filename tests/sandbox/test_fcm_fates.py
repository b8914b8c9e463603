"""What becomes of messages in the FCM simulator: scripted addresses, quotas, platforms, and the ledger."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.fcm_state import Fate, Switches
from towpath.sandbox.firebase import PROJECT
from towpath.sandbox.serve import serve

from .conftest import SetClock, until
from .fcm_calls import BAD_REQUEST, FCM_ERROR, MESSAGING, Fcm

pytestmark = pytest.mark.spec("P060", "D12")

SEND = f"/v1/projects/{PROJECT}/messages:send"


# -- verdicts ------------------------------------------------------------------------------------------


@pytest.mark.spec("P053")
@pytest.mark.parametrize(
    ("address", "status", "name", "code", "said"),
    [
        ("gone-1", 404, "NOT_FOUND", "UNREGISTERED", "Requested entity was not found."),
        ("other-1", 403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "SenderId mismatch"),
        (
            "apns-1",
            401,
            "UNAUTHENTICATED",
            "THIRD_PARTY_AUTH_ERROR",
            "Auth error from APNS or Web Push Service",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["token", "fid"])
def test_a_lasting_fate(kind: str, address: str, status: int, name: str, code: str, said: str) -> None:
    fcm = Fcm()
    for _ in range(2):
        got = fcm.send({kind: address})
        details = [{"@type": FCM_ERROR, "errorCode": code}]
        assert got.json == {"error": {"code": status, "message": said, "status": name, "details": details}}
    assert fcm.state.accepted == []


BAD_TOKEN = "The registration token is not a valid FCM registration token"
FCM_DETAIL = {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"}


def violation(said: str) -> dict[str, Any]:
    return {"@type": BAD_REQUEST, "fieldViolations": [{"field": "message.token", "description": said}]}


@pytest.mark.spec("P053")
@pytest.mark.parametrize(
    ("shape", "said", "details"),
    [
        ("current", BAD_TOKEN, [FCM_DETAIL, violation(BAD_TOKEN)]),
        ("plain", BAD_TOKEN, [FCM_DETAIL]),
        (
            "older",
            "Request contains an invalid argument.",
            [FCM_DETAIL, violation("Invalid registration token")],
        ),
    ],
)
def test_a_malformed_address(shape: Any, said: str, details: list[Any]) -> None:
    fcm = Fcm(switches=Switches(address_error=shape))
    for address in ("bad-1", "with space", "ü", "x" * 4097):
        error = fcm.to(address).error
        assert error == {"code": 400, "message": said, "status": "INVALID_ARGUMENT", "details": details}


@pytest.mark.spec("P053")
@pytest.mark.parametrize(
    ("prefix", "status", "code"),
    [("quota", 429, "QUOTA_EXCEEDED"), ("busy", 503, "UNAVAILABLE"), ("error", 500, "INTERNAL")],
)
def test_a_passing_fate_strikes_once_or_as_often_as_named(prefix: str, status: int, code: str) -> None:
    fcm = Fcm()
    once = [fcm.to(f"{prefix}-a") for _ in range(2)]
    assert [got.status for got in once] == [status, 200]
    assert once[0].code == code
    assert "retry-after" not in once[0].headers
    assert [fcm.to(f"{prefix}3-a").status for _ in range(4)] == [status, status, status, 200]
    assert [fcm.to(f"{prefix}7").status for _ in range(2)] == [status, 200], "7 without - is a name"


@pytest.mark.spec("P053")
def test_retry_after() -> None:
    fcm = Fcm(switches=Switches(retry_after="30"))
    assert [fcm.to(address).headers.get("retry-after") for address in ("quota", "busy", "error")] == [
        "30",
        "30",
        None,
    ]
    fcm.state.script("x", "busy", retry_after="7")
    assert fcm.to("x").headers["retry-after"] == "7"


def test_a_quota_is_told_as_such() -> None:
    error = Fcm().to("quota").error
    assert error["status"] == "RESOURCE_EXHAUSTED"
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.QuotaFailure"


def test_a_script_stands_before_the_name() -> None:
    fcm = Fcm()
    fcm.state.script("gone-1", "busy", 2)
    assert [fcm.to("gone-1").status for _ in range(3)] == [503, 503, 404]
    fcm.state.script("phone", "mismatch")
    assert [fcm.to("phone").status for _ in range(3)] == [403, 403, 403]
    fcm.state.script("gone-2", "ok")
    assert fcm.to("gone-2").status == 200


def test_third_party_in_other_words() -> None:
    fcm = Fcm(switches=Switches(gateway_words=True))
    got = fcm.to("apns")
    assert got.error["message"].startswith("Request is missing required authentication credential.")
    assert got.code == "THIRD_PARTY_AUTH_ERROR"


# -- addresses -----------------------------------------------------------------------------------------


def test_an_app_is_removed_and_comes_back() -> None:
    fcm = Fcm()
    fcm.state.register("phone", "android")
    assert fcm.to("phone").status == 200
    fcm.state.unregister("phone")
    assert fcm.to("phone").code == "UNREGISTERED"
    fcm.state.register("phone")
    assert fcm.to("phone").status == 200


def test_unknown_addresses_by_switch() -> None:
    assert Fcm().to("never-seen").status == 200
    fcm = Fcm(switches=Switches(unknown="unregistered"))
    fcm.state.register("phone")
    assert [fcm.to(each).status for each in ("never-seen", "phone", "ok-1")] == [404, 200, 200]


def test_a_platform_without_its_key() -> None:
    fcm = Fcm()
    fcm.state.register("iphone", "ios")
    fcm.state.register("phone", "android")
    fcm.state.broken.add("ios")
    assert [fcm.to(each).status for each in ("iphone", "phone", "unknown")] == [401, 200, 200]


def test_a_wrong_message_is_refused_before_the_address_is_looked_at() -> None:
    got = Fcm().to("gone-1", data={"from": "x"})
    assert (got.status, got.code) == (400, "INVALID_ARGUMENT")


# -- quotas --------------------------------------------------------------------------------------------


def test_the_quota_of_the_project_counts_4xx_but_not_429() -> None:
    fcm = Fcm(quota_per_min=4)
    sent = [fcm.to(address).status for address in ("ok", "gone", "ok", "bad", "ok", "ok")]
    assert sent == [200, 404, 200, 400, 429, 429]
    fcm.clock.at += 59.9
    assert fcm.to("ok").status == 429
    fcm.clock.at += 0.2
    assert [fcm.to("ok").status for _ in range(5)] == [200, 200, 200, 200, 429]


def test_the_quota_is_fcms_own_by_default() -> None:
    fcm = Fcm()
    assert [fcm.to("phone").status for _ in range(241)] == [200] * 240 + [429]
    assert fcm.to("another").status == 200


@pytest.mark.parametrize("platform", ["android", None, "ios", "web"])
def test_a_device_has_a_minute_and_an_hour(platform: Any) -> None:
    fcm = Fcm(device_per_min=3, device_per_h=5)
    fcm.state.register("phone", platform)
    first = [fcm.to("phone").status for _ in range(4)]
    fcm.clock.at += 61
    second = [fcm.to("phone").status for _ in range(4)]
    fcm.clock.at += 3540
    fcm.token = fcm.simulator.tokens.give(PROJECT, MESSAGING)
    limited = platform in {"android", None}
    assert first == ([200, 200, 200, 429] if limited else [200] * 4)
    assert second == ([200, 200, 429, 429] if limited else [200] * 4)
    assert fcm.to("phone").status == 200


# -- the ledger ----------------------------------------------------------------------------------------


def test_the_ledger_is_in_order_and_whole() -> None:
    fcm = Fcm()
    for address in ("a", "gone", "b", "a"):
        fcm.to(address, data={"n": str(len(fcm.state.accepted))})
    assert [(entry.number, entry.address) for entry in fcm.state.accepted] == [(0, "a"), (1, "b"), (2, "a")]
    assert [entry.message()["data"]["n"] for entry in fcm.state.sent_to("a")] == ["0", "2"]
    assert fcm.state.repeated() == {"a": 2}


def test_the_ledger_can_do_without_bodies() -> None:
    fcm = Fcm(keep_bodies=False)
    fcm.to("a")
    assert fcm.state.accepted[0].body == b""


@pytest.mark.spec("P055")
@pytest.mark.parametrize(
    ("platform", "mark"),
    [
        ("android", {"android": {"notification": {"tag": "c1"}}}),
        ("ios", {"apns": {"headers": {"apns-collapse-id": "c1"}}}),
        ("web", {"webpush": {"notification": {"tag": "c1"}}}),
    ],
)
def test_a_repeat_replaces_what_the_device_shows(platform: Any, mark: dict[str, Any]) -> None:
    fcm = Fcm()
    fcm.state.register("phone", platform)
    for message in (mark, mark, {}, {}):
        fcm.to("phone", **message)
    assert [entry.number for entry in fcm.state.shown("phone")] == [1, 2, 3]
    fcm.state.register("tablet", "ios" if platform != "ios" else "android")
    for _ in range(2):
        fcm.to("tablet", **mark)
    assert len(fcm.state.shown("tablet")) == 2, "another platform does not know that mark"


# -- served over HTTP/1.1 ------------------------------------------------------------------------------


async def test_it_answers_later_than_it_accepts() -> None:
    clock = SetClock()
    simulator = FcmSimulator(clock=clock, latency_s=0.06)
    token = simulator.tokens.give(PROJECT, MESSAGING)
    async with serve(simulator) as url, aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {token}"}
        async with session.post(url + SEND, json={"message": {"token": "ok"}}, headers=headers) as got:
            assert got.status == 200
    assert clock.slept == [0.06]
    assert simulator.state.accepted[0].at == clock.at - 0.06


@pytest.mark.parametrize("fate", ["reset", "refused", "away"])
async def test_without_streams_the_connection_is_cut(fate: Fate, session: aiohttp.ClientSession) -> None:
    simulator = FcmSimulator()
    headers = {"authorization": f"Bearer {simulator.tokens.give(PROJECT, MESSAGING)}"}
    message = {"message": {"token": f"{fate}-1"}}
    async with serve(simulator) as url:
        with pytest.raises(aiohttp.ClientError):
            await session.post(url + SEND, json=message, headers=headers)
        async with session.post(url + SEND, json=message, headers=headers) as got:
            assert got.status == 200
    assert [seen.status for seen in simulator.requests] == [0, 200]
    assert simulator.refusals[fate] == 1


async def test_a_hanging_message_ends_when_the_caller_leaves(session: aiohttp.ClientSession) -> None:
    simulator = FcmSimulator()
    headers = {"authorization": f"Bearer {simulator.tokens.give(PROJECT, MESSAGING)}"}
    async with serve(simulator) as url:
        call = session.post(url + SEND, json={"message": {"token": "hang"}}, headers=headers)
        waiting = asyncio.ensure_future(call.__aenter__())
        await until(lambda: simulator.requests)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert simulator.state.accepted == []


async def test_the_control_routes_and_faults(session: aiohttp.ClientSession) -> None:
    simulator = FcmSimulator(control=True)
    headers = {"authorization": f"Bearer {simulator.tokens.give(PROJECT, MESSAGING)}"}
    async with serve(simulator) as url:
        fault = json.dumps({"kind": "status", "status": 502, "body": "<html>", "person": "a", "count": 1})
        await session.post(url + "/_sandbox/faults", data=fault)
        statuses = []
        for address in ("b", "a", "a"):
            body = {"message": {"token": address}}
            async with session.post(url + SEND, json=body, headers=headers) as got:
                statuses.append(got.status)
        async with session.get(url + "/_sandbox/state") as got:
            state = await got.json()
    assert statuses == [200, 502, 200]
    assert (state["accepted"], state["faults"], state["refused"]) == (2, {"status": 1}, {})
    assert [each["token"] for each in state["newest"]] == ["b", "a"]
