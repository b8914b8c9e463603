"""What the simulated App API sends: transactional messages and triggered broadcasts; nothing leaves."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from .customerio_exchange import Answered, Call, Endpoint, Refusal, app_error
from .customerio_identity import Profiles
from .customerio_paging import page
from .customerio_state import CustomerIoState, Person, Record

ATTACHMENTS_LIMIT_BYTES = 2 * 1024 * 1024
FORBIDDEN_ATTACHMENTS = frozenset({"exe", "bat", "com", "cmd", "js", "scr"})
"""Some of those a mail program would not open; the vendor's list is not published."""
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_TYPES = {
    "email": "email",
    "push": "push",
    "sms": "twilio",
    "whatsapp": "whatsapp",
    "in_app": "in_app",
    "inbox_message": "inbox",
}


class Sends:
    """Endpoints that send. `state.sent` keeps every request; `state.messages` gets a message for each."""

    def __init__(self, state: CustomerIoState, profiles: Profiles) -> None:
        self._state = state
        self._profiles = profiles
        trigger = "/v1/campaigns/*/triggers"
        self.endpoints: list[tuple[str, str, Endpoint]] = [
            *(("POST", f"/v1/send/{channel}", partial(self._send, channel)) for channel in _TYPES),
            ("POST", trigger, self._trigger),
            ("GET", f"{trigger}/*", self._triggered),
            ("GET", f"{trigger}/*/errors", self._errors),
            ("GET", "/v1/broadcasts/*/triggers", self._triggers),
        ]

    def _send(self, channel: str, call: Call) -> Answered:
        try:
            given = call.body()
        except ValueError as error:
            raise _refused(400, str(error)) from None
        if not isinstance(given, dict):
            raise _refused(400, "the body must be an object")
        self._check_template(channel, given)
        person = self._recipient(given.get("identifiers"))
        check = _CHECKS.get(channel)
        if check is not None:
            check(given)
        return 200, self._sent(channel, given, person)

    def _check_template(self, channel: str, given: Mapping[str, Any]) -> None:
        wanted = given.get("transactional_message_id")
        if wanted is None:
            if channel != "email" or not all(given.get(name) for name in ("from", "subject", "body")):
                raise _refused(400, "transactional_message_id is required")
        elif all(
            str(wanted) not in {str(each["id"]), each.get("name")} for each in self._state.transactional
        ):
            raise _refused(400, "transactional message not found")

    def _recipient(self, identifiers: Any) -> Person | None:
        kinds = ("id", "email", "cio_id")
        if not isinstance(identifiers, dict) or len(identifiers) != 1 or not set(identifiers) <= set(kinds):
            raise _refused(400, f"identifiers must have exactly one of {', '.join(kinds)}")
        ((kind, value),) = identifiers.items()
        return self._profiles.find(kind, str(value))

    def _sent(self, channel: str, given: Record, person: Person | None) -> dict[str, Any]:
        now, delivery_id = self._state.now(), base64.b64encode(self._state.new_id("dg").encode()).decode()
        self._state.sent.append({"channel": channel, "delivery_id": delivery_id, **given})
        metrics = {"drafted": now} if given.get("queue_draft") else {"sent": now}
        self._state.messages.append(
            {
                "id": delivery_id,
                "deduplicate_id": f"{delivery_id}:{now}",
                "customer_id": None if person is None else person.attributes.get("id"),
                "customer_identifiers": given["identifiers"] if person is None else person.identifiers,
                "recipient": given.get("to"),
                "subject": given.get("subject"),
                "metrics": metrics,
                "created": now,
                "transactional_message_id": given.get("transactional_message_id"),
                "type": _TYPES[channel],
                "forgotten": bool(given.get("disable_message_retention")),
            }
        )
        return {"delivery_id": delivery_id, "queued_at": now}

    # -- broadcasts ------------------------------------------------------------------------------------

    def _trigger(self, call: Call) -> Answered:
        broadcast = self._broadcast(call)
        given = call.body()
        if not isinstance(given, dict):
            raise app_error(400, "the body must be an object")
        now, number = self._state.now(), len(self._state.triggers) + 1
        missing = self._missing(given)
        trigger = {"id": number, "broadcast_id": broadcast["id"], "created_at": now, "processed_at": now}
        self._state.triggers.append({**trigger, "errors": missing, "request": given})
        if missing:
            text = "Errors were found while processing per user data (ids, emails or json data). "
            more = f"More detail available from the errors endpoint for trigger {number}"
            raise app_error(422, text + more, "/data/attributes/per_user_data")
        return 200, {"id": number}

    def _missing(self, given: Mapping[str, Any]) -> list[str]:
        """Name the recipients that nobody is, unless the call says that it does not matter."""
        missing: list[str] = []
        for key, kind in (("ids", "id"), ("emails", "email")):
            listed = given.get(key)
            named = listed if isinstance(listed, list) and not given.get(f"{kind}_ignore_missing") else ()
            unknown = [each for each in named if self._profiles.find(kind, each) is None]
            missing.extend(f"{kind} {each} does not exist" for each in unknown)
        return missing

    def _broadcast(self, call: Call) -> Record:
        for broadcast in self._state.broadcasts:
            if str(broadcast["id"]) == call.values[0]:
                return broadcast
        raise app_error(404, "not found")

    def _of(self, call: Call) -> list[Record]:
        number = self._broadcast(call)["id"]
        return [trigger for trigger in self._state.triggers if trigger["broadcast_id"] == number]

    def _found(self, call: Call) -> Record:
        for trigger in self._of(call):
            if str(trigger["id"]) == call.values[1]:
                return trigger
        raise app_error(404, "not found")

    def _triggers(self, call: Call) -> Answered:
        return 200, {"triggers": [_shown(trigger) for trigger in self._of(call)]}

    def _triggered(self, call: Call) -> Answered:
        return 200, _shown(self._found(call))

    def _errors(self, call: Call) -> Answered:
        rows, more = page(self._found(call)["errors"], call, 50, 1000)
        return 200, {"errors": rows, "next": more}


def _shown(trigger: Record) -> dict[str, Any]:
    return {name: trigger[name] for name in ("id", "broadcast_id", "created_at", "processed_at")}


def _refused(status: int, text: str) -> Refusal:
    return Refusal(status, {"meta": {"error": text}})


def _check_email(given: Mapping[str, Any]) -> None:
    if not given.get("to"):
        raise _refused(400, "to is required")
    size = 0
    attachments = given.get("attachments") or {}
    if not isinstance(attachments, dict):
        raise _refused(400, "attachments must be an object")
    for name, content in attachments.items():
        kind = name.rpartition(".")[2].lower()
        if kind in FORBIDDEN_ATTACHMENTS:
            raise _refused(403, f"Forbidden file type {kind} for attachment {name}.")
        try:
            size += len(base64.b64decode(content, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise _refused(400, f'Attachment must be base64 encoded: "{name}"') from None
    if size > ATTACHMENTS_LIMIT_BYTES:
        raise _refused(413, "Total attachment size exceeds the limit")


def _check_number(given: Mapping[str, Any]) -> None:
    if not _E164.fullmatch(str(given.get("to") or "")):
        raise _refused(400, "Invalid phone number format. Phone numbers must be in E.164 format.")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "email": _check_email,
    "sms": _check_number,
    "whatsapp": _check_number,
}
