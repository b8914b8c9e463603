"""The contract every destination meets, built in or third-party: inherit, name it, give it settings."""

# ruff: noqa: S101 - asserting is what a contract is for
from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import msgspec
import pytest
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError

from towpath.destination import Call, Check, Destination, Payload, Scope
from towpath.http import (
    BODY_LIMIT_BYTES,
    Exchange,
    Http,
    Reply,
    Request,
    Stopping,
    TransportError,
    Undelivered,
)
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Paused, Rejected, Retry, Skipped
from towpath.redaction import header_secrets, setting_secrets

from .fakes import FakeClock, FakeMemory, FakeTransport, Rule
from .marks import asynchronous
from .purity import watching
from .samples import AWKWARD_ID, ODD, SAMPLES

OUTCOMES = (Delivered, Skipped, Retry, Rejected, Paused)
STATUSES: Mapping[int, type[Outcome]] = {
    200: Delivered,
    302: Rejected,
    307: Rejected,
    400: Rejected,
    401: Paused,
    403: Paused,
    405: Rejected,
    408: Retry,
    423: Retry,
    425: Retry,
    429: Retry,
    500: Retry,
    502: Retry,
    503: Retry,
    504: Retry,
}
STRANGE_BODIES = {
    "empty": b"",
    "text": b"<html>OK</html>",
    "list": b"[]",
    "null": b"null",
    "number": b"1e999",
    "not-unicode": b"\xff\xfe{}",
    "nested": b"[" * 20_000,
    "huge": b'{"data": "' + b"x" * (BODY_LIMIT_BYTES - 10),
}


@asynchronous
class DestinationContract:
    """Inherit in a class `Test…`, set `destination` and `settings`; the tests below are the contract.

    `accepted` are the replies of a vendor that takes everything, as `FakeTransport` rules; `samples` are the
    messages to try; `statuses` says what each status becomes where the destination differs from D03, as
    `statuses = {**STATUSES, 409: Delivered}`. `check_statuses` are refusals that `check` must report.
    """

    destination: ClassVar[type[Destination[Any]]]
    settings: ClassVar[Mapping[str, Any]]
    accepted: ClassVar[Sequence[Rule]] = (("*", "*", Reply(200, body=b"{}")),)
    samples: ClassVar[Sequence[Message]] = SAMPLES
    statuses: ClassVar[Mapping[int, type[Outcome]]] = STATUSES
    check_statuses: ClassVar[Sequence[int]] = (401, 403)

    def refuse_one(self, request: Request, index: int) -> Reply | None:
        """What the vendor answers to a batch of which it refuses the item at `index` alone, and says so.

        Override it where it has such an answer. Each item names its own person, of the ids `batched0` on.
        """
        return None

    # What the tests are made of.

    def make(self) -> Destination[Any]:
        """Make the destination with the contract's settings."""
        return self.destination(self.destination.Settings.model_validate(dict(self.settings)))

    def secrets(self) -> set[str]:
        """Every text that may appear nowhere: secret settings and credential headers."""
        made = self.make()
        found = {*setting_secrets(made.settings), *header_secrets(made.headers())}
        return {secret for secret in found if len(secret) > 3}

    def payloads(self, samples: Sequence[Message] | None = None) -> list[Payload]:
        """Prepare the samples that this destination sends."""
        prepared = [self.make().prepare(sample) for sample in samples or self.samples]
        return [payload for payload in prepared if isinstance(payload, Payload)]

    def scope(self, *rules: Rule) -> tuple[Scope, FakeTransport]:
        """Make a scope whose network answers by these rules, and the network."""
        made, clock, network = self.make(), FakeClock(), FakeTransport(*rules)
        secrets = setting_secrets(made.settings)
        http = Http(network, clock, headers=made.headers(), secrets=secrets)
        return Scope(http, clock, FakeMemory(clock)), network

    async def deliver(self, payload: Payload, *rules: Rule) -> tuple[Outcome, Exchange | None, FakeTransport]:
        """Deliver one payload against these rules."""
        scope, network = self.scope(*rules)
        try:
            await self.make().deliver(payload, scope)
        except Undelivered as error:
            return error.outcome, error.exchange, network
        return Delivered(), None, network

    async def deliver_all(self, *rules: Rule) -> list[Outcome]:
        """Deliver every sample's payload, each against its own network."""
        return [(await self.deliver(payload, *rules))[0] for payload in self.payloads()]

    # What it is.

    def test_the_name_is_a_lower_case_word(self) -> None:
        """It is what people write into their YAML."""
        name = self.destination.name
        assert name == name.lower()
        assert name.replace("_", "").isalnum()

    def test_every_setting_is_described(self) -> None:
        """The descriptions become --help, the form and the reference page."""
        assert not list(_undescribed(self.destination.Settings))

    def test_unknown_settings_are_refused(self) -> None:
        """A typo in the YAML must be an error."""
        with pytest.raises(ValidationError):
            self.destination.Settings.model_validate({**self.settings, "no_such_setting": 1})

    def test_limits_make_sense(self) -> None:
        """A batch of none or no call at once would stand still."""
        limits = self.make().limits()
        assert limits.batch >= 1
        assert limits.in_flight >= 1
        assert limits.batch_bytes is None or limits.batch_bytes > 0
        assert all(per_minute > 0 for per_minute in self.make().budgets().values())

    # What it makes of messages.

    def test_something_is_sent(self) -> None:
        """At least one sample leads to a request, else the rest of the contract would prove nothing."""
        assert self.payloads()
        assert all(payload.requests for payload in self.payloads())

    def test_every_sample_has_one_of_three_answers(self) -> None:
        """A kind that the destination has no use for is skipped with a reason, not a crash."""
        for sample in self.samples:
            answer = self.make().prepare(sample)
            assert isinstance(answer, Payload | Skipped | Rejected), sample
            assert isinstance(answer, Payload) or answer.reason

    def test_an_unknown_kind_is_not_sent(self) -> None:
        """A kind of a later version of the spec has no meaning here yet."""
        unknown = msgspec.structs.replace(self.samples[0], type="no-such-kind")
        assert isinstance(self.make().prepare(unknown), Skipped | Rejected)

    def test_prepare_is_pure(self) -> None:
        """Same message, same answer, from any instance at any time; the message stays as it was."""
        made = self.make()
        for sample in self.samples:
            before = msgspec.json.encode(sample)
            first = msgspec.json.encode(_plain(made.prepare(sample)))
            assert first == msgspec.json.encode(_plain(made.prepare(sample)))
            assert first == msgspec.json.encode(_plain(self.make().prepare(sample)))
            assert before == msgspec.json.encode(sample)

    def test_prepare_asks_neither_clock_nor_chance(self) -> None:
        """Replaying a message a week later makes the same request."""
        made = self.make()
        for sample in self.samples:
            made.prepare(sample)  # what is imported or cached at first may look at a clock
            with watching() as noticed:
                made.prepare(sample)
            assert not noticed, f"prepare calls {', '.join(noticed)}; it may depend on the message alone"

    def test_payloads_are_json(self) -> None:
        """Preview, dry run and the dashboard show them as JSON."""
        for payload in self.payloads():
            for call in (*payload.requests, *payload.look_ups):
                assert msgspec.json.decode(msgspec.json.encode(call)) is not None
                assert urlsplit(call.url).scheme in ("http", "https"), call.url

    @pytest.mark.parametrize("name", sorted(ODD))
    def test_odd_messages_are_answered(self, name: str) -> None:
        """Whatever JSON a client sends, the answer is a payload or a reason."""
        for message in ODD[name]:
            answer = self.make().prepare(message)
            assert isinstance(answer, Payload | Skipped | Rejected)
            msgspec.json.encode(_plain(answer))

    @pytest.mark.parametrize("name", sorted(ODD))
    async def test_odd_messages_are_deliverable_or_refused(self, name: str) -> None:
        """No odd message ends as anything but an outcome, and none smuggles in a header or a line."""
        for payload in self.payloads(ODD[name]):
            outcome, _, network = await self.deliver(payload, *self.accepted)
            assert isinstance(outcome, OUTCOMES)
            assert not [request for request in network.requests if _injected(request)]

    def test_ids_in_urls_are_percent_encoded(self) -> None:
        """`a/b?c#d@é` stays one segment of a path, or one value of a query (D11)."""
        for sample in self.samples:
            awkward = msgspec.structs.replace(sample, user_id=AWKWARD_ID)
            answer = self.make().prepare(awkward)
            for call in _calls(answer):
                assert _encodes_ids(call.url), call.url

    async def test_ids_in_sent_urls_are_percent_encoded(self) -> None:
        """The same for what is really sent, look-ups included (D11)."""
        awkward = [msgspec.structs.replace(sample, user_id=AWKWARD_ID) for sample in self.samples]
        for payload in self.payloads(awkward):
            _, _, network = await self.deliver(payload, *self.accepted)
            assert all(_encodes_ids(request.url) for request in network.requests)

    # What becomes of deliveries.

    async def test_accepted_messages_are_delivered(self) -> None:
        """A vendor that takes everything gets everything."""
        outcomes = await self.deliver_all(*self.accepted)
        assert all(isinstance(outcome, Delivered | Skipped) for outcome in outcomes), outcomes
        assert any(isinstance(outcome, Delivered) for outcome in outcomes)

    @pytest.mark.parametrize("status", sorted(STATUSES))
    async def test_statuses_become_outcomes(self, status: int) -> None:
        """D03, or what the destination says instead."""
        expected = self.statuses[status]
        rules = self.accepted if status == 200 else [("*", "*", Reply(status, body=b"{}"))]
        outcomes = await self.deliver_all(*rules)
        assert all(isinstance(outcome, expected) for outcome in outcomes if not isinstance(outcome, Skipped))

    @pytest.mark.parametrize(
        ("value", "wish"),
        [("7", 7.0), (formatdate(FakeClock().now() + 90, usegmt=True), 90.0), ("999999999999", 86_400.0)],
        ids=["seconds", "date", "too-long"],
    )
    async def test_retry_after_is_kept(self, value: str, wish: float) -> None:
        """The vendor's wish reaches the loop, at most a day."""
        outcomes = await self.deliver_all(("*", "*", Reply(503, {"retry-after": value})))
        assert all(isinstance(outcome, Retry) and outcome.after_s == wish for outcome in outcomes), outcomes

    @pytest.mark.parametrize("value", ["soon", "-5", "", "1e9", "٣", "Mon, 99 Foo 2026 99:99:99 GMT"])
    async def test_junk_in_retry_after_is_ignored(self, value: str) -> None:
        """A retry without a wish, not a crash."""
        outcomes = await self.deliver_all(("*", "*", Reply(429, {"retry-after": value})))
        assert all(isinstance(outcome, Retry) and not outcome.after_s for outcome in outcomes), outcomes

    @pytest.mark.parametrize("sent", [True, False])
    async def test_transport_errors_are_retried(self, sent: bool) -> None:  # noqa: FBT001
        """Time-out, reset and DNS failure are the network's, not the message's."""
        outcomes = await self.deliver_all(("*", "*", TransportError("connection reset", sent=sent)))
        assert all(isinstance(outcome, Retry) for outcome in outcomes), outcomes

    async def test_redirects_are_not_followed(self) -> None:
        """Personal data goes to the host that the settings name, nowhere else."""
        elsewhere = Reply(307, {"location": "https://elsewhere.example/"})
        for payload in self.payloads():
            _, _, network = await self.deliver(payload, ("*", "*", elsewhere))
            assert not [request for request in network.requests if "elsewhere.example" in request.url]

    @pytest.mark.parametrize("body", sorted(STRANGE_BODIES))
    async def test_strange_bodies_do_not_crash(self, body: str) -> None:
        """A 200 with an unexpected body still ends as an outcome."""
        outcomes = await self.deliver_all(("*", "*", Reply(200, body=STRANGE_BODIES[body])))
        assert all(isinstance(outcome, OUTCOMES) for outcome in outcomes)

    async def test_stopping_passes_through(self) -> None:
        """During a graceful stop nothing is sent and nothing is decided."""
        for payload in self.payloads():
            scope, network = self.scope(*self.accepted)
            scope.http.stopping = True
            with pytest.raises(Stopping):
                await self.make().deliver(payload, scope)
            assert network.requests == []

    async def test_a_stop_keeps_a_batch_from_being_sent(self) -> None:
        """The same for a batch: it raises, or says of each that it was not sent."""
        batch = self._batch()
        scope, network = self.scope(*self.accepted)
        scope.http.stopping = True
        with suppress(Stopping):
            assert list(await self.make().deliver_batch(batch, scope)) == [None] * len(batch)
        assert network.requests == []

    async def test_cancellation_passes_through(self) -> None:
        """A cancelled delivery ends as cancelled; the loop decides what that means."""
        for payload in self.payloads():
            hanging = _Hanging()
            scope, _ = self.scope(("*", "*", hanging.answer))
            task = asyncio.ensure_future(self.make().deliver(payload, scope))
            await hanging.reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_a_batch_has_one_outcome_per_payload(self) -> None:
        """In order, so that the loop knows which is which."""
        batch = self._batch()
        scope, _ = self.scope(*self.accepted)
        outcomes = await self.make().deliver_batch(batch, scope)
        assert len(outcomes) == len(batch)
        assert all(isinstance(outcome, (*OUTCOMES, Undelivered)) for outcome in outcomes)

    async def test_a_failing_batch_has_outcomes_too(self) -> None:
        """Whether it is refused item by item or as a whole."""
        batch = self._batch()
        scope, _ = self.scope(("*", "*", Reply(500)))
        try:
            ended = await self.make().deliver_batch(batch, scope)
        except Undelivered as error:
            ended = [error] * len(batch)
        assert len(ended) == len(batch)
        outcomes = [end.outcome if isinstance(end, Undelivered) else end for end in ended]
        assert all(isinstance(outcome, Retry) for outcome in outcomes)

    async def test_every_item_of_a_batch_is_sent(self) -> None:
        """Whoever is named in a request of their own is named in what a batch sends."""
        people = self._people()
        scope, network = self.scope(*self.accepted)
        await self.make().deliver_batch([payload for _, payload in people], scope)
        sent = [_text(request) for request in network.requests]
        for name, payload in people:
            _, _, alone = await self.deliver(payload, *self.accepted)
            named = any(name in _text(request) for request in alone.requests)
            assert not named or any(name in text for text in sent), f"{name} was not sent"

    @pytest.mark.parametrize("at", [0, -1], ids=["first", "last"])
    async def test_a_refused_item_of_a_batch_is_the_one_that_is_told(self, at: int) -> None:
        """The others are delivered; or the batch as a whole is refused, and tried again in halves."""
        people = self._people()
        index = at % len(people)
        others = [name for name, _ in people if name != people[index][0]]
        taking, refused = FakeTransport(*self.accepted), list[int]()

        async def answer(request: Request) -> Reply:
            text, reply = _text(request), self.refuse_one(request, index)
            alone = people[index][0] in text and not any(name in text for name in others)
            if reply is None and alone and request.method != "GET":  # a refused look-up may do no harm
                reply = Reply(400, body=b"{}")
            if reply is None:
                return await taking.send(request, timeout_s=1.0)
            refused[:] = [index]
            return reply

        scope, _ = self.scope(("*", "*", answer))
        with suppress(Undelivered):
            ended = await self.make().deliver_batch([payload for _, payload in people], scope)
            outcomes = [end.outcome if isinstance(end, Undelivered) else end for end in ended]
            told = [number for number, end in enumerate(outcomes) if not isinstance(end, Delivered | Skipped)]
            assert told == refused, f"of the items {refused} were refused, and {told} are told so"

    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_a_batch_refused_as_a_whole_is_raised(self, status: int) -> None:
        """Nobody knows which item it was: the loop finds out, in halves. Innocent ones must not die of it."""
        batch = [payload for _, payload in self._people()]
        scope, network = self.scope(("*", "*", Reply(status, body=b"{}")))
        expected = self.statuses.get(status, self.statuses[400])
        try:
            ended = list(await self.make().deliver_batch(batch, scope))
            assert len(network.requests) >= len(batch), f"one {status} for all, and each is told {ended}"
        except Undelivered as error:
            ended = [error]
        outcomes = [end.outcome if isinstance(end, Undelivered) else end for end in ended]
        assert all(isinstance(outcome, Skipped | expected) for outcome in outcomes), outcomes

    async def test_no_payloads_no_requests(self) -> None:
        """An empty batch costs nothing."""
        scope, network = self.scope()
        assert list(await self.make().deliver_batch([], scope)) == []
        assert network.requests == []

    # What check says.

    async def test_check_passes_on_good_settings(self) -> None:
        """At least one line, all of them good."""
        lines = await self._check(*self.accepted)
        assert lines
        assert all(line.ok and line.name for line in lines), lines

    async def test_check_reports_a_refused_credential(self) -> None:
        """Pausing hangs on it: every refused capability has a line that says so."""
        for status in self.check_statuses:
            lines = await self._check(("*", "*", Reply(status, body=b"{}")))
            assert lines
            assert not any(line.ok for line in lines), lines
            assert all(line.detail for line in lines), lines

    async def test_check_names_the_capabilities_that_payloads_need(self) -> None:
        """A pause of a capability that no check line names could never end."""
        named = {line.capability for line in await self._check(*self.accepted)}
        assert {payload.capability for payload in self.payloads()} <= named

    async def test_check_survives_an_unreachable_vendor(self) -> None:
        """A line that says so, not a crash."""
        lines = await self._check(("*", "*", TransportError("connection refused", sent=False)))
        assert lines
        assert not any(line.ok for line in lines), lines

    async def test_check_stops_when_the_process_stops(self) -> None:
        """A stop is not a refusal."""
        scope, network = self.scope(*self.accepted)
        scope.http.stopping = True
        with pytest.raises(Stopping):
            await self.make().check(scope)
        assert network.requests == []

    # What nobody may see.

    def test_secrets_stay_out_of_what_is_shown(self) -> None:
        """Not in a repr, a str, a payload or a preview."""
        made = self.make()
        shown = [repr(made), str(made), repr(made.settings), str(made.settings), repr(vars(made))]
        shown += [msgspec.json.encode(_plain(payload)).decode() for payload in self.payloads()]
        shown += [repr(payload) for payload in self.payloads()]
        _assert_absent(self.secrets(), shown)

    async def test_secrets_stay_out_of_dead_letters(self) -> None:
        """A vendor that echoes the request must not put a secret into an exchange or a reason."""
        echo = " ".join(sorted(self.secrets())).encode()
        for payload in self.payloads():
            outcome, exchange, _ = await self.deliver(payload, ("*", "*", Reply(400, body=echo)))
            _assert_absent(self.secrets(), [repr(outcome), repr(exchange)])

    async def test_secrets_stay_out_of_check(self) -> None:
        """The lines are printed."""
        echo = " ".join(sorted(self.secrets())).encode()
        lines = await self._check(("*", "*", Reply(401, body=echo)))
        _assert_absent(self.secrets(), [repr(lines)])

    async def _check(self, *rules: Rule) -> Sequence[Check]:
        scope, _ = self.scope(*rules)
        return await self.make().check(scope)

    def _batch(self) -> list[Payload]:
        return self.payloads()[: max(1, self.make().limits().batch)]

    def _people(self) -> list[tuple[str, Payload]]:
        """A batch of the same message of several people, with their names; one where no batches are taken."""
        names = [f"batched{number}" for number in range(min(3, self.make().limits().batch))]
        for sample in self.samples:
            messages = [replace(sample, user_id=name, message_id=f"of-{name}") for name in names]
            made = [self.make().prepare(message) for message in messages]
            payloads = [payload for payload in made if isinstance(payload, Payload)]
            if len(payloads) == len(names):
                return list(zip(names, payloads, strict=True))
        raise AssertionError("no sample can be sent for somebody else")


def _undescribed(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if not field.description:
            yield f"{model.__name__}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _undescribed(field.annotation)


def _plain(answer: Payload | Skipped | Rejected) -> Any:
    """Show an answer without what only `deliver` reads, which need not be JSON."""
    return msgspec.structs.replace(answer, data=None) if isinstance(answer, Payload) else answer


def _calls(answer: Payload | Skipped | Rejected) -> list[Call]:
    return [*answer.requests, *answer.look_ups] if isinstance(answer, Payload) else []


def _encodes_ids(url: str) -> bool:
    """Tell whether an awkward id, where its first letter's segment shows up at all, is encoded as a whole."""
    raw = (AWKWARD_ID, AWKWARD_ID.replace("é", "%C3%A9"), quote(AWKWARD_ID))
    return not urlsplit(url).fragment and not any(form in url for form in raw)


def _injected(request: Request) -> bool:
    head = [request.url, *request.headers, *request.headers.values()]
    return "x-injected" in request.headers or any("\n" in text or "\r" in text for text in head)


def _assert_absent(secrets: set[str], shown: Sequence[str]) -> None:
    assert not [secret for secret in secrets for text in shown if secret in text]


def _text(request: Request) -> str:
    """What a request says, in its URL and its body."""
    zipped = request.headers.get("content-encoding") == "gzip"
    body = gzip.decompress(request.body) if zipped else request.body
    return f"{unquote(request.url)} {body.decode('utf-8', 'replace')}"


class _Hanging:
    """A vendor that never answers."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def answer(self, request: Request) -> Reply:
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError(f"nothing ends the wait for {request.url}")
