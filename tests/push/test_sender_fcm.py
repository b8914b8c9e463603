"""The sender and the simulated FCM over TLS and HTTP/2: nothing lost, nothing twice, the right verdicts."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from towpath.clock import SystemClock
from towpath.http import Http
from towpath.push.sender import Account, Sender
from towpath.push.verdict import Verdict
from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.fcm_state import Switches
from towpath.sandbox.http2 import Http2Server, serve_http2
from towpath.sandbox.http2_certificate import Certificate
from towpath.sandbox.serve import serve
from towpath.transport import PyreqwestTransport
from towpath.transport_http2 import Http2Transport

pytestmark = pytest.mark.spec("P053", "P060")
CERTIFICATE = Certificate.fresh()
AUTHORITY = CERTIFICATE.authority.encode()
SHORT_S = 2.0


class World:
    """A simulated FCM, served over TLS and HTTP/2, and a sender with a key for it."""

    def __init__(self, fcm: FcmSimulator, server: Http2Server, sender: Sender) -> None:
        self.fcm = fcm
        self.server = server
        self.sender = sender

    async def send(self, address: str, *, attempt: int = 1) -> Verdict:
        message = {"token": address, "notification": {"title": "Hello"}}
        return await self.sender.send(json.dumps({"message": message}).encode(), attempt=attempt)

    async def kinds(self, *addresses: str) -> Counter[str]:
        return Counter(verdict.kind for verdict in await asyncio.gather(*map(self.send, addresses)))


def key(fcm: FcmSimulator, url: str) -> str:
    """A key file for the simulator at this address; its sign-in is addressed there."""
    fcm.tokens.audiences.add(f"{url}/token")
    return fcm.account(url)


@asynccontextmanager
async def world(
    fcm: FcmSimulator | None = None, *, timeout_s: float = 20.0, rate_per_s: float = 10_000.0
) -> AsyncIterator[World]:
    fcm = fcm or FcmSimulator()
    async with serve_http2(fcm, certificate=CERTIFICATE) as server:
        account = Account(
            key(fcm, server.url), url=server.url, rate_per_s=rate_per_s, ramp_s=0.0, timeout_s=timeout_s
        )
        door = PyreqwestTransport(root_certificate=AUTHORITY)
        clock = SystemClock()
        sender = Sender(
            account,
            Http(door, clock),
            clock,
            connect=lambda rate: Http2Transport(rate, root_certificate=AUTHORITY),
        )
        try:
            yield World(fcm, server, sender)
        finally:
            await sender.close()
            await door.close()


@pytest.mark.spec("P012", "P014")
async def test_each_fate_of_an_address_has_its_verdict() -> None:
    async with world() as there:
        found = {
            name: (await there.send(f"{name}-1")).kind for name in ("ok", "gone", "bad", "other", "apns")
        }
    assert found == {
        "ok": "accepted",
        "gone": "unregistered",
        "bad": "invalid_token",
        "other": "mismatch",
        "apns": "platform_misconfigured",
    }


@pytest.mark.spec("P012", "P013")
@pytest.mark.parametrize(
    ("shape", "kind"), [("plain", "invalid_token"), ("current", "invalid_token"), ("older", "wrong_message")]
)
async def test_only_fcms_own_sentence_of_the_token_counts(shape: str, kind: str) -> None:
    async with world(FcmSimulator(switches=Switches(address_error=shape))) as there:  # type: ignore[arg-type]
        assert (await there.send("bad-1")).kind == kind


@pytest.mark.spec("P013")
@pytest.mark.parametrize(
    "message",
    [
        {"token": "ok-1", "nonsense": 1},
        {"token": "ok-1", "data": {"total": 12}},
        {"token": "ok-1", "data": {"from": "me"}},
        {"token": "ok-1", "data": {"text": "x" * 5000}},
        {"notification": {"title": "to nobody"}},
    ],
)
async def test_a_wrong_message_is_no_dead_address(message: dict[str, object]) -> None:
    async with world() as there:
        verdict = await there.sender.send(json.dumps({"message": message}).encode())
    assert verdict.kind == "wrong_message"
    assert verdict.after_s is None


async def test_a_platform_told_in_the_words_of_a_missing_sign_in_renews_none() -> None:
    async with world(FcmSimulator(switches=Switches(gateway_words=True))) as there:
        assert (await there.send("apns-1")).kind == "platform_misconfigured"
        assert there.fcm.tokens.issued == 1


@pytest.mark.spec("P051")
async def test_goaways_and_refusals_in_mid_flight_lose_nothing_and_send_nothing_twice() -> None:
    addresses = [f"away-{number}" if number % 100 == 50 else f"ok-{number}" for number in range(400)]
    addresses += [f"refused-{number}" for number in range(10)]
    async with world() as there:
        assert await there.kinds(*addresses) == {"accepted": 410}
        assert there.fcm.state.repeated() == {}
        assert len(there.fcm.state.accepted) == 410
        assert there.server.opened > 4


async def test_what_gets_no_answer_is_unknown_and_the_others_are_accepted() -> None:
    addresses = [f"ok-{number}" for number in range(40)]
    async with world(timeout_s=SHORT_S) as there:
        await there.send("ok-first")
        found = await there.kinds("hang-1", "reset-1", *addresses)
        assert found == {"unknown": 2, "accepted": 40}
        assert await there.kinds("hang-1", "reset-1") == {"accepted": 2}


@pytest.mark.parametrize("wish", ["7", ""])
async def test_a_quota_pauses_the_project(wish: str) -> None:
    async with world(FcmSimulator(switches=Switches(retry_after=wish))) as there:
        verdict = await there.send("quota-1")
        assert (verdict.kind, verdict.code, verdict.status) == ("throttled", "QUOTA_EXCEEDED", 429)
        assert verdict.after_s == float(wish or 60)
        waiting = asyncio.create_task(there.send("ok-1"))
        assert 0 < there.sender.pace.paused_s <= float(wish or 60)
        there.sender.pace.lift()
        assert (await waiting).kind == "accepted"
        assert (await there.send("quota-1")).kind == "accepted"


async def test_the_projects_quota_is_met_by_all() -> None:
    async with world(FcmSimulator(quota_per_min=20)) as there:
        found = await there.kinds(*(f"ok-{number}" for number in range(60)))
        assert (found["accepted"], found["throttled"]) == (20, 40)
        assert there.sender.pace.paused_s > 0


async def test_one_devices_quota_keeps_nobody_else_waiting() -> None:
    async with world(FcmSimulator(device_per_min=1)) as there:
        assert (await there.send("ok-1")).kind == "accepted"
        verdict = await there.send("ok-1")
        assert (verdict.kind, verdict.code, verdict.status) == ("device_throttled", "QUOTA_EXCEEDED", 429)
        assert (verdict.after_s or 0.0) >= 10
        later = await there.send("ok-1", attempt=6)
        assert (later.after_s or 0.0) >= 320, "it grows with the attempts"
        assert there.sender.pace.paused_s == 0
        assert (await there.send("ok-2")).kind == "accepted"
        assert there.sender.health.counts == {"accepted": 2, "device_throttled": 2}
        assert there.sender.health.failed_share == 0


async def test_an_outage_is_told_for_each_message_alone() -> None:
    async with world() as there:
        busy, error = await there.send("busy2-1"), await there.send("error-1")
        assert {busy.kind, error.kind} == {"unavailable"}
        assert min(busy.after_s or 0.0, error.after_s or 0.0) >= 10
        assert await there.kinds("busy2-1", "ok-1", "error-1") == {"unavailable": 1, "accepted": 2}
        assert there.sender.health.counts == {"unavailable": 3, "accepted": 2}


@pytest.mark.spec("P052")
async def test_tokens_revoked_in_mid_flight_are_renewed_once_and_nothing_is_lost() -> None:
    async with world() as there:
        assert await there.kinds(*(f"ok-{number}" for number in range(100))) == {"accepted": 100}
        there.fcm.tokens.revoke()
        assert await there.kinds(*(f"ok-{number}" for number in range(100, 300))) == {"accepted": 200}
        assert there.fcm.tokens.issued == 2
        assert there.fcm.state.repeated() == {}


@pytest.mark.spec("P052")
async def test_a_revoked_key_is_misconfigured() -> None:
    async with world() as there:
        there.fcm.tokens.key_revoked = True
        verdict = await there.send("ok-1")
        assert (verdict.kind, verdict.code) == ("misconfigured", "SIGN_IN")
        assert "create a new one" in verdict.detail


async def test_a_project_that_is_none_or_anothers_is_misconfigured() -> None:
    fcm = FcmSimulator()
    async with serve(fcm) as url:
        for project, status in (("no-such-project", 404), ("elsewhere-project", 403)):
            clock, door = SystemClock(), PyreqwestTransport()
            account = Account(key(fcm, url), project, url, ramp_s=0.0)
            sender = Sender(account, Http(door, clock), clock)
            verdict = await sender.send(b'{"message":{"token":"ok-1"}}')
            assert (verdict.kind, verdict.status) == ("misconfigured", status)
            await sender.close()
            await door.close()


@pytest.mark.spec("P054")
async def test_the_pace_is_kept_on_the_wire() -> None:
    """A tenth of a second's worth at once, then the rate: 100 messages at 90 a second take about a second."""
    async with world(rate_per_s=100) as there:
        began = there.fcm.clock.now()
        assert await there.kinds(*(f"ok-{number}" for number in range(100))) == {"accepted": 100}
        assert there.fcm.state.accepted[-1].at - began > 0.9
        assert there.server.opened == 2  # one of them for the sign-in, over HTTP/1.1


async def test_an_unreachable_fcm_is_unavailable_and_nothing_was_sent() -> None:
    async with world() as there:
        assert (await there.send("ok-1")).kind == "accepted"
        clock, door = SystemClock(), PyreqwestTransport(root_certificate=AUTHORITY)
        account = key(there.fcm, there.server.url)
        sender = Sender(Account(account, url="https://127.0.0.1:9"), Http(door, clock), clock)
        verdict = await sender.send(b'{"message":{"token":"ok-2"}}')
        assert (verdict.kind, verdict.code) == ("unavailable", "NOT_SENT")
        assert (verdict.after_s or 0.0) >= 10
        await sender.close()
        await door.close()
