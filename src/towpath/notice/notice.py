"""A notice: settings whose merge tags are read once and filled for each person."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from ..device import Device
from ..mapping.paths import MISSING, Draft, Path, Unusable
from ..mapping.template import Template, as_text
from ..message import Message
from . import fields, links
from .content import Content
from .settings import NoticeSettings

_NOT_FOR_LABELS = re.compile(r"[^a-zA-Z0-9\-_.~%]+")


class Notice:
    """What a campaign or an event says to people. `code` names it: its label and what a repeat replaces."""

    def __init__(self, settings: NoticeSettings, code: str) -> None:
        self.settings = settings
        self.code = code
        parts = list(_parts(settings))
        self.paths = tuple(path for part in parts for path in part.template.paths)
        """The merge tags, wherever they stand."""
        self._badge = next(part.template.paths for part in parts if part.name == "badge")
        self._changing = [part for part in parts if part.template.paths]
        nobody = Draft(Message())
        self._same = Content(
            code=code,
            silent=settings.silent,
            ttl_s=None if settings.ttl is None else settings.ttl.total_seconds(),
            priority=settings.priority,
            label=settings.label or _NOT_FOR_LABELS.sub("-", code)[:50],
            **{part.name: part.fill(nobody) for part in parts if not part.template.paths},
        )

    @property
    def changing(self) -> frozenset[str]:
        """The fields of its `Content` that differ between people."""
        return frozenset(part.name for part in self._changing)

    @property
    def static(self) -> bool:
        """Whether it says the same to everyone: then one `Encoded` for each platform does for all."""
        return not self.paths

    @property
    def of_person(self) -> bool:
        """Whether it names traits, which the registry of devices knows."""
        return any(path.root == "traits" for path in self.paths)

    def fill(self, message: Message) -> Content:
        """What it says to the person of a message. Raises `mapping.paths.Unusable`, naming the field."""
        return self._filled(Draft(message)) if self._changing else self._same

    def sample(self, message: Message) -> tuple[Content, tuple[str, ...]]:
        """The same with `{traits.first_name}` left to see where only the registry knows; and these tags.

        Raises `mapping.paths.Unusable` where the message itself lacks something.
        """
        draft, unknown = Draft(msgspec.structs.replace(message, traits=_told(message))), set[str]()
        for path in sorted(self.paths, key=lambda path: -len(path.keys)):
            if not (path.root == "traits" or _of_device(path)) or draft.find(path) not in (MISSING, None):
                continue
            with suppress(Unusable):  # what stands above it is no object, nor will be
                draft.write(path, 0 if path in self._badge else f"{{{path.text}}}")
                unknown.add(path.text)
        return self._filled(draft), tuple(sorted(unknown))

    def _filled(self, draft: Draft) -> Content:
        return msgspec.structs.replace(self._same, **{part.name: part.fill(draft) for part in self._changing})


def about(device: Device, traits: Mapping[str, Any], event: Message | None = None) -> Message:
    """The message from which a notice is filled, and which an audience's filter sees, for one device.

    `userId` is the device's person, `traits` what the registry knows of them with what the event says laid
    over it, `properties` the event's, `context.device` has id, type, app, app_version, locale and timezone.
    """
    event = event or Message(type="track", properties={})
    told = {name: value for name, value in msgspec.structs.asdict(device.traits).items() if value is not None}
    described = {"id": device.id, **({"type": device.platform} if device.platform else {}), **told}
    return msgspec.structs.replace(
        event,
        user_id=device.person,
        traits={**traits, **_told(event)},
        context={**event.context, "device": described},
    )


def _told(event: Message) -> dict[str, Any]:
    """What an event says of its person."""
    return {**event.context_traits, **event.traits}


class _Part(NamedTuple):
    """A field of a content, its template, and what makes the field of what the template gives."""

    name: str
    template: Template
    made: Callable[[Any], Any]

    def fill(self, draft: Draft) -> Any:
        try:
            return self.made(self.template.fill(draft))
        except Unusable as why:
            raise Unusable(f"{self.name}: {why}") from None


def _parts(settings: NoticeSettings) -> Iterator[_Part]:
    for name in ("title", "body", "sound", "channel"):
        yield _Part(name, Template(getattr(settings, name)), _text)
    for name in ("image", "link"):
        yield _Part(name, Template(getattr(settings, name), links.encoded), _text)
    switch = isinstance(settings.collapse, bool)
    yield _Part("collapse", Template(settings.collapse), bool if switch else _text)
    yield _Part("badge", Template(settings.badge), _number)
    yield _Part("data", Template(dict(settings.data)), _data)
    for name in ("android", "apns", "webpush"):
        yield _Part(name, Template(getattr(settings, name)), _clean)


def _of_device(path: Path) -> bool:
    return path.root == "context" and path.keys[:1] in ((), ("device",))


def _text(value: Any) -> str:
    """Text for people. Raises `Unusable` for what nobody would want to read."""
    if type(value) is str:
        return _short(_clean(value))
    if type(value) in (int, float):
        return as_text(value)
    raise Unusable("what is there is no text")


def _data(value: dict[str, Any]) -> dict[str, str]:
    return {name: _short(_clean(as_text(each))) for name, each in value.items()}


def _number(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10:
        value = int(value)
    if fault := fields.whole(value):
        raise Unusable(fault)
    return int(value)


def _short(text: str) -> str:
    if len(text) > fields.LARGEST_BYTES:
        raise Unusable(f"has {len(text):,} characters, more than a whole push may have")
    return text


def _clean(value: Any) -> Any:
    """The value without halves of characters, which no UTF-8 can carry."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list) else value
