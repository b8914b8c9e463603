"""The webhook receiver: signed by the reference library it accepts, altered it refuses, and it remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
from standardwebhooks import Webhook

from towpath.sandbox.serve import serve
from towpath.sandbox.sink import WebhookSink

from .conftest import Client, SetClock

pytestmark = pytest.mark.spec("D12")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = b'{"type":"track","event":"Order Completed","userId":"u-1"}'


def signed(clock: SetClock, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    moment = datetime.fromtimestamp(clock.at if at is None else at, UTC).replace(tzinfo=None)
    signature = Webhook(secret).sign("m-1", moment, BODY.decode())
    stamp = str(int(clock.at if at is None else at))
    return {"webhook-id": "m-1", "webhook-timestamp": stamp, "webhook-signature": signature}


@pytest.fixture
def sink(clock: SetClock) -> WebhookSink:
    return WebhookSink(clock=clock, secrets=[SECRET, OLD], control=True)


@pytest.fixture
async def hook(sink: WebhookSink, session: aiohttp.ClientSession) -> AsyncIterator[Client]:
    async with serve(sink) as url:
        yield Client(session, url)


@pytest.mark.parametrize("secret", [SECRET, OLD])
async def test_a_signature_of_the_reference_library_is_accepted(
    hook: Client, sink: WebhookSink, clock: SetClock, secret: str
) -> None:
    got = await hook("POST", "/any/path", data=BODY, headers=signed(clock, secret=secret))
    assert got.status == 200
    (received,) = sink.received
    assert (received.path, received.id, received.body, received.at) == ("/any/path", "m-1", BODY, clock.at)
    assert received.json()["event"] == "Order Completed"


async def test_one_of_several_signatures_is_enough(hook: Client, clock: SetClock) -> None:
    headers = signed(clock)
    headers["webhook-signature"] = f"v1a,abc v1,AAAA {headers['webhook-signature']}"
    assert (await hook("POST", "/", data=BODY, headers=headers)).status == 200


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_each_header_is_needed(hook: Client, sink: WebhookSink, clock: SetClock, missing: str) -> None:
    headers = {key: value for key, value in signed(clock).items() if key != missing}
    assert (await hook("POST", "/", data=BODY, headers=headers)).status == 401
    assert "are needed" in sink.received[0].refused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("webhook-id", "m-2"),
        ("webhook-timestamp", "1767261601"),
        ("webhook-timestamp", "1767261600.0"),
        ("webhook-timestamp", "nan"),
        ("webhook-signature", "v1,AAAA"),
        ("webhook-signature", "garbage"),
    ],
)
async def test_anything_altered_is_refused(hook: Client, clock: SetClock, key: str, value: str) -> None:
    assert (await hook("POST", "/", data=BODY, headers={**signed(clock), key: value})).status == 401


async def test_another_body_or_secret_is_refused(hook: Client, clock: SetClock) -> None:
    assert (await hook("POST", "/", data=BODY + b" ", headers=signed(clock))).status == 401
    other = signed(clock, secret="whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert (await hook("POST", "/", data=BODY, headers=other)).status == 401


@pytest.mark.parametrize(("age_s", "status"), [(300, 200), (301, 401), (-300, 200), (-301, 401)])
async def test_the_time_is_exact_to_the_second(
    hook: Client, clock: SetClock, age_s: int, status: int
) -> None:
    headers = signed(clock, at=clock.at - age_s)
    assert (await hook("POST", "/", data=BODY, headers=headers)).status == status


async def test_a_repeated_id_is_counted_refused_ones_are_not(
    hook: Client, sink: WebhookSink, clock: SetClock
) -> None:
    await hook("POST", "/", data=b"other", headers=signed(clock))
    for _ in range(3):
        await hook("POST", "/", data=BODY, headers=signed(clock))
    assert (len(sink.received), sink.duplicates) == (4, 2)


async def test_without_secrets_everything_is_taken(session: aiohttp.ClientSession) -> None:
    sink = WebhookSink(kept=2)
    async with serve(sink) as url:
        client = Client(session, url)
        for body in (b"1", b"2", b"{no json"):
            assert (await client("POST", "/", data=body)).status == 200
    assert [item.json() for item in sink.received] == [2, None]


async def test_faults_and_the_control_routes_work_here_too(
    hook: Client, sink: WebhookSink, clock: SetClock
) -> None:
    await hook("POST", "/_sandbox/faults", {"kind": "status", "status": 410, "count": 1, "person": "u-1"})
    assert (await hook("POST", "/", data=BODY, headers=signed(clock))).status == 410
    assert list(sink.met) == [("/", 410)]
    assert not sink.received
    sink.faults.add("drop_answer", count=1)
    with pytest.raises(aiohttp.ClientOSError):
        await hook("POST", "/", data=BODY, headers=signed(clock))
    state = (await hook("GET", "/_sandbox/state")).json
    assert (state["received"], state["refused"], state["newest"][0]["userId"]) == (1, 0, "u-1")
