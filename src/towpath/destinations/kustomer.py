"""Kustomer: events as tracking calls, identifies as customers that are looked up first."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from msgspec.structs import replace
from pydantic import AliasChoices, Field, SecretStr, field_validator

from towpath.destination import Call, Check, Destination, Limits, Payload, Scope, Settings
from towpath.http import Undelivered
from towpath.message import Message, identifier
from towpath.outcome import Delivered, Paused, Rejected, Skipped
from towpath.vendors.kustomer import KustomerApi, customer_url, customers_url, look_up_url, tracking_url
from towpath.vendors.kustomer_schema import MOST_CUSTOM_KEYS, Unfit, event_name_fits, is_e164

from ._kustomer_event import OWN_KEYS, encoded, event_of, external_id, identity_of, user_id
from ._kustomer_people import Identification, Key, KnownCustomers, Person
from ._kustomer_profile import Profile

TRACKING, CUSTOMERS = "tracking", "customers"
TRACKING_ROLE = "org.tracking"
ROLES: Mapping[str, tuple[str, str]] = {
    # Each role: its capability, and the older role that grants it as well.
    TRACKING_ROLE: (TRACKING, ""),
    "org.permission.customer.create": (CUSTOMERS, "org.user.customer.write"),
    "org.permission.customer.read": (CUSTOMERS, "org.user.customer.read"),
    "org.permission.customer.update": (CUSTOMERS, "org.user.customer.write"),
}
_ROLES_HELP = ", ".join(ROLES)
_WRONG_POD = re.compile(r"associated with pod|handled by (?:pod )?prod", re.IGNORECASE).search
WRONG_REGION = (
    "wrong region: the key belongs to another Kustomer instance. Set base_url to "
    "https://api.kustomerapp.com (US), https://api.prod2.kustomerapp.com (EU) "
    "or https://<your organisation>.api.kustomerapp.com"
)


class KustomerSettings(Settings):
    """Settings of the Kustomer destination; RudderStack's spelling of each key works as well."""

    api_key: SecretStr = Field(
        validation_alias=AliasChoices("api_key", "apiKey"),
        description=f"API key (Settings, Security, API Keys). It needs the roles {_ROLES_HELP}.",
    )
    advanced_transform: bool = Field(
        default=True,
        validation_alias=AliasChoices("advanced_transform", "advancedTransform"),
        description="Rewrite event names, property keys and property values to what Kustomer accepts.",
    )
    set_identity_email: bool = Field(
        default=False,
        validation_alias=AliasChoices("set_identity_email", "setIdentityEmail"),
        description="Add the e-mail to the identity of track, page and screen. Kustomer finds or creates the "
        "customer by it: leave it off when an e-mail may belong to someone other than the userId.",
    )
    disable_email_as_tracking_property: bool = Field(
        default=False,
        validation_alias=AliasChoices("disable_email_as_tracking_property", "disableEmailAsTrackingProperty"),
        description="Leave the property `email` out of track, page and screen.",
    )
    generic_page: bool = Field(
        default=False,
        validation_alias=AliasChoices("generic_page", "genericPage"),
        description="Send every page event under the one name Web-Page-Viewed.",
    )
    generic_screen: bool = Field(
        default=False,
        validation_alias=AliasChoices("generic_screen", "genericScreen"),
        description="Send every screen event under the one name Screen-Viewed.",
    )
    base_url: str = Field(
        default="https://api.kustomerapp.com",
        validation_alias=AliasChoices("base_url", "baseEndpoint", "base_endpoint"),
        description="Where the data lives; https://<organisation>.api.kustomerapp.com always fits; "
        "US https://api.kustomerapp.com, EU https://api.prod2.kustomerapp.com, "
        "India https://api.prod4.kustomerapp.com.",
    )
    rate: float = Field(
        default=300,
        gt=0,
        description="Requests per minute. All keys of an organisation share 300 to 2,000, by plan.",
    )
    lookup_phone: bool = Field(
        default=False,
        validation_alias=AliasChoices("lookup_phone", "lookupPhone"),
        description="Look a customer up by phone as well (after e-mail), where the number is in E.164 form.",
    )
    keep_company: bool = Field(
        default=True,
        validation_alias=AliasChoices("keep_company", "keepCompany"),
        description="Send the company that Kustomer shows again with every update that names none: an "
        "update without it may unlink the customer.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?", value):
            raise ValueError("must be an http or https address such as https://api.kustomerapp.com")
        return value.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("must be Kustomer's API key: one line of plain characters")
        return SecretStr(key)


class Kustomer(Destination[KustomerSettings]):
    """Delivers identify, track, page and screen to one Kustomer organisation."""

    name: ClassVar[str] = "kustomer"
    Settings: ClassVar[type[KustomerSettings]] = KustomerSettings

    def __init__(self, settings: KustomerSettings) -> None:
        super().__init__(settings)
        self._tracking_url = tracking_url(settings.base_url)
        self._leave = OWN_KEYS | ({"email"} if settings.disable_email_as_tracking_property else set())
        self._generic = {"page": settings.generic_page, "screen": settings.generic_screen}

    def limits(self) -> Limits:
        """One call per message, sixteen at once; waiting identifies of a person may become one."""
        return Limits(in_flight=16, coalesce=True)

    def headers(self) -> Mapping[str, str]:
        """The API key as bearer token."""
        return {"authorization": f"Bearer {self.settings.api_key.get_secret_value()}"}

    def budgets(self) -> Mapping[str, float]:
        """One allowance for everything: Kustomer counts all requests of an organisation together."""
        return {"": self.settings.rate}

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """One tracking call, or an identify with its look-ups and both endings."""
        try:
            if message.type in ("track", "page", "screen"):
                return self._event(message)
            if message.type == "identify":
                return self._identify(message)
        except Unfit as error:
            return Rejected(str(error))
        if not message.type:
            return Rejected("the message has no type: identify, track, page or screen")
        detail = f"{message.type} is not supported: Kustomer takes identify, track, page and screen (K010)"
        return Skipped("unsupported", detail)

    def _event(self, message: Message) -> Payload:
        reports: list[str] = []
        settings = self.settings
        identity = identity_of(message, reports, with_email=settings.set_identity_email)
        event = event_of(
            message,
            reports,
            advanced=settings.advanced_transform,
            generic=self._generic.get(message.type, False),
            leave=self._leave,
        )
        body = {"identity": identity, "event": event}
        return Payload((Call("POST", self._tracking_url, body),), (), reports, TRACKING, encoded(body))

    def _identify(self, message: Message) -> Payload:
        reports: list[str] = []
        known_as = external_id(message)
        profile = Profile(message, reports).attributes()
        body = {**profile, "externalId": known_as}
        encoded(body)
        own_ids = {found for found in (known_as, user_id(message), message.anonymous_id) if found}
        person = Person(
            body,
            tuple(dict.fromkeys(self._keys(message, body))),
            _kustomer_id(message, reports),
            anonymous=user_id(message) is None,
            own_ids=frozenset(own_ids),
            trusted=message.trust == "server",
        )
        return self._payload(person, reports)

    def _keys(self, message: Message, body: Mapping[str, Any]) -> list[Key]:
        """The look-ups of a person in order: e-mail, phone where asked for, userId, anonymousId (K061)."""
        keys: list[Key] = [("email", item["email"]) for item in body.get("emails", ())[:1]]
        if self.settings.lookup_phone:
            phones = [item["phone"] for item in body.get("phones", ()) if is_e164(item["phone"])]
            keys += [("phone", phone) for phone in phones[:1]]
        return keys + [("externalId", found) for found in (user_id(message), message.anonymous_id) if found]

    def _payload(self, person: Person, reports: Sequence[str]) -> Payload:
        base_url, body = self.settings.base_url, person.body
        if person.customer_id:
            shown = dict(body)
            if person.anonymous:
                del shown["externalId"]
            calls = (Call("PUT", customer_url(base_url, person.customer_id), shown),)
            return Payload(calls, (), reports, CUSTOMERS, person)
        look_ups = [Call("GET", look_up_url(base_url, *key)) for key in person.keys]
        found = "a look-up finds the customer"
        if person.anonymous:
            found += "; without externalId where the customer has one"
        update = Call("PUT", f"{customers_url(base_url)}/{{id}}?replace=false", body, found)
        create = Call("POST", customers_url(base_url), body, "no look-up finds the customer")
        return Payload((update, create), look_ups, reports, CUSTOMERS, person)

    async def deliver(self, payload: Payload, scope: Scope) -> Delivered:
        """Send the event, or find the person and update or create the customer. Raises `Undelivered`.

        Reports what only shows at delivery: an identifier that another customer holds.
        """
        api = KustomerApi(scope.http, self.settings.base_url)
        reports: list[str] = []
        try:
            if isinstance(payload.data, Person):
                known, keep_company = KnownCustomers(scope.memory), self.settings.keep_company
                person = Identification(payload.data, api, known, reports.append, keep_company=keep_company)
                await person.run()
            else:
                await api.track(payload.data)
        except Undelivered as error:
            raise self._explained(error, payload) from error
        return Delivered(reports=tuple(reports))

    def _explained(self, error: Undelivered, payload: Payload) -> Undelivered:
        """The same failure, with what people can do about it."""
        outcome = error.outcome
        code = error.exchange.status if error.exchange else 0
        if 400 <= code < 500 and error.exchange and _WRONG_POD(error.exchange.answer):
            return Undelivered(Paused(f"{code}: {WRONG_REGION}", code), error.exchange)
        if isinstance(outcome, Paused):
            reason = f"{outcome.reason} (the API key is refused or lacks a role; it needs {_ROLES_HELP})"
            return Undelivered(Paused(reason, outcome.code), error.exchange)
        if isinstance(outcome, Rejected) and outcome.code == 400 and payload.capability == TRACKING:
            return Undelivered(Rejected(self._with_fix(outcome.reason, payload), 400), error.exchange)
        return error

    def _with_fix(self, reason: str, payload: Payload) -> str:
        name = payload.requests[0].json["event"]["name"]
        if self.settings.advanced_transform:
            return reason
        if event_name_fits(name):
            return (
                f"{reason} (fix: turn on advanced_transform, which writes properties as Kustomer wants them)"
            )
        return (
            f"{reason} (Kustomer's event names have no spaces: a letter first, then letters, digits, "
            f"'-', '_' or '.'; {name!r} does not fit. Fix: turn on advanced_transform, and replay)"
        )

    def merge(self, earlier: Payload, later: Payload) -> Payload | None:
        """Two identifies of the same customer as one: later values win, lists are replaced (D20)."""
        first, second = earlier.data, later.data
        if not isinstance(first, Person) or not isinstance(second, Person) or not _same(first, second):
            return None
        body = {**first.body, **second.body}
        if custom := {**first.body.get("custom", {}), **second.body.get("custom", {})}:
            body["custom"] = custom
        try:
            encoded(body)
        except Unfit:
            return None
        if len(custom) > MOST_CUSTOM_KEYS:
            return None
        return self._payload(replace(second, body=body), [*earlier.reports, *later.reports])

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Ask Kustomer for the key's own roles, as every valid key may, and name each missing one (K008)."""
        api = KustomerApi(scope.http, self.settings.base_url)
        try:
            reply = await api.current_token()
        except Undelivered as error:
            return [Check.failed("API key", self._explained(error, Payload(())))]
        roles = _roles_in(reply.json())
        return [Check("API key", ok=True, detail="accepted"), *(_role_line(role, roles) for role in ROLES)]


def _same(first: Person, second: Person) -> bool:
    return (first.keys, first.customer_id, first.anonymous, first.trusted, first.own_ids) == (
        second.keys,
        second.customer_id,
        second.anonymous,
        second.trusted,
        second.own_ids,
    )


def _kustomer_id(message: Message, reports: list[str]) -> str:
    """The id in `context.externalId: [{type: "kustomerId", id}]`; empty when there is none (K060)."""
    listed = message.context.get("externalId")
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, dict) and item.get("type") == "kustomerId":
            found = identifier(item.get("id"))
            # A path segment of dots only would lead elsewhere, even percent-encoded.
            if found and found.strip("."):
                return found
            reports.append("context.externalId left out: its kustomerId is empty or no id")
    return ""


def _roles_in(answer: Any) -> Collection[str] | None:
    """The roles of `{data: {attributes: {roles}}}`; None when the answer shows none."""
    for key in ("data", "attributes", "roles"):
        answer = answer.get(key) if isinstance(answer, dict) else None
    return {role for role in answer if isinstance(role, str)} if isinstance(answer, list) else None


def _role_line(role: str, roles: Collection[str] | None) -> Check:
    capability, older = ROLES[role]
    if roles is None:
        return Check(
            role, ok=True, capability=capability, detail="not sure: Kustomer did not list the key's roles"
        )
    if role in roles:
        return Check(role, ok=True, capability=capability, detail="granted")
    if older in roles:
        return Check(role, ok=True, capability=capability, detail=f"granted by the older role {older}")
    parents = sorted(
        found for found in roles if f"{role}.".startswith(f"{found}.") or f"{older}.".startswith(f"{found}.")
    )
    if parents:
        detail = f"not sure: the key has {parents[0]}, which probably includes it"
        return Check(role, ok=True, capability=capability, detail=detail)
    detail = f"missing; make a new key with {_ROLES_HELP} (roles of a key cannot be changed)"
    return Check(role, ok=False, capability=capability, detail=detail)
