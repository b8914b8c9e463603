"""Firebase Cloud Messaging: events become pushes to every device of a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from towpath.destination import Call, Check, Destination, Payload, Scope, Settings, VendorUrl
from towpath.device import PUSH, Pusher
from towpath.http import Http, Reply, Undelivered
from towpath.mapping.paths import Unusable
from towpath.message import Message, identifier
from towpath.notice import (
    LARGEST_BYTES,
    Notice,
    NoticeSettings,
    Preview,
    Trigger,
    preview,
    problems,
)
from towpath.outcome import Delivered, Paused, Rejected, Skipped
from towpath.units import Share
from towpath.vendors.fcm import FCM_URL, SCOPES, Fault, read_fault, send_headers, send_path
from towpath.vendors.google import ServiceAccount, Tokens, read_service_account

SEND = "send"
SEND_PUSH = "send_push"
NOBODYS = "towpath-made-up-address"
"""An address that no device has; FCM looks at it only after the credential, the role and the message."""
KNOWN_BY_FCM = frozenset({"INVALID_ARGUMENT", "UNREGISTERED", "SENDER_ID_MISMATCH"})
"""What FCM answers about an address, once it has let the sender in."""
ANSWERS = (400, 401, 403, 404)
_ADVICE = {
    401: ". Google does not accept the key: create a new one in the Firebase console",
    403: ". Give the service account the role Firebase Cloud Messaging API Admin "
    "(roles/firebasecloudmessaging.admin) in the project {project!r}",
    404: ". There is no project {project!r}: look up its id in the Firebase console",
}


class FcmAccount(Settings):
    """One Firebase project that pushes are sent with."""

    service_account: SecretStr = Field(
        description="Key file (JSON) of a service account that may send: `${file:firebase.json}`."
    )
    project: str | None = Field(
        default=None, min_length=1, description="The Firebase project's id; by default the key's own."
    )
    rate: float = Field(
        default=600_000, gt=0, description="Messages per minute that Google allows the project."
    )
    headroom: Share = Field(
        default=0.1, lt=1, description="The share of `rate` that is left to other senders of the project."
    )
    fcm_url: VendorUrl = Field(
        default=FCM_URL,
        min_length=1,
        validation_alias=AliasChoices("fcm_url", "base_url"),
        description="Where messages are sent; a simulator's is `http://127.0.0.1:PORT`.",
    )

    @field_validator("service_account")
    @classmethod
    def _readable(cls, key: SecretStr) -> SecretStr:
        read_service_account(key.get_secret_value())
        return key

    @model_validator(mode="after")
    def _of_a_project(self) -> FcmAccount:
        if not self.project_id:
            raise ValueError("the key file names no project_id; set project")
        return self

    @property
    def key(self) -> ServiceAccount:
        """The key file as it was read."""
        return read_service_account(self.service_account.get_secret_value())

    @property
    def project_id(self) -> str:
        """The project that messages are sent in; the private key, whose reading takes time, is left alone."""
        if self.project:
            return self.project
        return msgspec.json.decode(self.service_account.get_secret_value(), type=ServiceAccount).project_id

    @property
    def rate_per_s(self) -> float:
        """Messages per second that may be sent, with the headroom taken off."""
        return self.rate * (1 - self.headroom) / 60


class FcmSettings(FcmAccount):
    """Which events send which push."""

    events: dict[str, NoticeSettings | str] = Field(
        default={},
        description="Names of track events, in any case: what their push says, or the code of a campaign.",
    )
    send_push: bool = Field(
        default=True,
        description="Let the event `send_push` send the campaign that its property `assetId` names.",
    )

    @field_validator("events")
    @classmethod
    def _told_apart(cls, events: dict[str, Any]) -> dict[str, Any]:
        names = [_folded(name) for name in events]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice!r} is there twice; names are compared without case")
        for name, says in events.items():
            if fault := _fault(name, says):
                raise ValueError(f"{name}: {fault}")
        return events

    @model_validator(mode="after")
    def _one_meaning(self) -> FcmSettings:
        if self.send_push and any(_folded(name) == SEND_PUSH for name in self.events):
            raise ValueError(
                "send_push sends the campaign it names; to map it yourself, set send_push: false"
            )
        return self


class Fcm(Destination[FcmSettings]):
    """Asks the port `push`, which knows people's devices, campaigns and the project's pace."""

    name: ClassVar[str] = "fcm"
    Settings: ClassVar[type[FcmSettings]] = FcmSettings
    ports: ClassVar[tuple[str, ...]] = (PUSH,)

    def __init__(self, settings: FcmSettings) -> None:
        super().__init__(settings)
        self._events: dict[str, Notice | str | None] = {SEND_PUSH: None} if settings.send_push else {}
        for name, says in settings.events.items():
            self._events[_folded(name)] = (
                says.strip() if isinstance(says, str) else Notice(says, name.strip())
            )
        self._url = f"{settings.fcm_url}{send_path(settings.project_id)}"

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """The push an event asks for, shown for each kind of device; it is not known here which there are."""
        if message.type != "track" or not isinstance(message.event, str):
            return Skipped("unsupported", f"{message.type!r} sends no push; only track events do")
        event = _folded(message.event)
        if event not in self._events:
            return Skipped("unsupported", f"{message.event!r} sends no push here; see `events`")
        if message.trust != "server":
            return Skipped("untrusted", "a client source cannot send pushes; use a source with trust: server")
        if message.user_id is None:
            return Skipped("anonymous", "a push goes to a person, and the message has no userId")
        asked = _asked(message, self._events[event])
        if isinstance(asked, Rejected):
            return asked
        if asked.identified and message.user_id in _device_ids(message):
            return Skipped("provisional", "the userId is only that of a device: nobody has signed in on it")
        return self._payload(asked)

    def _payload(self, trigger: Trigger) -> Payload | Rejected:
        message = trigger.message
        to = f"<each device of {message.user_id}>"
        if trigger.notice is None:
            body = {"message": {"token": to, "campaign": trigger.code, "merge_tags": message.properties}}
            call = Call("POST", self._url, body, when="as the campaign says")
            return Payload((call,), capability=SEND, data=trigger)
        try:
            content, unknown = trigger.notice.sample(message)
        except Unusable as why:
            return Rejected(f"the push cannot be made: {why}")
        shown = preview(content, device=to, collapse_id=trigger.id, now=message.received_at)
        wrong = [] if unknown else [str(problem) for one in shown for problem in one.problems]
        if wrong and all(one.problems for one in shown):
            return Rejected(f"FCM would refuse the push: {'; '.join(wrong)}")
        calls = tuple(Call("POST", self._url, one.json, when=_when(one)) for one in shown)
        reports = [f"{{{tag}}} is filled in when it is sent" for tag in unknown]
        return Payload(calls, reports=(*reports, *wrong), capability=SEND, data=trigger)

    async def deliver(self, payload: Payload, scope: Scope) -> Delivered:
        """Have it sent to each device. Raises `Undelivered` with what the port says instead."""
        trigger: Trigger = payload.data
        pusher: Pusher = scope.ports[PUSH]
        outcome = await pusher.push(trigger.id, str(trigger.message.user_id), trigger)
        if isinstance(outcome, Delivered):
            return outcome
        raise Undelivered(outcome)

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Sign in at Google, and have FCM check a message to nobody, which it does not send."""
        account = self.settings.key
        try:
            authorization = await Tokens(account, SCOPES).headers(scope.http)
        except Undelivered as error:
            return [Check.failed("Google", error)]
        signed_in = Check("Google", ok=True, detail=f"signed in as {account.client_email}")
        return [signed_in, await self._examined(scope.http, authorization)]

    async def _examined(self, http: Http, authorization: Mapping[str, str]) -> Check:
        name = f"Firebase Cloud Messaging: project {self.settings.project_id}"
        body = {"validate_only": True, "message": {"token": NOBODYS, "data": {"check": "towpath"}}}
        headers = send_headers(authorization)
        try:
            reply = await http.request(
                "POST", self._url, json=body, headers=headers, allow=ANSWERS, speaks_json=True
            )
            if wrong := _refusal(reply, self.settings.project_id):
                said = Paused(wrong, reply.status)
                raise http.undelivered(said, reply, "POST", self._url, json=body, headers=headers)
        except Undelivered as error:
            return msgspec.structs.replace(Check.failed(name, error), capability=SEND)
        return Check(name, ok=True, capability=SEND)


def _refusal(reply: Reply, project: str) -> str:
    """What keeps the project's messages from being sent; empty when FCM got as far as the made-up address."""
    fault = read_fault(reply.body) or Fault()
    if reply.status < 300 or fault.error_code in KNOWN_BY_FCM:
        return ""
    said = f"{reply.status}: {fault.message}" if fault.message else str(reply.status)
    if reply.status == 403 and re.search(r"disabled|not been used", fault.message):
        return f"{said}. Enable the Firebase Cloud Messaging API (V1) of {project!r} in the Cloud console"
    return f"{said}{_ADVICE.get(reply.status, '').format(project=project)}"


def _asked(message: Message, says: Notice | str | None) -> Trigger | Rejected:
    """What an event asks for: a notice, a campaign, or that which it names itself, as `send_push` does.

    Source of the latter: Intilery, "Commands".
    """
    if isinstance(says, Notice):
        return Trigger(message=message, code=says.code, notice=says)
    if says is not None:
        return Trigger(message=message, code=says)
    properties = message.properties if isinstance(message.properties, dict) else {}
    code = identifier(properties.get("assetId"))
    if code is None:
        return Rejected("send_push names no campaign: put its code into the property assetId")
    return Trigger(message=message, code=code, identified=True)


def _device_ids(message: Message) -> Iterator[Any]:
    """The ids of devices that a message names."""
    device = message.context.get("device")
    properties = message.properties
    yield device.get("id") if isinstance(device, dict) else None
    yield properties.get("deviceId") if isinstance(properties, dict) else None


def _fault(name: str, says: NoticeSettings | str) -> str:
    """What is wrong with what an event sends, as far as that is the same for everyone."""
    if not _folded(name):
        return "an event needs a name"
    if isinstance(says, str):
        return "" if says.strip() else "needs the code of a campaign"
    notice = Notice(says, name.strip())
    return "; ".join(map(str, problems(notice.fill(Message())))) if notice.static else ""


def _when(shown: Preview) -> str:
    return f"{shown.platform}, {shown.size_bytes:,} of {LARGEST_BYTES:,} bytes"


def _folded(event: str) -> str:
    return event.strip().casefold()
