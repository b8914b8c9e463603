"""The sender on a scripted network: sign-in, what is sent again, what pauses everybody, and what is told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from towpath.http import Http, Reply, Request, Stopping, TransportError, Unsendable, Untrusted
from towpath.push.pace import FIRST_RETRY_S, RETRY_JITTER, THROTTLED_S
from towpath.push.sender import ENOUGH_TO_JUDGE, GIVE_UP_S, TIMEOUT_S, Account, Health, Sender
from towpath.push.verdict import Verdict
from towpath.testing.fakes import Answer, FakeClock, FakeTransport
from towpath.testing.loop import LoopClock, run_virtual

from .test_verdict import APNS, BUSY, MISMATCH, OAUTH, QUOTA, UNREGISTERED, WRONG_PROJECT

pytestmark = pytest.mark.spec("P053")
PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
TOKEN_URL = "https://token.test/token"
FILE = {
    "type": "service_account",
    "project_id": "demo-push",
    "private_key_id": "k1",
    "private_key": PEM,
    "client_email": "push@demo-push.iam.gserviceaccount.com",
    "token_uri": TOKEN_URL,
}
BODY = b'{"message":{"token":"t"}}'
OK = Reply(200, {}, b'{"name":"projects/demo-push/messages/1"}')


def key(**fields: Any) -> str:
    return json.dumps({**FILE, **fields})


def granted(token: str) -> Reply:
    return Reply(200, {}, json.dumps({"access_token": token, "expires_in": 3599}).encode())


class Google:
    """The sign-in, which hands out t1, t2 …, and FCM, which answers by `answers` and then OK."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.tokens = 0
        self.network = FakeTransport(("POST", TOKEN_URL, self._grant), ("POST", "*:send", self._answer))
        self.answers: list[Answer] = []
        self.refused: set[str] = set()
        self.http = Http(self.network, self.clock)
        account = Account(**{"key": key(), "ramp_s": 0.0, **options})
        self.sender = Sender(account, self.http, self.clock, connect=lambda rate_per_s: self.network)

    @property
    def sent(self) -> list[Request]:
        return [request for request in self.network.requests if request.url != TOKEN_URL]

    async def verdict(self, *answers: Answer, attempt: int = 1) -> Verdict:
        self.answers += answers
        return await self.clock.drive(self.sender.send(BODY, attempt=attempt))

    def _grant(self, request: Request) -> Reply:
        del request
        self.tokens += 1
        return granted(f"token-{self.tokens}")

    def _answer(self, request: Request) -> Reply:
        if request.headers["authorization"].removeprefix("Bearer ") in self.refused:
            return Reply(401, {}, OAUTH)
        answer = self.answers.pop(0) if self.answers else OK
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Reply)
        return answer


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    made = Google()
    yield made
    await made.sender.close()


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text


@pytest.mark.spec("P051", "D11")
async def test_a_message_is_sent_as_it_is() -> None:
    google = Google(project="a/b", url="http://127.0.0.1:9/")
    assert await google.verdict() == Verdict("accepted", name="projects/demo-push/messages/1", status=200)
    request = google.sent[0]
    assert request.url == "http://127.0.0.1:9/v1/projects/a%2Fb/messages:send"
    assert (request.method, request.body) == ("POST", BODY)
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("towpath/")


async def test_the_project_is_the_keys_own(google: Google) -> None:
    assert google.sender.project == "demo-push"
    assert await google.verdict() != Verdict("unknown")
    assert google.sent[0].url == "https://fcm.googleapis.com/v1/projects/demo-push/messages:send"


def test_a_key_without_a_project_asks_for_one() -> None:
    with pytest.raises(ValueError, match="set `project`"):
        Google(key=key(project_id=""))


@pytest.mark.spec("P052")
class TestSigningIn:
    """OAuth2: one sign-in for all, renewed before its end and when FCM refuses it."""

    async def test_a_thousand_messages_need_one(self, google: Google) -> None:
        await google.clock.drive(_all(google.sender.send(BODY) for _ in range(1000)))
        assert (google.tokens, len(google.sent)) == (1, 1000)

    async def test_it_is_renewed_before_its_end(self, google: Google) -> None:
        await google.verdict()
        await google.clock.advance(3400)
        await google.clock.drive(_all(google.sender.send(BODY) for _ in range(10)))
        assert google.tokens == 2
        assert {request.headers["authorization"] for request in google.sent[1:]} == {"Bearer token-2"}

    async def test_one_that_fcm_refuses_is_renewed_once_and_the_message_sent_again(
        self, google: Google
    ) -> None:
        google.refused = {"token-1"}
        assert (await google.verdict()).kind == "accepted"
        assert (google.tokens, len(google.sent)) == (2, 2)

    async def test_many_refused_at_once_renew_it_once(self, google: Google) -> None:
        google.refused = {"token-1"}
        verdicts = await google.clock.drive(_all(google.sender.send(BODY) for _ in range(100)))
        assert {verdict.kind for verdict in verdicts} == {"accepted"}
        assert google.tokens == 2

    async def test_a_late_refusal_of_an_old_one_renews_none(self, google: Google) -> None:
        answered = asyncio.Event()

        async def late(request: Request) -> Reply:
            await answered.wait()
            return google._answer(request)

        google.network.on("POST", "*:send", late)
        first = asyncio.create_task(google.sender.send(BODY))
        await google.clock.advance(3400)
        google.network.on("POST", "*:send", google._answer)
        assert (await google.verdict()).kind == "accepted"
        google.refused = {"token-1"}
        answered.set()
        assert (await first).kind == "accepted"
        assert google.tokens == 2

    async def test_where_the_new_one_is_refused_too_it_is_not_asked_for_again(self, google: Google) -> None:
        google.refused = {"token-1", "token-2", "token-3"}
        for _ in range(5):
            verdict = await google.verdict()
            assert (verdict.kind, verdict.status, verdict.after_s) == ("misconfigured", 401, None)
        assert (google.tokens, len(google.sent)) == (2, 6)
        await google.clock.advance(60)
        await google.verdict()
        assert google.tokens == 3

    @pytest.mark.parametrize(
        "answer", [Reply(401, {}, APNS), Reply(403, {}, MISMATCH), Reply(404, {}, WRONG_PROJECT)]
    )
    async def test_other_refusals_do_not_renew_it(self, google: Google, answer: Reply) -> None:
        await google.verdict(answer)
        assert (google.tokens, len(google.sent)) == (1, 1)

    async def test_a_refused_key_is_misconfigured_and_asked_for_once_in_a_while(self, google: Google) -> None:
        answer = Reply(400, {}, b'{"error":"invalid_grant","error_description":"Invalid JWT Signature."}')

        async def refuse(request: Request) -> Reply:
            await google.clock.sleep(1)
            return answer

        google.network.on("POST", TOKEN_URL, refuse)
        verdicts = await google.clock.drive(_all(google.sender.send(BODY) for _ in range(50)))
        assert {(verdict.kind, verdict.code) for verdict in verdicts} == {("misconfigured", "SIGN_IN")}
        assert "the key was revoked" in verdicts[0].detail
        assert len(google.network.requests) == 1
        google.network.on("POST", TOKEN_URL, google._grant)
        await google.clock.advance(10)
        assert (await google.verdict()).kind == "accepted"

    async def test_a_sign_in_out_of_reach_is_unavailable(self, google: Google) -> None:
        google.network.on("POST", TOKEN_URL, TransportError("no route", sent=False))
        verdict = await google.verdict()
        assert (verdict.kind, verdict.code) == ("unavailable", "SIGN_IN")
        assert (verdict.after_s or 0.0) >= FIRST_RETRY_S
        assert google.sent == []

    async def test_while_one_looks_the_others_go_on(self, google: Google) -> None:
        await google.verdict()
        opened = asyncio.Event()

        async def slowly(request: Request) -> Reply:
            await opened.wait()
            return google._grant(request)

        google.network.on("POST", TOKEN_URL, slowly)
        await google.clock.advance(3400)
        first = asyncio.create_task(google.sender.send(BODY))
        await google.clock.advance(0.1)
        assert (await google.verdict()).kind == "accepted"
        assert not first.done()
        opened.set()
        assert (await first).kind == "accepted"

    async def test_a_sign_in_that_was_broken_off_is_begun_anew(self, google: Google) -> None:
        google.network.on("POST", TOKEN_URL, _hang)
        broken = asyncio.create_task(google.sender.send(BODY))
        await google.clock.advance(0.1)
        broken.cancel()
        await asyncio.gather(broken, return_exceptions=True)
        google.network.on("POST", TOKEN_URL, google._grant)
        assert (await google.verdict()).kind == "accepted"


class TestTryingAgain:
    """What may be tried again says when, and a 429 holds for the whole project."""

    @pytest.mark.parametrize(("wish", "pause_s"), [({"retry-after": "7"}, 7.0), ({}, THROTTLED_S)])
    async def test_too_much_pauses_the_whole_project(
        self, google: Google, wish: dict[str, str], pause_s: float
    ) -> None:
        verdict = await google.verdict(Reply(429, wish, QUOTA))
        assert (verdict.kind, verdict.after_s) == ("throttled", pause_s)
        assert google.sender.pace.paused_s == pytest.approx(pause_s)
        others = [asyncio.create_task(google.sender.send(BODY)) for _ in range(5)]
        await google.clock.advance(pause_s - 1)
        assert len(google.sent) == 1
        await google.clock.advance(3)
        assert [task.done() for task in others] == [True] * 5

    @pytest.mark.parametrize("answer", [Reply(503, {}, BUSY), Reply(500), Reply(502, {}, b"<html>")])
    async def test_an_outage_waits_ten_seconds_at_least_and_pauses_nobody(
        self, google: Google, answer: Reply
    ) -> None:
        verdict = await google.verdict(answer)
        assert verdict.kind == "unavailable"
        assert FIRST_RETRY_S <= (verdict.after_s or 0) <= FIRST_RETRY_S * (1 + RETRY_JITTER)
        assert google.sender.pace.paused_s == 0

    async def test_waits_grow_with_the_attempts_and_heed_a_longer_wish(self, google: Google) -> None:
        third = await google.verdict(Reply(503, {"retry-after": "1"}, BUSY), attempt=3)
        assert 40 <= (third.after_s or 0) <= 60
        wished = await google.verdict(Reply(503, {"retry-after": "300"}, BUSY))
        assert wished.after_s == 300

    @pytest.mark.parametrize(
        ("error", "kind", "code"),
        [
            (TransportError("connection refused", sent=False), "unavailable", "NOT_SENT"),
            (TransportError("no complete answer within 15 s", sent=True), "unknown", "NO_ANSWER"),
            (Unsendable("refused: fcm.test is called over https only"), "misconfigured", "UNSENDABLE"),
            (Untrusted("fcm.test", "UnknownIssuer"), "misconfigured", "UNTRUSTED"),
        ],
    )
    async def test_no_answer_says_whether_it_may_have_been_taken(
        self, google: Google, error: TransportError, kind: str, code: str
    ) -> None:
        verdict = await google.verdict(error)
        assert (verdict.kind, verdict.code, verdict.status) == (kind, code, 0)
        assert str(error) in verdict.detail
        assert (verdict.after_s is None) == (kind == "misconfigured")
        assert len(google.sent) == 1

    async def test_a_dead_address_has_nothing_to_wait_for(self, google: Google) -> None:
        verdict = await google.verdict(Reply(404, {}, UNREGISTERED))
        assert (verdict.kind, verdict.after_s) == ("unregistered", None)

    def test_the_bounds_are_fcms_own(self) -> None:
        assert GIVE_UP_S == 3600
        assert TIMEOUT_S >= 10


class TestStopping:
    """A stop sends nothing new and leaves nobody waiting."""

    async def test_nothing_is_sent_while_the_process_stops(self, google: Google) -> None:
        await google.verdict()
        google.http.stopping = True
        with pytest.raises(Stopping):
            await google.verdict()
        assert len(google.sent) == 1

    async def test_closing_sends_away_who_waits(self, google: Google) -> None:
        google.sender.pace.pause(60)
        waiting = asyncio.create_task(google.sender.send(BODY))
        await google.clock.advance(1)
        await google.sender.close()
        with pytest.raises(Stopping):
            await waiting
        assert google.network.closed


@pytest.mark.spec("P054")
async def test_a_margin_of_the_quota_is_left_unused() -> None:
    rates: list[float] = []

    def connected(rate_per_s: float) -> FakeTransport:
        rates.append(rate_per_s)
        return FakeTransport()

    clock = FakeClock()
    sender = Sender(Account(key()), Http(FakeTransport(), clock), clock, connect=connected)
    assert (rates, sender.pace.rate_per_s) == ([9000.0], 9000.0)
    assert sender.in_flight == 2250
    slow = Sender(Account(key(), rate_per_s=1), Http(FakeTransport(), clock), clock, connect=connected)
    assert slow.in_flight == 8


@pytest.mark.spec("P051", "P054")
@pytest.mark.parametrize("latency_s", [0.06, 0.2])
def test_the_rate_is_kept_within_five_percent_while_answers_take_their_time(latency_s: float) -> None:
    """On virtual time: with as many under way as the sender asks for, what limits it is the pace."""
    times: list[float] = []

    async def run() -> None:
        clock = LoopClock(asyncio.get_running_loop())

        async def answer(request: Request) -> Reply:
            await asyncio.sleep(latency_s)
            return OK

        network = FakeTransport(("POST", TOKEN_URL, granted("t")), ("POST", "*:send", answer))
        account = Account(key(), rate_per_s=1000, headroom=0.0, ramp_s=0.0)
        sender = Sender(account, Http(network, clock), clock, connect=lambda rate_per_s: network)

        async def work() -> None:
            while clock.monotonic() < 6:
                await sender.send(BODY)
                times.append(clock.monotonic())

        await asyncio.gather(*(work() for _ in range(sender.in_flight)))

    run_virtual(run())
    for second in range(1, 6):
        assert sum(second <= moment < second + 1 for moment in times) == pytest.approx(1000, rel=0.05)


@pytest.mark.spec("D08")
async def test_secrets_are_nowhere_to_be_seen(google: Google, reported: Callable[[], str]) -> None:
    echo = Reply(403, {}, b"<pre>Authorization: Bearer token-1 is not allowed here</pre>")
    shown = [await google.verdict(echo), google.sender, Account(key()), google.sender.health]
    with pytest.raises(ValueError, match="not a PEM private key") as error:
        Google(key=key(private_key=PEM[:200]))
    text = "\n".join([*map(repr, shown), *map(str, shown), str(error.value), reported()])
    assert "token-1" not in text
    assert not any(line in text for line in PEM.splitlines()[1:-1])
    assert "is not allowed here" in text


class TestHealth:
    """The signals at which FCM says to roll back: p95 over 500 ms, more than 1 % of errors."""

    async def test_every_attempt_is_counted(self, google: Google) -> None:
        await google.verdict(OK, Reply(404, {}, UNREGISTERED))
        await google.verdict()
        await google.verdict(TransportError("gone", sent=True))
        assert google.sender.health.counts == {"accepted": 1, "unregistered": 1, "unknown": 1}

    async def test_it_is_judged_once_there_is_enough(self) -> None:
        health = Health(FakeClock())
        for _ in range(ENOUGH_TO_JUDGE - 1):
            health.note("unavailable", 5.0)
        assert health.alarm == ""
        health.note("unavailable", 5.0)
        assert health.alarm == f"100.0% of the last minute's {ENOUGH_TO_JUDGE} attempts failed"

    @pytest.mark.parametrize(("failed", "rings"), [(5, False), (6, True)])
    async def test_more_than_one_percent_of_errors(self, failed: int, rings: bool) -> None:
        health = Health(FakeClock())
        for number in range(500):
            health.note("throttled" if number < failed else "accepted", 0.06)
        assert bool(health.alarm) is rings
        assert health.failed_share == failed / 500

    @pytest.mark.parametrize(("slow", "rings"), [(25, False), (26, True)])
    async def test_a_p95_of_more_than_half_a_second(self, slow: int, rings: bool) -> None:
        health = Health(FakeClock())
        for number in range(500):
            health.note("accepted", 0.51 if number < slow else 0.06)
        assert bool(health.alarm) is rings
        assert health.p95_s == pytest.approx(0.51 if rings else 0.06, rel=0.25)

    async def test_dead_addresses_and_refused_messages_are_no_errors(self) -> None:
        health = Health(FakeClock())
        for _ in range(300):
            health.note("unregistered", 0.06)
            health.note("wrong_message", 0.06)
        assert (health.alarm, health.failed_share) == ("", 0.0)

    async def test_a_minute_later_it_is_forgotten(self) -> None:
        clock = FakeClock()
        health = Health(clock)
        for _ in range(30):
            for _ in range(20):
                health.note("unknown", 9.0)
            await clock.advance(1)
        assert health.alarm
        await clock.advance(61)
        assert (health.alarm, health.p95_s, health.failed_share) == ("", 0.0, 0.0)
        assert health.counts["unknown"] == 600


async def _hang(request: Request) -> Reply:
    del request
    await asyncio.Event().wait()
    return OK


async def _all(sends: Any) -> list[Verdict]:
    return list(await asyncio.gather(*sends))
