"""Customer.io's reporting webhooks as a source: what became of a message it sent, as track events."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator

from towpath.errors import Unauthorized
from towpath.message import Message, Trust, format_time, identifier
from towpath.source import Heard, Inbound, Incoming, Known, SourceSettings, Unfit, items_apart
from towpath.units import Duration, format_duration

CHANNELS: Mapping[str, str] = {
    "email": "Email",
    "push": "Push",
    "in_app": "In-App",
    "sms": "SMS",
    "whatsapp": "WhatsApp",
    "slack": "Slack",
    "webhook": "Webhook",
}
"""What a delivery's `object_type` is called in the name of its event."""

DELIVERY: Mapping[str, str] = {
    metric: metric.capitalize()
    for metric in (
        "drafted", "attempted", "sent", "delivered", "deferred", "opened", "clicked", "converted", "bounced",
        "dropped", "spammed", "failed", "undeliverable", "replied",
    )
}  # fmt: skip
"""What a `metric` of a delivery is called in the name of its event."""

SUBSCRIPTION: Mapping[str, str] = {
    "subscribed": "Subscribed",
    "unsubscribed": "Unsubscribed",
    "cio_subscription_preferences_changed": "Subscription Preferences Changed",
}
"""Metrics about the person; their `object_type` is only the channel that caused the change."""

RAW_BYTES = 64 * 1024
ID_LENGTH = 128
WORD_LENGTH = 60
NO_PERSON = "data.identifiers has no id, no email and no cio_id, as of a person deleted meanwhile"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | SecretStr) else value


class CustomerIoWebhooksSettings(SourceSettings):
    """Who may post: Customer.io, proven by the signing key of its reporting webhook."""

    trust: Trust = Field(
        default="server",
        description="`server`: what is signed comes from Customer.io itself. `client` takes from its "
        "messages what a page's key may not do either.",
    )
    signing_keys: Annotated[list[SecretStr], BeforeValidator(_listed)] = Field(
        min_length=1,
        validation_alias=AliasChoices("signing_keys", "signing_key", "signingKey"),
        description="The webhook's signing key (Integrations, Reporting Webhooks), or several: one per "
        "webhook, or the old one beside the new while you rotate.",
    )
    tolerance: Duration = Field(
        default=timedelta(days=7),
        description="How far X-CIO-Timestamp may be from now; 0 takes any. Customer.io retries for 7 days, "
        "does not say whether with a new timestamp, and holds back what comes behind a refused one; what "
        "comes twice within 7 days is kept once.",
    )

    @field_validator("signing_keys")
    @classmethod
    def _usable(cls, keys: list[SecretStr]) -> list[SecretStr]:
        if any(not key.get_secret_value().strip() for key in keys):
            raise ValueError("a signing key must not be blank")
        return keys


class CustomerIoWebhooks(Inbound[CustomerIoWebhooksSettings]):
    """Takes Customer.io's reporting webhooks at `/webhooks/customerio`.

    Whatever is signed is answered 200, also what cannot be understood: Customer.io holds all later webhooks
    back behind one that was refused.
    """

    name = "customerio_webhooks"
    path = "customerio"
    Settings: ClassVar[type[Any]] = CustomerIoWebhooksSettings

    def verify(self, request: Incoming, now: float) -> None:
        """X-CIO-Signature is the hex HMAC-SHA256 of `v0:{X-CIO-Timestamp}:{raw body}`."""
        timestamp = request.headers.get("x-cio-timestamp", "")
        given = request.headers.get("x-cio-signature", "").strip().lower().encode("utf-8", "replace")
        if not given or re.fullmatch(r"[0-9]{1,12}", timestamp) is None:
            raise Unauthorized(
                "the headers X-CIO-Signature and X-CIO-Timestamp are missing or malformed",
                code="E4101",
                fix="let Customer.io post here, and let no proxy take its headers away",
            )
        signed = b"v0:" + timestamp.encode() + b":" + request.body
        matches = [hmac.compare_digest(given, _signature(key, signed)) for key in self.settings.signing_keys]
        if not any(matches):
            raise Unauthorized(
                "X-CIO-Signature does not fit the body and any of the signing keys",
                code="E4102",
                fix="copy the signing key from the reporting webhook's page into signing_keys",
            )
        self._in_time(int(timestamp), now)

    def _in_time(self, sent_at: int, now: float) -> None:
        tolerance = self.settings.tolerance
        if tolerance and abs(now - sent_at) > tolerance.total_seconds():
            raise Unauthorized(
                f"X-CIO-Timestamp is more than {format_duration(tolerance)} away from this server's clock",
                code="E4103",
                fix="set the clock, or raise `tolerance` (0 takes any) to let old retries in",
            )

    def messages(self, request: Incoming, known: Known) -> Iterable[Heard]:
        """One track event per report; the body is one object, or an array of them."""
        try:
            body = msgspec.json.decode(request.body)
        except _UNREADABLE:
            yield _unfit("unreadable", "the body is no JSON", request.body)
            return
        for index, item in enumerate(body if isinstance(body, list) else [body]):
            yield _heard(item, f"item {index}" if isinstance(body, list) else "the body")

    def parts(self, request: Incoming) -> Sequence[Incoming]:
        """The reports of an array as arrays of one."""
        return items_apart(request)


def _signature(key: SecretStr, signed: bytes) -> bytes:
    return hmac.new(key.get_secret_value().strip().encode(), signed, hashlib.sha256).hexdigest().encode()


def _heard(item: Any, where: str) -> Heard:
    try:
        raw = msgspec.json.encode(item, order="deterministic")
    except (ValueError, OverflowError, RecursionError):
        return _unfit("unreadable", f"{where} holds values that JSON cannot carry on", b"")
    if not isinstance(item, dict):
        return _unfit("not_a_report", f"{where} is no JSON object", raw)
    data = _object(item.get("data"))
    person = _person(_object(data.get("identifiers")))
    if person is None:
        return _unfit("no_person", f"{where} ({event_name(*_kind(item))}): {NO_PERSON}", raw)
    return _message(item, data, person, raw)


def _message(item: Mapping[str, Any], data: Mapping[str, Any], person: str, raw: bytes) -> Message:
    object_type, metric = _kind(item)
    name = identifier(item.get("event_id")) or ""
    return Message(
        type="track",
        # Without an id of its own a retry is known again by what it says.
        message_id=name if 0 < len(name) <= ID_LENGTH else f"cio-{hashlib.sha256(raw).hexdigest()[:32]}",
        user_id=person,
        event=event_name(object_type, metric),
        properties={"object_type": object_type, "metric": metric, **dict(_properties(data))},
        context=_context(_object(data.get("identifiers"))),
        timestamp=_moment(item.get("timestamp")),
    )


def event_name(object_type: str, metric: str) -> str:
    """What the event of a report is called; `Customer.io …` where this version does not know the pair."""
    if metric in SUBSCRIPTION:
        return SUBSCRIPTION[metric]
    if object_type in CHANNELS and metric in DELIVERY:
        return f"{CHANNELS[object_type]} {DELIVERY[metric]}"
    return " ".join(["Customer.io", *f"{object_type} {metric}".split()])


def _kind(item: Mapping[str, Any]) -> tuple[str, str]:
    """`object_type` and `metric`, which may be anything, as text that fits into a name."""
    object_type, metric = identifier(item.get("object_type")), identifier(item.get("metric"))
    return (object_type or "")[:WORD_LENGTH], (metric or "")[:WORD_LENGTH]


def _person(identifiers: Mapping[str, Any]) -> str | None:
    """The userId: id, else e-mail, else `cio_…`; never data.customer_id: Customer.io deprecates it."""
    cio_id = identifier(identifiers.get("cio_id"))
    by_cio_id = f"cio_{cio_id.removeprefix('cio_')}" if cio_id else None
    return identifier(identifiers.get("id")) or identifier(identifiers.get("email")) or by_cio_id


def _context(identifiers: Mapping[str, Any]) -> dict[str, Any]:
    """Where it comes from, and how else Customer.io knows this person."""
    context: dict[str, Any] = {"source": "customerio"}
    if email := identifier(identifiers.get("email")):
        context["traits"] = {"email": email}
    if cio_id := identifier(identifiers.get("cio_id")):
        named = {"id": cio_id.removeprefix("cio_"), "type": "cio_id"}
        context["externalIds"] = [{**named, "collection": "users", "encoding": "none"}]
    return context


def _properties(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All that `data` says beside who it is about; the text of changed preferences as the object it is."""
    for name, value in data.items():
        if name not in ("identifiers", "customer_id", "object_type", "metric") and value is not None:
            yield name, value
    preferences = _embedded(data.get("content"))
    if isinstance(preferences.get("topics"), dict):
        yield "topics", preferences["topics"]


def _embedded(text: Any) -> dict[str, Any]:
    try:
        return _object(msgspec.json.decode(text)) if isinstance(text, str) else {}
    except (*_UNREADABLE, UnicodeEncodeError):
        return {}


def _moment(seconds: Any) -> str | None:
    """Unix seconds as the spec writes a time; None, so that the arrival counts, when it is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return format_time(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return None


def _unfit(code: str, reason: str, raw: bytes) -> Unfit:
    return Unfit(code, reason, raw[:RAW_BYTES])


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
