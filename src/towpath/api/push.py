"""Routes of push: devices, and campaigns from rehearsal to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request

from ..app import App
from ..app.push import Push
from ..destinations._devices_reading import (
    DEVICE_CHARACTERS,
    PERSON_CHARACTERS,
    TOKEN_CHARACTERS,
    TRAIT_CHARACTERS,
    Reading,
    read_events,
)
from ..device import Device, Noted
from ..errors import TowpathError
from ..message import Message, format_time
from ..push.campaigns import Launch, Standing
from ..state.campaigns import totals
from ..views import moment
from . import asking
from .answering import Missing, Named
from .jobs import run_view

PAGE_MAX = 5000
Token: TypeAlias = Annotated[str, Meta(max_length=TOKEN_CHARACTERS)]
T = TypeVar("T")
Trait: TypeAlias = Annotated[str, Meta(max_length=TRAIT_CHARACTERS)] | None


class Imported(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One line of an import: a device as an app would report it. `last_seen` is an ISO time, UTC if bare."""

    device_id: Annotated[str, Meta(max_length=DEVICE_CHARACTERS)]
    device_type: str
    fcm_token: Token = ""
    fid: Token = ""
    user_id: Annotated[str, Meta(max_length=PERSON_CHARACTERS)] = ""
    last_seen: str = ""
    app: Trait = None
    app_version: Trait = None
    locale: Trait = None
    timezone: Trait = None


class Prune(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for where something can be tried first."""

    dry_run: bool = False


class Resume(msgspec.Struct, forbid_unknown_fields=True):
    """What may be asked for where a campaign is resumed."""

    retry_failed: bool = False


class PushRoutes:
    """Answers about devices and campaigns."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/push", self.status),
            ("GET", "/push/devices", self.devices),
            ("GET", "/push/devices/{id:path}", self.device),
            ("POST", "/push/prune", self.prune),
            ("POST", "/push/import", self.take),
            ("POST", "/push/send", self.send),
            ("GET", "/push/campaigns", self.campaigns),
            ("GET", "/push/campaigns/{id:int}", self.campaign),
            ("GET", "/push/campaigns/{id:int}/sends", self.sends),
            ("POST", "/push/campaigns/{id:int}/{act}", self.act),
        ]

    async def status(self, _: Request) -> Any:
        """Say how many devices there are, how fresh, and what is being sent."""
        return await self._push().standing()

    async def devices(self, request: Request) -> Any:
        """List devices: of a person, or a page of all in order of ids."""
        query = request.query_params
        registry = self._push().registry
        if (person := query.get("person")) is not None:
            return [_device(one) for one in await registry.everything_of(person)]
        limit = asking.number(request, "limit", 100, most=PAGE_MAX)
        return [_device(one) for one in await registry.page(query.get("after", ""), limit)]

    async def device(self, request: Request) -> Any:
        """Show one device."""
        found = await self._push().registry.find(request.path_params["id"])
        if found is None:
            raise Missing("there is no device of this id", code="E4421", fix="towpath push devices list")
        return _device(found)

    async def prune(self, request: Request) -> Any:
        """Remove what is stale, or say what would be."""
        asked = _read(await asking.body(request), Prune)
        swept = await self._push().registry.sweep(dry_run=asked.dry_run, by_hand=True)
        return msgspec.to_builtins(swept)

    async def take(self, request: Request) -> Any:
        """Take devices in as their apps would report them; what is wrong with others, by their place."""
        given = (await asking.body(request)).get("devices")
        if not isinstance(given, list) or len(given) > PAGE_MAX:
            raise TowpathError(f"devices must be a list of at most {PAGE_MAX}", code="E5303")
        made = [self._imported(line) for line in given]
        noted = [one for one in made if isinstance(one, Noted)]
        reports = await self._push().registry.apply(noted)
        refused = [{"index": at, "reason": one} for at, one in enumerate(made) if isinstance(one, str)]
        return {
            "taken": len(noted),
            "refused": refused,
            "reports": [text for some in reports for text in some],
        }

    async def send(self, request: Request) -> Any:
        """Launch a campaign, or rehearse it."""
        fields = await asking.body(request)
        dry_run = _read({"dry_run": fields.pop("dry_run", False)}, Prune).dry_run
        launch = _read(fields, Launch)
        desk = self._push().desk
        if dry_run:
            return msgspec.to_builtins(await desk.rehearse(launch))
        row = await desk.launch(launch)
        return {**campaign_view(Standing(row, ())), "started": self._app.delivering}

    async def campaigns(self, request: Request) -> Any:
        """List campaigns, newest first."""
        return [
            campaign_view(one) for one in await self._push().desk.newest(asking.number(request, "limit", 20))
        ]

    async def campaign(self, request: Request) -> Any:
        """Show one campaign with its counts, settings and run."""
        standing = await self._push().desk.show(request.path_params["id"])
        counts = [
            {
                "state": one.state.name.lower(),
                "code": one.code,
                "platform": one.platform,
                "number": one.number,
            }
            for one in standing.counts
        ]
        now = self._app.clock.now()
        runs = [run_view(run, now) for run in await self._push().desk.runs(standing.row.id)]
        settings = msgspec.json.decode(standing.row.settings)
        return {**campaign_view(standing), "settings": settings, "sends": counts, "runs": runs}

    async def sends(self, request: Request) -> Any:
        """List single sends of a campaign."""
        limit = asking.number(request, "limit", 100)
        return await self._push().desk.sends(
            request.path_params["id"], request.query_params.get("state"), limit
        )

    async def act(self, request: Request) -> Any:
        """Pause, resume or cancel a campaign."""
        desk, number = self._push().desk, request.path_params["id"]
        asked = _read(await asking.body(request), Resume)
        resume = partial(desk.resume, retry_failed=asked.retry_failed)
        acts: dict[str, Callable[[int], Awaitable[Standing]]]
        acts = {"pause": desk.pause, "resume": resume, "cancel": desk.cancel}
        act = acts.get(request.path_params["act"])
        if act is None:
            raise Missing(f"of a campaign there is: {', '.join(acts)}", code="E5016")
        return campaign_view(await act(number))

    def _push(self) -> Push:
        """What is in force. Raises `TowpathError` where the file has no section `push`."""
        found = self._app.push
        found.parts  # noqa: B018 - raises
        return found

    def _imported(self, line: Any) -> Noted | str:
        try:
            return _noted(msgspec.convert(line, Imported), self._app.clock.now())
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            return str(error)


def _noted(line: Imported, now: float) -> Noted:
    """What a server's `Register Push` would tell of an imported line. Raises `ValueError`."""
    if line.fcm_token and line.fid:
        raise ValueError("one of fcmToken and fid is needed, not both")
    device, person = line.device_id.strip(), line.user_id.strip()
    at = _time(line.last_seen) if line.last_seen else datetime.fromtimestamp(now, UTC)
    told = {
        "deviceId": device, "deviceType": line.device_type, "fcmToken": line.fcm_token, "fid": line.fid
    }  # fmt: skip
    message = Message(
        type="track",
        event="Register Push",
        user_id=person or None,
        anonymous_id=None if person else device,
        properties=told,
        context={
            "app": {"name": line.app, "version": line.app_version},
            "locale": line.locale,
            "timezone": line.timezone,
        },
        timestamp=format_time(at),
        trust="server",
        received_at=now,
    )
    reading = read_events(message)
    if not isinstance(reading, Reading):
        raise ValueError(reading.reason.removeprefix("properties."))
    return Noted(f"import-{device}-{at.timestamp()}", reading.events)


def _time(text: str) -> datetime:
    """An ISO time. Raises `ValueError`."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _read(fields: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise TowpathError(
            f"this cannot be done: {error}", code="E5301", data="Nothing was sent or changed."
        ) from None


def _device(device: Device) -> dict[str, Any]:
    address = device.address
    return {
        "device_id": device.id,
        "user_id": device.person,
        "provisional": device.provisional,
        "device_type": device.platform,
        "address_kind": address.kind if address else None,
        "address": address.value if address else None,
        "status": device.status,
        "reason": device.reason,
        "first_seen": moment(device.first_seen),
        "registered_at": moment(device.registered_at),
        "last_seen": moment(device.seen_at),
        "removed_at": moment(device.removed_at),
        **msgspec.structs.asdict(device.traits),
    }


def campaign_view(standing: Standing) -> dict[str, Any]:
    """A campaign as API and CLI show it."""
    row, found = standing.row, totals(standing.counts)
    return {
        "campaign": row.id,
        "code": row.code,
        "state": row.state,
        "reason": row.reason,
        "due_at": f"{row.local_at} (local)" if row.local_at else moment(row.due_at),
        "devices": row.enlisted,
        **({} if row.members is None else {"members": row.members}),
        **{name: found[name] for name in ("pending", "in_flight", "accepted", "failed", "skipped")},
        "repeated": row.repeated,
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
    }
