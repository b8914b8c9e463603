"""The contract catches each mistake it is there for: destinations broken in one way fail the named test."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from pydantic import Field, SecretStr

from towpath.destination import Call, Check, Destination, Limits, Payload, Scope, Settings
from towpath.http import Stopping, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Rejected, Retry, Skipped
from towpath.testing import DestinationContract

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


def test_reading_the_clock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = type("Contract", (TestGood,), {"destination": ReadsTheClock})()
    with pytest.raises(AssertionError, match="clock"):
        contract.test_prepare_reads_no_clock(monkeypatch)


def test_it_has_at_least_25_tests() -> None:
    assert len([name for name in dir(DestinationContract) if name.startswith("test_")]) >= 25
