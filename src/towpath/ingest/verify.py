"""Proof that a sender may speak as a user: `userHash` or `userToken`, made with a secret (D13)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from ..clock import Clock
from ..message import identifier

Mode = Literal["off", "optional", "required"]


class Verifier:
    """Checks one source's proofs; every comparison takes constant time."""

    def __init__(self, mode: Mode, secret: str, clock: Clock) -> None:
        self._mode = mode
        self._secret = secret.encode()
        self._clock = clock

    def doubt(self, fields: Mapping[str, Any], context: Mapping[str, Any], kind: str = "") -> str:
        """Say why an event is not believed to be of the user it names; empty when it is, or names none.

        `context` is the batch's, `kind` the call's type: a group's own traits are the group's. A user is
        named by userId, and by `userId` or `id` in `traits` or `context.traits`, which destinations fall
        back to (K012). A proof stands at the top level, in `context`, `traits` or `context.traits` of the
        event, or in the batch's `context`. Of several proofs each must hold, for every user named.
        """
        for user, where in _named(fields, context, group=kind == "group").items():
            if doubt := self._doubt(user, where, fields, context):
                return doubt
        return ""

    def _doubt(self, user: str, where: str, fields: Mapping[str, Any], context: Mapping[str, Any]) -> str:
        doubts = [*self._doubts(user, fields, context)]
        if not doubts and self._mode == "required":
            return f"{where} needs userHash or userToken"
        return next((f"{proof} {where}" for proof in doubts if proof), "")

    def _doubts(self, user_id: str, fields: Mapping[str, Any], context: Mapping[str, Any]) -> Iterator[str]:
        for place in _places(fields, context):
            if (given := place.get("userHash")) is not None:
                yield self._doubt_hash(user_id, given)
            if (given := place.get("userToken")) is not None:
                yield self._doubt_token(user_id, given)

    def _sign(self, signed: bytes) -> bytes:
        return hmac.digest(self._secret, signed, hashlib.sha256)

    def _doubt_hash(self, user_id: str, given: object) -> str:
        proof = given.strip().lower().encode() if isinstance(given, str) else b""
        expected = self._sign(user_id.encode()).hex().encode()
        return "" if hmac.compare_digest(proof, expected) else "userHash does not belong to this"

    def _doubt_token(self, user_id: str, given: object) -> str:
        try:
            claims = self._claims(given)
        except (ValueError, RecursionError, binascii.Error, msgspec.DecodeError):
            return "userToken is not a JWT signed with HS256 and this source's verify_secret, as needed for"
        now = self._clock.now()
        if not _within(claims, now):
            return "userToken has expired or is not valid yet, as needed for"
        return "" if identifier(claims.get("sub")) == user_id else "userToken's sub is not this"

    def _claims(self, given: object) -> Mapping[str, Any]:
        head, body, signature = str(given).split(".")
        if not hmac.compare_digest(_unpack(signature), self._sign(f"{head}.{body}".encode())):
            raise ValueError("wrong signature")
        # The algorithm is ours to choose, never the token's: anything but HS256 (`none` too) is no proof.
        if msgspec.json.decode(_unpack(head), type=dict[str, Any]).get("alg") != "HS256":
            raise ValueError("wrong algorithm")
        return msgspec.json.decode(_unpack(body), type=dict[str, Any])


def _within(claims: Mapping[str, Any], now: float) -> bool:
    ends, begins = claims.get("exp", now + 1), claims.get("nbf", now)
    numbers = all(isinstance(moment, int | float) for moment in (ends, begins))
    return numbers and begins <= now < ends


def _named(fields: Mapping[str, Any], batch_context: Mapping[str, Any], *, group: bool) -> dict[str, str]:
    """The users an event claims to be of, each with the first place that names it."""
    named: dict[str, str] = {}
    if user := identifier(fields.get("userId")):
        named[user] = "userId"
    traits = {
        "traits": None if group else fields.get("traits"),
        "context.traits": _inner(fields.get("context")),
        "the batch's context.traits": _inner(batch_context),
    }
    for place, found in traits.items():
        if isinstance(found, dict):
            for member in ("userId", "id"):
                if user := identifier(found.get(member)):
                    named.setdefault(user, f"{place}.{member}")
    return named


def _inner(context: object) -> object:
    return context.get("traits") if isinstance(context, dict) else None


def _places(fields: Mapping[str, Any], batch_context: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    context, traits = fields.get("context"), fields.get("traits")
    for place in (fields, context, traits, _inner(context), batch_context):
        if isinstance(place, dict):
            yield place


def _unpack(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
