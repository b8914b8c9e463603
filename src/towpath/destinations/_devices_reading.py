"""What a message tells of devices and people: `register push`, tokens, profiles, consent, deletions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from towpath.device import (
    Address,
    Deleted,
    DeviceEvent,
    Joined,
    Platform,
    Profiled,
    Registered,
    Seen,
    Traits,
    Unregistered,
    Word,
)
from towpath.message import Message, identifier
from towpath.outcome import Rejected, Skipped

DEVICE_CHARACTERS = 255
TOKEN_CHARACTERS = 4096
PERSON_CHARACTERS = 1000
TRAIT_CHARACTERS = 100

PLATFORMS: Mapping[str, Platform] = {"ios": "ios", "android": "android", "web": "web"}
_SYSTEMS: Mapping[str, Platform] = {**PLATFORMS, "ipados": "ios", "iphone os": "ios", "iphone": "ios"}
REGISTER = frozenset({"register push"})
UNREGISTER = {"unregister push": "unregistered", "push disabled": "disabled by the person"}
GONE = {"device deleted": "deleted", "application uninstalled": "uninstalled"}
DELETED = "user deleted"
SUBSCRIBE = frozenset({"subscribe to channel", "subscribe from channel", "subscribe channel"})
UNSUBSCRIBE = frozenset({"unsubscribe from channel", "unsubscribe channel"})
CHANNEL = "push"
_is_fid = re.compile(r"[c-f][A-Za-z0-9_-]{21}").fullmatch
_KINDS = frozenset({"identify", "track", "page", "screen", "group", "alias", "delete"})


class Reading(Struct, frozen=True):
    """What a message tells, and what there is to report of it."""

    events: tuple[DeviceEvent, ...]
    reports: tuple[str, ...] = ()


class Unfit(Exception):
    """The message cannot be read as what it says it is; says which field is at fault."""


def read_events(message: Message, proving: Collection[str] = ()) -> Reading | Skipped | Rejected:
    """Return what a message tells of devices and people, or why it tells nothing. Pure.

    `proving` are the sources that take no userId without a proof.
    """
    if message.type not in _KINDS:
        return Skipped("unsupported", f"{message.type!r} is not a call of the Segment spec")
    name = _name(message)
    reports: list[str] = []
    try:
        if message.type == "delete" or name == DELETED:
            return _deletion(message)
        if message.type == "alias":
            return _alias(message)
        found = _told(message, name, _word(message, proving), reports)
    except Unfit as error:
        return Rejected(str(error))
    if not found:
        return Skipped("unsupported", "it tells nothing of devices, traits or consent")
    return Reading(tuple(found), tuple(reports))


def _name(message: Message) -> str:
    """The name of a track event, as names are compared here (P030)."""
    event = message.event if message.type == "track" else None
    return " ".join(event.split()).lower() if isinstance(event, str) else ""


def _word(message: Message, proving: Collection[str]) -> Word:
    """Whose word it is; a proof is of the userId, and of nothing else in the message."""
    if message.trust == "server":
        return "server"
    return "proven" if message.user_id is not None and message.source in proving else "client"


def _told(message: Message, name: str, word: Word, reports: list[str]) -> list[DeviceEvent]:
    if name in REGISTER:
        return [_register(message, word, reports)]
    if name in UNREGISTER:
        return [_unregister(message, word, UNREGISTER[name])]
    if name in GONE:
        return _gone(message, word, GONE[name])
    found: list[DeviceEvent] = []
    if message.type == "identify":
        found += _profile(message, word)
    if name in SUBSCRIBE or name in UNSUBSCRIBE:
        found += _channel(message, word, reports, subscribed=name in SUBSCRIBE)
    return [*found, *_device(message, word, reports)]


def occurred_s(message: Message) -> float:
    """When it happened, in Unix seconds, never later than it was received.

    A device whose clock is ahead would else not be moved again before that time comes.
    """
    at = max(message.occurred_at.timestamp(), 0.0)
    return min(at, message.received_at) if message.received_at else at


# -- register push -------------------------------------------------------------------------------------


def _register(message: Message, word: Word, reports: list[str]) -> Registered:
    """`register push`: deviceId, fcmToken (or fid), deviceType; userId is the person's or the device's id."""
    properties = _object(message.properties)
    device = _text(properties, "deviceId", DEVICE_CHARACTERS, required=True)
    token = _text(properties, "fcmToken", TOKEN_CHARACTERS)
    fid = _text(properties, "fid", TOKEN_CHARACTERS)
    if not (token or fid):
        raise Unfit("properties.fcmToken is missing: one of fcmToken and fid is needed")
    told = properties.get("deviceType")
    platform = PLATFORMS.get(told.strip().lower()) if isinstance(told, str) else None
    if platform is None:
        raise Unfit("properties.deviceType must be iOS, Android or Web")
    person = _person(message)
    if person is None:
        reports.append("userId is missing: the device is taken as nobody's yet (userId = deviceId)")
    return Registered(
        device=device,
        person=person or device,
        address=_address(token) if token else Address("fid", fid),
        platform=platform,
        at=occurred_s(message),
        history=device in (message.user_id, message.anonymous_id),
        traits=_traits(message),
        word=word,
    )


def _unregister(message: Message, word: Word, reason: str) -> Unregistered:
    """`unregister push`, `push disabled`: names the device, else the token."""
    properties = _object(message.properties)
    named, reported = _context_device(message)
    device = _text(properties, "deviceId", DEVICE_CHARACTERS) or named
    token = _text(properties, "fcmToken", TOKEN_CHARACTERS)
    fid = _text(properties, "fid", TOKEN_CHARACTERS)
    if not (device or token or fid or reported):
        raise Unfit("properties.deviceId is missing: which device wants no push any more?")
    address = Address("fid", fid) if fid and not token else _address(token or reported)
    return _gone_of(message, word, reason, device, address)


def _gone(message: Message, word: Word, reason: str) -> list[DeviceEvent]:
    """`Device Deleted`, `Application Uninstalled`: the token, which may be an old one, else the device."""
    device, token = _context_device(message)
    if not (device or token):
        return []
    return [_gone_of(message, word, reason, "" if token else device, _address(token))]


def _gone_of(message: Message, word: Word, reason: str, device: str, address: Address) -> Unregistered:
    """A device that is named by its id, or where it has none by its address; and who says so."""
    own = message.anonymous_id if message.anonymous_id == device else None
    return Unregistered(
        at=occurred_s(message),
        device=device,
        address=address if address.value else None,
        person=message.user_id or own,
        reason=reason,
        word=word,
    )


# -- devices named by any message ----------------------------------------------------------------------


def _device(message: Message, word: Word, reports: list[str]) -> list[DeviceEvent]:
    """`context.device`: its token is a report of its address; its id alone says that it is in use (P036)."""
    device, token = _context_device(message)
    at, traits = occurred_s(message), _traits(message)
    if not token:
        return [Seen(device=device, at=at, traits=traits)] if device else []
    device = device or _named_by(token)
    person = _person(message)
    if person is None:
        reports.append("it names no userId: the device is taken as nobody's yet")
    return [
        Registered(
            device=device,
            person=person or device,
            address=_address(token),
            platform=_system(message),
            at=at,
            history=device in (message.user_id, message.anonymous_id),
            traits=traits,
            word=word,
        )
    ]


def _context_device(message: Message) -> tuple[str, str]:
    """The id and the token in `context.device`, empty where there are none that can be used."""
    device = _object(message.context.get("device"))
    token = identifier(device.get("token")) or ""
    name = identifier(device.get("id")) or ""
    name = name if len(name) <= DEVICE_CHARACTERS else ""
    return name, token if len(token) <= TOKEN_CHARACTERS and isinstance(device.get("token"), str) else ""


def _address(token: str) -> Address:
    """A token, or the Firebase installation id that newer SDKs report in its place."""
    return Address("fid" if _is_fid(token) else "token", token)


def _named_by(token: str) -> str:
    """The id of a device that tells none."""
    return f"token-{blake2b(token.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"


def _system(message: Message) -> Platform | None:
    device, system = _object(message.context.get("device")), _object(message.context.get("os"))
    for told in (device.get("type"), system.get("name")):
        if isinstance(told, str) and (found := _SYSTEMS.get(told.strip().lower())) is not None:
            return found
    return None


def _traits(message: Message) -> Traits:
    """What the app tells of itself in the context."""
    context, app = message.context, _object(message.context.get("app"))
    told = (
        app.get("namespace") or app.get("name"),
        app.get("version"),
        context.get("locale"),
        context.get("timezone"),
    )
    return Traits(*[_short(value) for value in told])


def _short(value: Any) -> str | None:
    return value.strip()[:TRAIT_CHARACTERS] or None if isinstance(value, str) else None


# -- people --------------------------------------------------------------------------------------------


def _profile(message: Message, word: Word) -> list[DeviceEvent]:
    """An identify: the person's traits, and the consent among them."""
    person = message.user_id or message.anonymous_id
    if person is None or len(person) > PERSON_CHARACTERS:
        return []
    traits = {**message.context_traits, **message.traits}
    return [
        Profiled(
            person=person,
            at=occurred_s(message),
            traits=traits,
            consent=_consent(traits),
            named=_is_named(message),
            anonymous=message.user_id is None,
            word=word,
        )
    ]


def _is_named(message: Message) -> bool:
    """Whether the userId is more than the id of a device on which nobody has signed in (P022, P023)."""
    return message.user_id not in (None, message.anonymous_id, _context_device(message)[0])


def _consent(traits: Mapping[str, Any]) -> bool | None:
    """`marketingPreferences.channels[{channel: push, subscribed}]`; one refusal outweighs all else (D09)."""
    channels = _object(traits.get("marketingPreferences")).get("channels")
    said = [
        one.get("subscribed") is True
        for one in (channels if isinstance(channels, list) else ())
        if isinstance(one, dict) and _is_push(one.get("channel")) and one.get("subscribed") is not None
    ]
    return all(said) if said else None


def _channel(message: Message, word: Word, reports: list[str], *, subscribed: bool) -> list[DeviceEvent]:
    """Subscribe to Channel, Unsubscribe from Channel; said of one campaign, only the latter counts."""
    properties = _object(message.properties)
    person = message.user_id or message.anonymous_id
    if person is None or not _is_push(properties.get("channel")):
        return []
    if properties.get("campaign_id") is not None:
        if subscribed:
            reports.append("a subscription to one campaign is no consent to push: nothing was kept")
            return []
        reports.append(
            "unsubscribed from one campaign: taken as from all push, as campaigns are not told apart"
        )
    return [
        Profiled(
            person=person,
            at=occurred_s(message),
            consent=subscribed,
            named=_is_named(message),
            anonymous=message.user_id is None,
            word=word,
        )
    ]


def _is_push(channel: Any) -> bool:
    return isinstance(channel, str) and channel.strip().lower() == CHANNEL


def _alias(message: Message) -> Reading | Skipped:
    """An alias: a server joins anybody, a client only its own anonymous id (D13)."""
    old, new = message.previous_id, message.user_id
    if old is None or new is None or old == new:
        return Skipped("unsupported", "an alias without both previousId and userId joins nobody")
    trusted = message.trust == "server"
    if not trusted and old != message.anonymous_id:
        return Skipped("untrusted", "a client source joins only its own anonymousId")
    return Reading((Joined(old=old, new=new, at=occurred_s(message), trusted=trusted),))


def _deletion(message: Message) -> Reading | Skipped:
    person = message.user_id or message.anonymous_id
    if message.trust != "server":
        return Skipped("untrusted", "a client source cannot delete people")
    if person is None:
        return Skipped("unsupported", "a deletion without userId deletes nobody")
    return Reading((Deleted(person=person, at=occurred_s(message)),))


# -- values --------------------------------------------------------------------------------------------


def _person(message: Message) -> str | None:
    if message.user_id is not None and len(message.user_id) > PERSON_CHARACTERS:
        raise Unfit(f"userId has more than {PERSON_CHARACTERS} characters")
    return message.user_id


def _text(properties: Mapping[str, Any], name: str, most: int, *, required: bool = False) -> str:
    """A property as a trimmed string, empty where it is missing. Raises `Unfit`."""
    value = properties.get(name)
    if value is not None and not isinstance(value, str):
        raise Unfit(f"properties.{name} must be a string")
    text = (value or "").strip()
    if required and not text:
        raise Unfit(f"properties.{name} is missing")
    if len(text) > most:
        raise Unfit(f"properties.{name} has more than {most} characters")
    return text


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
