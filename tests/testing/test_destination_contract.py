"""The contract catches each mistake it is there for: destinations broken in one way fail the named test."""

from __future__ import annotations

import inspect
import os
import random
import secrets
import ssl
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from pydantic import Field, SecretStr

from towpath.destination import Call, Check, Destination, Ended, Limits, Payload, Scope, Settings
from towpath.http import Reply, Request, Stopping, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Rejected, Retry, Skipped
from towpath.testing import DestinationContract
from towpath.testing.purity import watching

pytestmark = pytest.mark.spec("D02", "D03", "D08", "D11")
BASE = "https://api.example.com/people/"


class KeySettings(Settings):
    key: SecretStr = Field(description="The API key.")


class Good(Destination[KeySettings]):
    name = "good"
    Settings: ClassVar[type[Any]] = KeySettings

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.settings.key.get_secret_value()}"}

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        if message.type not in ("identify", "track"):
            return Skipped("unsupported")
        url = BASE + quote(message.user_id or message.anonymous_id or "nobody", safe="")
        return Payload((Call("PUT", url, {"event": message.event}),), capability="people")

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        for call in payload.requests:
            await scope.http.request(call.method, call.url, json=call.json)

    async def check(self, scope: Scope) -> Sequence[Check]:
        try:
            await scope.http.request("GET", BASE)
        except Undelivered as error:
            detail = getattr(error.outcome, "reason", "")
            return [Check("people", ok=False, capability="people", detail=detail)]
        return [Check("people", ok=True, capability="people")]


class TestGood(DestinationContract):
    destination = Good
    settings: ClassVar[dict[str, Any]] = {"key": "key-0123456789"}


class ShoutedName(Good):
    name = "Good One"


class UndescribedSettings(Settings):
    key: SecretStr


class Undescribed(Good):
    Settings: ClassVar[type[Any]] = UndescribedSettings


class LooseSettings(Settings, extra="ignore"):
    key: SecretStr = Field(description="The API key.")


class Loose(Good):
    Settings: ClassVar[type[Any]] = LooseSettings


class NoCalls(Good):
    def limits(self) -> Limits:
        return Limits(in_flight=0)


class SendsNothing(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Skipped("unsupported")


class SendsUnknownKinds(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE),))


class Counting(Good):
    count = 0

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        self.count += 1
        return Payload((Call("PUT", BASE, self.count),))


class ChangesTheMessage(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        message.traits["seen"] = True
        return super().prepare(message)


class ReadsTheClock(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE, time.time()),))


class ReadsTheDay(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE, datetime.now(UTC).date().isoformat()),))


class TossesACoin(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE, random.choice([True, True])),))


class MakesAnId(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE, len(str(uuid.uuid4()))),))


class CrashesOnOddEvents(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        if message.event is not None:
            message.event.strip()
        return super().prepare(message)


class RawIds(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", f"{BASE}{message.user_id}"),))


class HalfEncodedIds(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE + quote(message.user_id or "")),))


class LooksUpRawIds(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", BASE),), data=message.user_id, capability="people")

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        await scope.http.request("GET", BASE + quote(payload.data or ""))


class SwallowsRefusals(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        try:
            await super().deliver(payload, scope)
        except Undelivered:
            return


class DropsTheWish(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        try:
            await super().deliver(payload, scope)
        except Undelivered as error:
            raise Undelivered(Retry("later")) from error


class FollowsRedirects(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        reply = await scope.http.request("PUT", payload.requests[0].url, allow=(307,))
        if reply.status == 307:
            await scope.http.request("PUT", reply.headers["location"], allow=(307,))


class TrustsTheBody(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        reply = await scope.http.request("PUT", payload.requests[0].url)
        _ = reply.json()["data"]


class SwallowsStopping(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        try:
            await super().deliver(payload, scope)
        except Stopping:
            return


class SwallowsCancellation(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        try:
            await super().deliver(payload, scope)
        except BaseException as error:
            raise Undelivered(Retry("failed")) from error


class ForgetsOne(Good):
    def limits(self) -> Limits:
        return Limits(batch=10)

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Outcome]:
        return [Delivered() for _ in payloads[1:]]


class Batching(Good):
    """Takes ten at once: the vendor answers `{"failed": [index, …]}`."""

    def limits(self) -> Limits:
        return Limits(batch=10)

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        if not payloads:
            return []
        failed = await self.send([call.url for payload in payloads for call in payload.requests], scope)
        return [Rejected("no") if number in failed else Delivered() for number in range(len(payloads))]

    async def send(self, urls: Sequence[str], scope: Scope) -> Sequence[int]:
        said = (await scope.http.request("POST", BASE, json=urls)).json()
        return said.get("failed", []) if isinstance(said, dict) else []


class TestBatching(TestGood):
    destination = Batching

    def refuse_one(self, request: Request, index: int) -> Reply | None:
        return Reply(200, body=b'{"failed": [%d]}' % index)


class SendsTheFirst(Batching):
    async def send(self, urls: Sequence[str], scope: Scope) -> Sequence[int]:
        return await super().send(urls[:1], scope)


class AnswersBackwards(Batching):
    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        return [*reversed(await super().deliver_batch(payloads, scope))]


class SendsOneByOneBackwards(Good):
    def limits(self) -> Limits:
        return Limits(batch=10)

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        return [*reversed(await super().deliver_batch(payloads, scope))]


class SwallowsWholeRefusals(Batching):
    answer: Outcome = Delivered()

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        try:
            return await super().deliver_batch(payloads, scope)
        except Undelivered as error:
            if getattr(error.outcome, "code", 0) != 413:
                raise
            return [self.answer for _ in payloads]


class KillsTheInnocent(SwallowsWholeRefusals):
    answer: Outcome = Rejected("too large", 413)


class AlwaysCalls(Good):
    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Outcome]:
        await scope.http.request("POST", BASE)
        return [Delivered() for _ in payloads]


class ChecksNothing(Good):
    async def check(self, scope: Scope) -> Sequence[Check]:
        return [Check("people", ok=True, capability="people")]


class CheckRaises(Good):
    async def check(self, scope: Scope) -> Sequence[Check]:
        await scope.http.request("GET", BASE)
        return [Check("people", ok=True, capability="people")]


class NamesNoCapability(Good):
    async def check(self, scope: Scope) -> Sequence[Check]:
        return [Check(line.name, line.ok, "", line.detail) for line in await super().check(scope)]


class ShowsTheKey(Good):
    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        return Payload((Call("PUT", f"{BASE}?key={self.settings.key.get_secret_value()}"),))


class RepeatsTheAnswer(Good):
    async def deliver(self, payload: Payload, scope: Scope) -> None:
        reply = await scope.http.request("PUT", payload.requests[0].url, allow=(400,))
        raise Undelivered(Rejected(reply.text()))


class RepeatsTheAnswerInCheck(Good):
    async def check(self, scope: Scope) -> Sequence[Check]:
        reply = await scope.http.request("GET", BASE, allow=(401,))
        return [Check("people", reply.status == 200, "people", reply.text())]


BROKEN: list[tuple[type[Destination[Any]], str, tuple[Any, ...]]] = [
    (ShoutedName, "test_the_name_is_a_lower_case_word", ()),
    (Undescribed, "test_every_setting_is_described", ()),
    (Loose, "test_unknown_settings_are_refused", ()),
    (NoCalls, "test_limits_make_sense", ()),
    (SendsNothing, "test_something_is_sent", ()),
    (SendsUnknownKinds, "test_an_unknown_kind_is_not_sent", ()),
    (Counting, "test_prepare_is_pure", ()),
    (ChangesTheMessage, "test_prepare_is_pure", ()),
    (ReadsTheClock, "test_prepare_asks_neither_clock_nor_chance", ()),
    (ReadsTheDay, "test_prepare_asks_neither_clock_nor_chance", ()),
    (TossesACoin, "test_prepare_asks_neither_clock_nor_chance", ()),
    (MakesAnId, "test_prepare_asks_neither_clock_nor_chance", ()),
    (CrashesOnOddEvents, "test_odd_messages_are_answered", ("event-number",)),
    (RawIds, "test_ids_in_urls_are_percent_encoded", ()),
    (HalfEncodedIds, "test_ids_in_urls_are_percent_encoded", ()),
    (LooksUpRawIds, "test_ids_in_sent_urls_are_percent_encoded", ()),
    (SwallowsRefusals, "test_statuses_become_outcomes", (400,)),
    (DropsTheWish, "test_retry_after_is_kept", ("7", 7.0)),
    (SwallowsRefusals, "test_transport_errors_are_retried", (True,)),
    (FollowsRedirects, "test_redirects_are_not_followed", ()),
    (TrustsTheBody, "test_strange_bodies_do_not_crash", ("list",)),
    (SwallowsStopping, "test_stopping_passes_through", ()),
    (SwallowsStopping, "test_stopping_passes_through_a_batch", ()),
    (SwallowsCancellation, "test_cancellation_passes_through", ()),
    (ForgetsOne, "test_a_batch_has_one_outcome_per_payload", ()),
    (SendsTheFirst, "test_every_item_of_a_batch_is_sent", ()),
    (SendsOneByOneBackwards, "test_a_refused_item_of_a_batch_is_the_one_that_is_told", (0,)),
    (SwallowsWholeRefusals, "test_a_batch_refused_as_a_whole_is_raised", (413,)),
    (KillsTheInnocent, "test_a_batch_refused_as_a_whole_is_raised", (413,)),
    (AlwaysCalls, "test_no_payloads_no_requests", ()),
    (ChecksNothing, "test_check_reports_a_refused_credential", ()),
    (CheckRaises, "test_check_reports_a_refused_credential", ()),
    (CheckRaises, "test_check_survives_an_unreachable_vendor", ()),
    (NamesNoCapability, "test_check_names_the_capabilities_that_payloads_need", ()),
    (ShowsTheKey, "test_secrets_stay_out_of_what_is_shown", ()),
    (RepeatsTheAnswer, "test_secrets_stay_out_of_dead_letters", ()),
    (RepeatsTheAnswerInCheck, "test_secrets_stay_out_of_check", ()),
]


@pytest.mark.parametrize(
    ("broken", "test", "given"), BROKEN, ids=lambda value: getattr(value, "__name__", None)
)
async def test_a_mistake_is_found(broken: type[Destination[Any]], test: str, given: tuple[Any, ...]) -> None:
    contract = type("Contract", (TestGood,), {"destination": broken})()

    async def run() -> None:
        result = getattr(contract, test)(*given)
        if inspect.isawaitable(result):
            await result

    # A crash of the destination counts as found, too; `pytest.raises` within a test fails with no Exception.
    with pytest.raises((Exception, pytest.fail.Exception)):
        await run()


@pytest.mark.parametrize("at", [0, -1])
async def test_answers_in_reverse_are_found(at: int) -> None:
    contract = type("Contract", (TestBatching,), {"destination": AnswersBackwards})()
    with pytest.raises(AssertionError, match="were refused"):
        await contract.test_a_refused_item_of_a_batch_is_the_one_that_is_told(at)


@pytest.mark.parametrize(
    ("work", "named"),
    [
        (lambda: datetime.now(), "datetime.now"),  # noqa: DTZ005
        (lambda: date.today(), "date.today"),  # noqa: DTZ011
        (lambda: time.perf_counter_ns(), "time.perf_counter_ns"),
        (lambda: random.Random().random(), "random.random"),
        (lambda: time.clock_gettime_ns(time.CLOCK_REALTIME), "time.clock_gettime_ns"),
        (lambda: time.strftime("%Y"), "time.strftime"),
        (lambda: time.gmtime(), "time.gmtime"),
        (lambda: time.localtime(), "time.localtime"),
        (lambda: time.ctime(), "time.ctime"),
        (lambda: time.asctime(), "time.asctime"),
        (lambda: uuid.uuid4(), "urandom"),
        (lambda: uuid.uuid1(), "generate_time_safe"),
        (lambda: uuid.uuid1(node=1, clock_seq=1), "time.time_ns"),
        (lambda: os.urandom(4), "urandom"),
        (lambda: os.getrandom(4), "getrandom"),
        (lambda: ssl.RAND_bytes(4), "RAND_bytes"),
        (lambda: secrets.token_hex(), "urandom"),
        (lambda: secrets.randbelow(9), "urandom"),
        (lambda: secrets.choice([1, 2]), "urandom"),
        (lambda: random.SystemRandom().random(), "urandom"),
        (lambda: datetime.fromtimestamp(0.0, UTC).strftime("%Y"), ""),
        (lambda: datetime.strptime("2020-01-02", "%Y-%m-%d").timetuple(), ""),  # noqa: DTZ007
    ],
)
def test_what_is_not_pure_is_named(work: Callable[[], object], named: str) -> None:
    work()  # what is cached at first may look at a clock
    with watching() as noticed:
        work()
    assert named in noticed if named else not noticed


def test_it_has_at_least_25_tests() -> None:
    assert len([name for name in dir(DestinationContract) if name.startswith("test_")]) >= 25
