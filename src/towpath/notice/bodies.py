"""The bodies of one notice for many devices: what is the same for all is made and checked only once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..device import Address, Device, Platform
from ..mapping.paths import Unusable
from ..message import Message
from . import fields
from .content import Content
from .encoding import Encoded, encoded
from .fields import LARGEST_BYTES
from .links import fault_of_filled
from .notice import Notice, about
from .problems import Problem, problems_of

_APART = 64
"""By how many bytes, at most, what counts may be longer than the message's JSON."""
_RAW = frozenset({"android", "apns", "webpush"})
Kept: TypeAlias = tuple[int, Encoded]
"""A second of Unix time, and a body made in it."""


class Refused(Unusable):
    """FCM would refuse it, so it is not sent; says what is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class Bodies:
    """Makes the request's body for one device after another.

    `collapse_id` names what a repeat replaces; `event` is what asked for the push, if anything did.
    """

    def __init__(
        self, notice: Notice, collapse_id: str, *, event: Message | None = None, validate_only: bool = False
    ) -> None:
        self._notice = notice
        self._collapse_id = collapse_id
        self._event = event
        self._validate_only = validate_only
        self._changing = notice.changing
        self._kept: dict[Platform | None, Kept] = {}
        self._checked: set[Platform | None] = set()

    def body(self, device: Device, address: Address, traits: Mapping[str, Any], now: float) -> bytes:
        """The body for one device of a person with these traits; `now` is the Unix time.

        Raises `Refused` for what FCM would refuse, `mapping.paths.Unusable` where a merge tag has no value.
        """
        platform = device.platform
        if self._changing:
            content = self._notice.fill(about(device, traits, self._event))
            return self._made(content, platform, now).body(address)
        kept = self._kept.get(platform)
        # A second long, as what an iPhone gets has a moment at which it expires.
        if kept is None or kept[0] != int(now):
            content = self._notice.fill(Message())
            kept = self._kept[platform] = int(now), self._made(content, platform, now)
        return kept[1].body(address)

    def _made(self, content: Content, platform: Platform | None, now: float) -> Encoded:
        message = content.message(platform, self._collapse_id, now)
        made = encoded(message, validate_only=self._validate_only)
        if platform not in self._checked or self._doubtful(content, made):
            if found := problems_of(content, message, platform):
                raise Refused(found)
            self._checked.add(platform)
        return made

    def _doubtful(self, content: Content, made: Encoded) -> bool:
        """Whether one person's content may have a problem that another's, looked at before, had not."""
        return bool(
            len(made.after) > LARGEST_BYTES - _APART
            or not (content.silent or content.title or content.body)
            or (_RAW & self._changing)
            or ("link" in self._changing and fault_of_filled(content.link))
            or ("image" in self._changing and fields.https(content.image))
        )
