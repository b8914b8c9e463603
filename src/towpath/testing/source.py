"""The contract every source that takes webhooks meets: inherit, name it, and give it a genuine request."""

# ruff: noqa: S101 - asserting is what a contract is for
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from towpath.errors import Unauthorized
from towpath.feed import kept
from towpath.message import KINDS, Message
from towpath.redaction import setting_secrets
from towpath.source import Heard, Ignored, Inbound, Incoming, Malformed, Unfit

from .fakes import FakeKnown

STRANGE_BODIES: Mapping[str, bytes] = {
    "empty": b"",
    "text": b"<html>OK</html>",
    "object": b"{}",
    "list": b"[]",
    "list of numbers": b"[1, 2]",
    "list of lists": b"[[[]], {}, null]",
    "null": b"null",
    "true": b"true",
    "infinity": b'{"timestamp": 1e999, "data": 1e999}',
    "surrogate": b'{"id": "\\ud800"}',
    "not Unicode": b"\xff\xfe{}",
    "nested": b"[" * 20_000,
    "nested objects": b'{"a":' * 20_000,
    "long": b'{"data": "' + b"x" * 100_000 + b'"}',
}


class InboundContract:
    """Inherit in a class `Test…`, set `source` and `settings`, and write `genuine`.

    `proofs` are the headers of a genuine request without which it proves nothing. `signs_body` says that the
    proof covers the body.
    """

    source: ClassVar[type[Inbound[Any]]]
    settings: ClassVar[Mapping[str, Any]]
    now: ClassVar[float] = 1_760_000_000.0
    proofs: ClassVar[Sequence[str]]
    signs_body: ClassVar[bool] = True

    @abstractmethod
    def genuine(self, body: bytes | None = None) -> Incoming:
        """Make a request of the vendor's own at `now`: with this body, or one that holds messages."""

    def make(self) -> Inbound[Any]:
        """Make the source with the contract's settings."""
        return self.source(self.source.Settings.model_validate(dict(self.settings)))

    def heard(self, request: Incoming) -> list[Heard]:
        """Read a request that nothing is known before. Raises `Malformed`."""
        return list(self.make().messages(request, FakeKnown()))

    def test_it_has_a_name_and_settings(self) -> None:
        """Each field says what it is for; an unknown key is refused."""
        assert self.source.name
        assert issubclass(self.source.Settings, BaseModel)
        for name, field in self.source.Settings.model_fields.items():
            assert field.description, f"{name} has no description"
        with pytest.raises(ValidationError):
            self.source.Settings.model_validate({**self.settings, "no_such_setting": 1})

    def test_a_genuine_request_is_accepted(self) -> None:
        """And holds at least one message."""
        request = self.genuine()
        self.make().verify(request, self.now)
        assert any(isinstance(one, Message) for one in self.heard(request))

    def test_without_its_proof_it_is_refused(self) -> None:
        """Header by header, and with each of them changed."""
        request = self.genuine()
        for name in self.proofs:
            for value in (None, "", "x", request.headers[name] + "x", request.headers[name][:-1]):
                headers = {key: held for key, held in request.headers.items() if key != name}
                if value is not None:
                    headers[name] = value
                with pytest.raises(Unauthorized):
                    self.make().verify(msgspec.structs.replace(request, headers=headers), self.now)

    def test_a_changed_body_is_refused(self) -> None:
        """Where the proof covers the body."""
        request = self.genuine()
        changed = msgspec.structs.replace(request, body=request.body + b" ")
        if not self.signs_body:
            self.make().verify(changed, self.now)
            return
        with pytest.raises(Unauthorized):
            self.make().verify(changed, self.now)

    def test_a_refusal_shows_no_secret(self) -> None:
        """Neither the settings nor what the sender should have shown."""
        request, made = self.genuine(), self.make()
        secrets = {secret for secret in setting_secrets(made.settings) if len(secret) > 3}
        with pytest.raises(Unauthorized) as refused:
            made.verify(msgspec.structs.replace(request, headers={}), self.now)
        shown = [*refused.value.lines(), repr(made.settings), str(made.settings)]
        assert not [secret for secret in secrets for text in shown if secret in text]
        assert not [name for name in self.proofs if request.headers[name] in refused.value.title]

    def test_messages_can_be_kept(self) -> None:
        """Each has a kind, an id, a person, and fields that are JSON."""
        for one in self.heard(self.genuine()):
            if isinstance(one, Message):
                assert one.type in KINDS
                assert one.user_id or one.anonymous_id
                assert msgspec.json.decode(kept(one))["type"] == one.type

    def test_the_same_request_twice_has_the_same_ids(self) -> None:
        """So that the log keeps one of them (D07)."""

        def ids() -> list[str]:
            return [one.message_id for one in self.heard(self.genuine()) if isinstance(one, Message)]

        assert ids() == ids()
        assert len(set(ids())) == len(ids())

    @pytest.mark.parametrize("name", sorted(STRANGE_BODIES))
    def test_strange_bodies_are_read_or_called_malformed(self, name: str) -> None:
        """Nothing that a sender can write makes the source fail."""
        request = self.genuine(STRANGE_BODIES[name])
        try:
            found = self.heard(request)
        except Malformed:
            return
        assert all(isinstance(one, Message | Unfit | Ignored) for one in found)
        for one in found:
            if isinstance(one, Message):
                kept(one)
