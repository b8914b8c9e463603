"""Customer.io: people, events, devices and objects through its Track API, or its Pipelines API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from msgspec.structs import replace
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from towpath.destination import Call, Check, Destination, Ended, Limits, Payload, Scope, Settings, VendorUrl
from towpath.http import Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Paused, Rejected, Retry, Skipped
from towpath.vendors.customerio import anonymous_events_url, entity_url, pipelines_url
from towpath.vendors.customerio_account import Account, Keys, Urls, budgets

from ._customerio_batch import Batch, Carrier
from ._customerio_carriers import FRAME_BYTES, PipelinesCarrier, TrackCarrier, said_in
from ._customerio_check import APP, PIPELINES, TRACK_REFUSED, Examination
from ._customerio_conflicts import Conflicts
from ._customerio_items import Post, Rules, of_identification, post_of
from ._customerio_pipelines import pipelines_post
from ._customerio_values import Unfit

BATCH = 1000
BATCH_BYTES = 500_000
MOVED = (
    "answered with a redirect, as an account of another region is: it was not followed, and the region is "
    "asked for again before the next attempt"
)
UNCONTESTED = "no other profile holds one of its identifiers"


class CustomerIoSettings(Settings):
    """Settings of the Customer.io destination; RudderStack's spelling of each key works as well."""

    site_id: str = Field(
        validation_alias=AliasChoices("site_id", "siteId", "siteID"),
        description="Site id of the workspace (Settings, API and webhook credentials, Tracking API keys).",
    )
    api_key: SecretStr = Field(
        validation_alias=AliasChoices("api_key", "track_api_key", "trackApiKey", "apiKey"),
        description="The Track API key beside the site id; not an App API key.",
    )
    app_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("app_api_key", "appApiKey", "access_token"),
        description="App API key. Replications read with it. For deliveries it is optional: with it, "
        "identifiers that another profile holds are seen and reported, and renamed or merged where "
        "`conflicts` says so.",
    )
    pipelines_write_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("pipelines_write_key", "pipelinesWriteKey"),
        description="Write key of an API source of Customer.io's Pipelines, for `api: pipelines`.",
    )
    api: Literal["track", "pipelines"] = Field(
        default="track", description="The API that writes: Track, or Pipelines (in its strict mode)."
    )
    region: Literal["us", "eu", "auto"] = Field(
        default="auto",
        validation_alias=AliasChoices("region", "datacenter", "dataCenter"),
        description="Where the account's data is. It is asked for before anything is written; `auto` goes by "
        "the answer, and where the answer is another region than this nothing is sent.",
    )
    rate: float = Field(
        default=100,
        gt=0,
        le=1000,
        description="Requests per second to the Track API, and to the Pipelines API at most 100.",
    )
    anonymous: Literal["skip", "send"] = Field(
        default="skip",
        description="What becomes of an identify without userId and e-mail: `send` makes a billable profile "
        "whose id is the anonymousId. Anonymous events are sent either way.",
    )
    conflicts: Literal["leave", "rename", "merge"] = Field(
        default="leave",
        description="What happens when an identify sets an identifier that a profile has in another form or "
        "another profile holds: `leave` it as Customer.io does and report it, `rename` the profile by its "
        "cio_id, or `merge` the two first. The last two need app_api_key and a source of trust: server.",
    )
    device_events: bool = Field(
        default=True,
        description="Whether Application Installed, Opened and Uninstalled with a device token add and "
        "remove the device; off, they are events like any other.",
    )
    device_token_event: str = Field(
        default="",
        validation_alias=AliasChoices("device_token_event", "deviceTokenEventName"),
        description="Name of an event that brings a device token, beside Application Installed and Opened.",
    )
    track_url: VendorUrl = Field(
        default="", description="Another address of the Track API, such as a simulator's."
    )
    app_url: VendorUrl = Field(default="", description="Another address of the App API.")
    pipelines_url: VendorUrl = Field(
        default="", description="Another address of the Pipelines API, without /v1."
    )
    base_url: VendorUrl = Field(
        default="", description="One address for all three APIs, such as a simulator's."
    )

    @field_validator("region", mode="before")
    @classmethod
    def _in_any_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("site_id")
    @classmethod
    def _is_site_id(cls, value: str) -> str:
        if ":" in value:
            raise ValueError("holds a colon: what is before it is the site_id, what is behind it the api_key")
        return _line(value, "Customer.io's site id")

    @field_validator("api_key", "app_api_key", "pipelines_write_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(_line(value.get_secret_value(), "Customer.io's key"))

    @model_validator(mode="after")
    def _has_its_keys(self) -> CustomerIoSettings:
        if self.api == "pipelines" and self.pipelines_write_key is None:
            raise ValueError("api: pipelines needs pipelines_write_key")
        if self.conflicts != "leave" and self.app_api_key is None:
            raise ValueError(f"conflicts: {self.conflicts} needs app_api_key, to find out who holds what")
        if self.conflicts != "leave" and self.api == "pipelines":
            raise ValueError(f"conflicts: {self.conflicts} works with api: track only")
        return self


class CustomerIo(Destination[CustomerIoSettings]):
    """Delivers every call of the spec to one Customer.io workspace."""

    name: ClassVar[str] = "customerio"
    Settings: ClassVar[type[CustomerIoSettings]] = CustomerIoSettings

    def __init__(self, settings: CustomerIoSettings) -> None:
        super().__init__(settings)
        self._rules = Rules(settings.device_token_event, settings.device_events, settings.anonymous)
        self._account = Account(_keys(settings), settings.region, _urls(settings))
        self._capability = PIPELINES if settings.api == "pipelines" else ""
        track, pipelines = self._account.track_url, self._account.pipelines_url
        self._addresses: Mapping[str, str] = {
            "": pipelines_url(pipelines, "batch") if self._capability else entity_url(track),
            "events": anonymous_events_url(track),
            "metrics": f"{track}/api/v1/metrics",
            "alias": pipelines_url(pipelines, "alias"),
        }

    def limits(self) -> Limits:
        """A thousand messages or 500 KB at a time; a person's may share a batch, and identifies one item."""
        return Limits(
            batch=BATCH,
            batch_bytes=BATCH_BYTES - FRAME_BYTES,
            in_flight=8,
            ordered_batch=True,
            coalesce=True,
        )

    def budgets(self) -> Mapping[str, float]:
        """Requests per minute of each API."""
        return budgets(self.settings.rate)

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """Make the v2 items or the v1 call of a message, or the same as Pipelines calls."""
        reports: list[str] = []
        try:
            post = post_of(message, self._rules, reports.append)
            if isinstance(post, Post) and self._capability:
                if post.identification is not None and post.identification.relationships:
                    reports.append("cio_relationships left out: Pipelines takes them from group calls alone")
                post = pipelines_post(post, message)
        except Unfit as error:
            return Rejected(str(error))
        return self._payload(post, reports) if isinstance(post, Post) else post

    def _payload(self, post: Post, reports: Sequence[str]) -> Payload:
        url, size_bytes = self._addresses[post.call], sum([len(body) + 1 for body in post.encoded])
        if self._asks_first(post):
            calls = tuple([Call("POST", url, body, UNCONTESTED) for body in post.bodies])
            return Payload(calls, (), reports, APP, post, size_bytes)
        calls = tuple([Call("POST", url, body) for body in post.bodies])
        return Payload(calls, (), reports, self._capability, post, size_bytes)

    def _asks_first(self, post: Post) -> bool:
        """Whether it needs the App API: its identifiers may be another profile's, or it merges two."""
        found, settings = post.identification, self.settings
        if found is None:
            return post.merges and settings.app_api_key is not None
        return settings.conflicts != "leave" and found.trusted and found.renames

    async def deliver(self, payload: Payload, scope: Scope) -> Delivered:
        """Send one payload to the account's region. Raises `Undelivered`."""
        try:
            return await (await self._carrier(scope)).alone(payload.data)
        except Undelivered as error:
            raise self._explained(error, scope) from error

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        """Send payloads in one request as far as they can be, each person's in their order.

        Raises `Undelivered` where the first request of all fails.
        """
        if not payloads:
            return []
        try:
            carrier = await self._carrier(scope)
            people = [_names(payload) for payload in payloads]
            ended = await Batch([payload.data for payload in payloads], people, carrier).run()
        except Undelivered as error:
            raise self._explained(error, scope) from error
        return [self._explained(each, scope) if isinstance(each, Undelivered) else each for each in ended]

    def _explained(self, error: Undelivered, scope: Scope) -> Undelivered:
        """Return the same failure explained; behind a redirect, with the region to be asked for again."""
        exchange = error.exchange
        if not isinstance(error.outcome, Rejected) or exchange is None or not 300 <= exchange.status < 400:
            return _explained(error)
        self._account.forget(scope.memory)
        return Undelivered(Retry(MOVED, code=exchange.status), exchange)

    async def _carrier(self, scope: Scope) -> Carrier:
        apis = await self._account.opened(scope.http, scope.memory)
        if self._capability and apis.pipelines is not None:
            return PipelinesCarrier(scope, apis.pipelines)
        if apis.app is None:
            return TrackCarrier(scope, apis.track, None)
        return TrackCarrier(
            scope, apis.track, Conflicts(self.settings.conflicts, apis.app, apis.track, scope)
        )

    def merge(self, earlier: Payload, later: Payload) -> Payload | None:
        """Return two identifies of one profile as one: later values win (D20)."""
        first, second = earlier.data.identification, later.data.identification
        if self._capability or first is None or second is None:
            return None
        joined = first.followed_by(second)
        if joined is None:
            return None
        people = tuple(dict.fromkeys([*earlier.data.people, *later.data.people]))
        try:
            return self._payload(of_identification(joined, people), [*earlier.reports, *later.reports])
        except Unfit:
            return None

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Ask each API whether its key works, and what the App key may read (C099–C103)."""
        return await Examination(self._account, scope.http).lines()


def _names(payload: Payload) -> tuple[str, ...]:
    """Return what a payload's person is known by: the ids it names, and whose lane it is of."""
    people: tuple[str, ...] = payload.data.people
    return (*people, f"\0{payload.person}") if payload.person else people


def _keys(settings: CustomerIoSettings) -> Keys:
    secrets = (settings.api_key, settings.app_api_key, settings.pipelines_write_key)
    return Keys(settings.site_id, *["" if key is None else key.get_secret_value() for key in secrets])


def _urls(settings: CustomerIoSettings) -> Urls:
    own = (settings.track_url, settings.app_url, settings.pipelines_url)
    return Urls(*[url or settings.base_url for url in own])


def _line(value: str, what: str) -> str:
    stripped = value.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable():
        raise ValueError(f"must be {what}: one line of plain characters")
    return stripped


def _explained(error: Undelivered) -> Undelivered:
    """Return the same failure with what Customer.io says is wrong, or what people can do about it."""
    outcome, exchange = error.outcome, error.exchange
    if isinstance(outcome, Paused) and outcome.code == 401 and exchange is not None:
        return Undelivered(
            replace(outcome, reason=f"{outcome.reason} ({_whose_key(exchange.url)})"), exchange
        )
    if isinstance(outcome, Rejected) and outcome.code == 400 and exchange is not None:
        said = said_in(exchange.answer)
        return Undelivered(replace(outcome, reason=f"400: {said}"), exchange) if said else error
    return error


def _whose_key(url: str) -> str:
    """Say which key was refused: the paths of the three APIs differ."""
    if "/api/v" in url:
        return TRACK_REFUSED
    return "app_api_key is refused" if "/v1/customers" in url else "pipelines_write_key is refused"
