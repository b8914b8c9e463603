"""Identifiers that two profiles at Customer.io claim: looked up, left, renamed or merged, and reported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from towpath.destination import Scope
from towpath.http import Reply, Stopping, Undelivered
from towpath.outcome import Delivered, Rejected, Retry, Skipped
from towpath.vendors.customerio import NOT_FOUND, AppApi, TrackApi

from ._customerio_profile import Identification

Policy: TypeAlias = Literal["leave", "rename", "merge"]
PREFERENCES, UNSUBSCRIBED = "cio_subscription_preferences", "unsubscribed"
SETTLED_S = 24 * 3600.0
READ_BACKS = 3
"""Profiles of one call that are read back: the App API allows 10 requests a second to everybody together."""
SILENT = "app api silent"
SILENT_S = 60.0
"""How long nothing is read back after the App API did not answer: what is written does not wait for it."""
_encode = msgspec.json.Encoder().encode
SKEW_S = 5.0  # how far the vendor's clock may be behind ours


class Found(Struct, frozen=True):
    """A profile as the App API shows it; the id is empty where it has none."""

    cio_id: str
    id: str


class Consent(Struct, frozen=True):
    """What a profile may not be sent: everything, or single topics."""

    unsubscribed: bool
    topics: Mapping[str, bool]


class Conflicts:
    """Writes identifies whose identifiers another profile may hold, by the policy; needs the App API.

    An e-mail from a source that is not trusted is never taken from somebody with another id: it is left out.
    What one of two merged profiles refused (everything, or single topics) the one that is left refuses (D09).
    """

    def __init__(self, policy: Policy, app: AppApi, track: TrackApi, scope: Scope) -> None:
        self._policy = policy
        self._app = app
        self._track = track
        self._scope = scope

    def concern(self, given: Identification) -> bool:
        """Whether this identify is to be looked up before it is written; one that went well is remembered."""
        if "cio_id" in given.identifiers or not (given.renames or given.claimed):
            return False
        if given.trusted and self._policy == "leave":
            return False
        return self._scope.memory.find(_settled_key(given)) is None

    async def write(self, given: Identification) -> Delivered:
        """Look up who holds its identifiers, and write it. Raises `Undelivered`."""
        reports: list[str] = []
        began_s = self._scope.clock.now()
        settle = self._resolved if given.trusted else self._guarded
        written = await settle(given, reports)
        for item in written.items():
            await self._track.entity(_encode(item))
        if (cio_id := written.identifiers.get("cio_id")) is not None:
            await self._confirm(cio_id)
        if not reports:
            reports += await self._failures_of(written, began_s, given)
        return Delivered(200, tuple(reports))

    async def join(self, primary: Mapping[str, str], secondary: Mapping[str, str]) -> Delivered:
        """Merge two people as an alias says, without losing what either refused. Raises `Undelivered`."""
        own, other = await self._by(primary), await self._by(secondary)
        if len(own) != 1 or len(other) != 1 or own[0].cio_id == other[0].cio_id:
            await self._track.entity(_merging(primary, secondary))
            return Delivered(200)
        await self._merge(own[0], other[0])
        await self._confirm(own[0].cio_id)
        return Delivered(200)

    async def _guarded(self, given: Identification, reports: list[str]) -> Identification:
        """Return it as trusted, without an e-mail that somebody else has (D13).

        Where the App API refuses to say, it stays untrusted: in two steps, which Customer.io itself guards.
        Raises `Undelivered` (skipped) for a visitor who names the e-mail of a user.
        """
        email = given.attributes["email"] if "email" in given.attributes else given.identifiers["email"]
        try:
            holders = await self._holders(email)
        except Undelivered as error:
            if isinstance(error.outcome, Retry):
                raise
            return given
        if not any(holder.id and holder.id != given.identifiers.get("id") for holder in holders):
            return replace(given, trusted=True)
        if given.claimed:
            raise Undelivered(
                Skipped("untrusted", "a user holds this e-mail; a client source cannot claim it")
            )
        reports.append("email left out: another profile holds it, and a client source cannot take it (D13)")
        attributes = {name: value for name, value in given.attributes.items() if name != "email"}
        return replace(given, attributes=attributes)

    async def _resolved(self, given: Identification, reports: list[str]) -> Identification:
        """Return it addressed to the profile that it is about, after a merge where the policy says so."""
        names = [name for name in ("id", "email") if name in given.attributes]
        wanted: list[Mapping[str, str]] = [{name: str(given.attributes[name])} for name in names]
        sides = [await self._by(who) for who in [given.identifiers, *wanted]]
        if any(len(side) > 1 for side in sides):
            return given  # the workspace lets several share an e-mail: no identifier there
        found = list({profile.cio_id: profile for side in sides for profile in side}.values())
        if not found:
            return given
        own, others = found[0], found[1:]
        if others and self._policy == "rename":
            reports.append(
                "identifiers not applied: another profile holds them; `conflicts: merge` merges the two"
            )
            return given
        for other in others:
            await self._merge(own, other)
            reports.append("merged with the profile that held the other identifier; what it refused is kept")
        return self._addressed(given, own)

    def _addressed(self, given: Identification, own: Found) -> Identification:
        """Return it by cio_id, through which alone an id or e-mail that is set can be changed."""
        attributes = {**given.identifiers, **given.attributes}
        if refused := self._refused(own.cio_id):
            if any(name != UNSUBSCRIBED for name in refused):
                attributes.pop(
                    PREFERENCES, None
                )  # as a whole it would wipe out the refusals of single topics
            attributes |= refused
        return replace(given, identifiers={"cio_id": own.cio_id}, attributes=attributes)

    async def _merge(self, own: Found, other: Found) -> None:
        """Merge the other profile into the own one; first what the other refused is refused there too (D17).

        In this order a retry after any step finds the refusals, there or in this connection's memory.
        """
        mine, theirs = await self._consent(own.cio_id), await self._consent(other.cio_id)
        refused: dict[str, bool] = {}
        if mine.unsubscribed or theirs.unsubscribed:
            refused[UNSUBSCRIBED] = True
        for topic in {**mine.topics, **theirs.topics}:
            if mine.topics.get(topic) is False or theirs.topics.get(topic) is False:
                refused[f"{PREFERENCES}.topics.{topic}"] = False
        if refused:
            self._scope.memory.keep(_consent_key(own.cio_id), _encode(refused).decode(), SETTLED_S)
            now = int(self._scope.clock.now())
            item = Identification({"cio_id": own.cio_id}, refused, now).items()[0]
            await self._track.entity(_encode(item))
        await self._track.entity(_merging({"cio_id": own.cio_id}, {"cio_id": other.cio_id}))

    def _refused(self, cio_id: str) -> dict[str, bool]:
        """Return what a profile must go on refusing after a merge, until it is read back."""
        kept = self._scope.memory.find(_consent_key(cio_id))
        return {} if kept is None else msgspec.json.decode(kept, type=dict[str, bool])

    async def _confirm(self, cio_id: str) -> None:
        """Read back what a merged profile refuses; tried again until Customer.io shows it."""
        refused = self._refused(cio_id)
        if not refused:
            return
        shown = await self._consent(cio_id)
        topics = [name.rpartition(".")[2] for name in refused if name != UNSUBSCRIBED]
        kept = all(shown.topics.get(topic) is False for topic in topics)
        if not kept or (UNSUBSCRIBED in refused and not shown.unsubscribed):
            raise Undelivered(Retry("Customer.io does not show yet what the merged profile has refused"))
        self._scope.memory.drop(_consent_key(cio_id))

    async def _by(self, who: Mapping[str, str]) -> Sequence[Found]:
        """Return who has an identifier; several where a workspace lets them share an e-mail."""
        ((kind, value),) = who.items()
        if kind == "email":
            return await self._holders(value)
        named = f"cio_{value}" if kind == "cio_id" else value
        reply = await _told(self._app.customer_attributes(named, id_type=_ID_TYPES[kind]))
        return () if reply.status == NOT_FOUND else _profiles([_customer(reply).get("identifiers")])

    async def _holders(self, email: str) -> Sequence[Found]:
        """Return who has an e-mail."""
        answer = (await _told(self._app.customers_by_email(email))).json()
        listed = answer.get("results") if isinstance(answer, dict) else None
        return _profiles(listed if isinstance(listed, list) else [])

    async def _consent(self, cio_id: str) -> Consent:
        customer = _customer(await _told(self._app.customer_attributes(f"cio_{cio_id}", id_type="cio_id")))
        attributes = customer.get("attributes")
        shown = attributes.get(PREFERENCES) if isinstance(attributes, dict) else None
        return Consent(customer.get("unsubscribed") is True, _topics(shown))

    async def failures(self, given: Sequence[Identification], since_s: float) -> list[tuple[str, ...]]:
        """Return what Customer.io did not apply of identifies just written, one tuple of reports for each.

        Of a call a few are asked about, those that set an identifier not seen before; none while the App
        API's allowance is used up. What cannot be read says nothing.
        """
        worth = [place for place, each in enumerate(given) if self._is_worth_asking(each)][:READ_BACKS]
        asking = (self._failures_of(given[place], since_s, given[place]) for place in worth)
        told = dict(zip(worth, await asyncio.gather(*asking), strict=True))
        return [told.get(place, ()) for place in range(len(given))]

    def _is_worth_asking(self, given: Identification) -> bool:
        throttle = self._scope.http.throttles.get(self._app.bucket)
        if not given.renames or (throttle is not None and throttle.blocked_s > 0):
            return False
        if self._scope.memory.find(SILENT) is not None:
            return False
        return self._scope.memory.find(_settled_key(given)) is None

    async def _failures_of(
        self, written: Identification, since_s: float, given: Identification
    ) -> tuple[str, ...]:
        """Return what was not applied of what was written; where nothing was, what was given is settled."""
        ((kind, value),) = written.identifiers.items()
        value = f"cio_{value}" if kind == "cio_id" else value
        try:
            reply = await self._app.customer_activities(
                value, id_type=_ID_TYPES[kind], type="failed_attribute_change"
            )
        except Stopping:
            return ()  # it is written: whatever becomes of the question, that stands
        except Undelivered:
            self._scope.memory.keep(SILENT, "1", SILENT_S)
            return ()
        told = tuple(_failures(reply, since_s - SKEW_S))
        if not told:
            self._scope.memory.keep(_settled_key(given), "1", SETTLED_S)
        return told


_NOBODY = frozenset({0, 400, 404, 422})
_ID_TYPES: Mapping[str, Literal["id", "email", "cio_id"]] = {"id": "id", "email": "email", "cio_id": "cio_id"}


async def _told(asking: Awaitable[Reply]) -> Reply:
    """Return what the App API says; nobody is there for an id or e-mail that it does not take.

    Raises `Undelivered`; its rate limit is not that of what is written, which need not wait for it.
    """
    try:
        return await asking
    except Undelivered as error:
        if isinstance(error.outcome, Rejected) and error.outcome.code in _NOBODY:
            return Reply(NOT_FOUND)
        if isinstance(error.outcome, Retry) and error.outcome.throttled:
            raise Undelivered(replace(error.outcome, throttled=False), error.exchange) from error
        raise


def _failures(reply: Reply, since_s: float) -> list[str]:
    """Read the newest failed changes as sentences without anybody's data."""
    answer = reply.json()
    listed = answer.get("activities") if isinstance(answer, dict) else None
    told = []
    for activity in listed if isinstance(listed, list) else ():
        moment, data = activity.get("timestamp"), activity.get("data")
        if isinstance(moment, int | float) and moment >= since_s and isinstance(data, dict):
            names = ", ".join(name for name in data if name != "reason")
            told.append(f"Customer.io did not apply {names}: {data.get('reason', 'no reason given')}")
    return list(dict.fromkeys(told))


def _merging(primary: Mapping[str, str], secondary: Mapping[str, str]) -> bytes:
    return _encode({"type": "person", "action": "merge", "primary": primary, "secondary": secondary})


def _customer(reply: Reply) -> Mapping[str, Any]:
    """Return the profile of an answer. Raises `Undelivered` (retry) for one that shows none."""
    answer = reply.json()
    found = answer.get("customer") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise Undelivered(Retry("Customer.io's App API did not show the profile it was asked for"))
    return found


def _profiles(listed: Sequence[Any]) -> list[Found]:
    return [
        Found(str(each["cio_id"]), "" if each.get("id") is None else str(each["id"]))
        for each in listed
        if isinstance(each, dict) and each.get("cio_id")
    ]


def _topics(shown: Any) -> Mapping[str, bool]:
    """Read subscription preferences, which the App API shows as JSON in a text."""
    try:
        told = msgspec.json.decode(shown) if isinstance(shown, str) else shown
    except msgspec.DecodeError:
        return {}
    topics = told.get("topics") if isinstance(told, dict) else None
    return {name: value is not False for name, value in topics.items()} if isinstance(topics, dict) else {}


def _settled_key(given: Identification) -> str:
    named = msgspec.json.encode(
        [given.identifiers, *(given.attributes.get(name) for name in ("id", "email"))], order="sorted"
    )
    return f"identifiers:{blake2b(named, digest_size=16).hexdigest()}"


def _consent_key(cio_id: str) -> str:
    return f"consent:{cio_id}"
