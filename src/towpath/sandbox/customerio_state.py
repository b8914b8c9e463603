"""What the simulated Customer.io workspace holds: people, objects, segments, activities, and its fixtures."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from towpath.clock import Clock

from .customerio_messages import Messages
from .customerio_messages import Record as Record

Identifiers: TypeAlias = Literal["id", "email_or_id", "email_phone_or_id"]
ExportFate: TypeAlias = Literal["done", "failed", "pending", "expired"]
"""What becomes of an export: it is done, fails, is pending for ever, or its links are over at once."""

IP_ADDRESSES = ("35.188.196.183", "104.198.177.219", "104.154.232.87", "130.211.229.195")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Switches(Struct, frozen=True, kw_only=True):
    """Behaviour that Customer.io does not document; the defaults are the likelier or the less kind reading.

    `reassign_id`: an unknown id in the path with the e-mail of a person who has another id rewrites that id
    (else it is an Attribute Update Failure). `empty_pages`: lists of people have an empty page between
    any two others. `restamp`: a retried reporting webhook is stamped and signed anew. `track_redirect_status`
    answers an account of the other region on Track, `app_region_status` on the App API: redirected (301) or
    simply unknown (401); connectors saw both. `settle_s`: a merge does not find a primary younger than this,
    the race that the vendor warns of. `retry_after`: the header of a 429, seconds; empty leaves it out.

    Of lists: `tail_tokens` gives senders and activities a `next` after the last row, which leads to an empty
    page; `null_lists` says null for every empty list, not only where the live API was seen to;
    `repeated_relationships` begins a page with the last entry of the one before. `activity_days`: activities
    that came earlier are no longer listed. `count_age_s`: how old the counts of a workspace may be.
    """

    reassign_id: bool = True
    empty_pages: bool = True
    restamp: bool = True
    track_redirect_status: Literal[301, 302, 307, 308] = 307
    app_region_status: Literal[301, 401] = 301
    settle_s: float = 0.0
    retry_after: str = ""
    tail_tokens: bool = True
    null_lists: bool = False
    repeated_relationships: bool = False
    activity_days: int = 30
    count_age_s: float = 0.0


class Device(Struct):
    """A device of a person; `last_used` is Unix seconds, None when it was never said."""

    token: str
    platform: str
    last_used: int | None = None
    attributes: dict[str, Any] = {}


class Event(Struct, frozen=True, gc=False):
    """An event, page or screen as it was kept; `at` is its own time, or that of its arrival, Unix seconds."""

    kind: str
    name: str
    data: dict[str, Any]
    at: int
    id: str = ""


class Person(Struct, eq=False):
    """A profile. `attributes` hold the identifiers too; `stamps` say when each attribute was last decided."""

    cio_id: str
    created_at: int
    attributes: dict[str, Any] = {}
    stamps: dict[str, float] = {}
    devices: dict[str, Device] = {}
    events: list[Event] = []
    relationships: dict[str, dict[str, Any]] = {}
    deleted: bool = False

    @property
    def unsubscribed(self) -> bool:
        """Whether it takes no messages: any case of "true", 1 or "1"."""
        return str(self.attributes.get("unsubscribed", "")).lower() in {"true", "1"}

    @property
    def identifiers(self) -> dict[str, Any]:
        """The identifiers as the App API shows them; what is not there is null."""
        given = self.attributes
        return {"id": given.get("id"), "email": given.get("email"), "cio_id": self.cio_id}


class Thing(Struct, eq=False):
    """An object (a company, an account): what people can have relationships with."""

    cio_object_id: str
    object_type_id: str
    object_id: str
    attributes: dict[str, Any] = {}
    stamps: dict[str, float] = {}


class Segment(Struct, kw_only=True):
    """A segment. Members of a manual one are cio_ids; a dynamic one holds whom its `filter` finds.

    The filter is one of `POST /v1/customers`. An archived one is left out of the list of all.
    """

    id: int
    name: str
    description: str = ""
    type: Literal["manual", "dynamic"] = "manual"
    members: set[str] = set()
    filter: Mapping[str, Any] | None = None
    created_at: int = 0
    updated_at: int = 0
    tags: list[str] | None = None
    state: Literal["events", "build", "events_queued", "build_queued", "finished"] = "finished"
    progress: int | None = None
    archived: bool = False


class Activity(Struct, frozen=True, gc=False):
    """Something that happened; read back by `GET /v1/activities` in the order it came.

    `at` is when it happened, `came_at` when it was told, Unix seconds.
    In `data` a pair is what an attribute was and what it became, shown as `{from, to}`: cheaper to keep.
    """

    serial: int
    type: str
    at: int
    person: Person | None
    data: dict[str, Any]
    name: str = ""
    came_at: int = 0


class CustomerIoState:
    """The workspace's records. A test may fill the lists before a client reads them.

    `people` by cio_id; `objects` by cio_object_id; `activities` from the oldest, the newest 200,000;
    `messages` are what was sent. The lists `campaigns`, `broadcasts`, `newsletters`, `transactional`,
    `sender_identities`, `snippets`, `collections`, `topics`, `object_types`, `workspaces` and `exports` hold
    records as the App API shows them; a record of `suppressions` may have the `domain` it was sent from. An
    App API path that begins with one of `forbidden` is answered 403: the key has no right to it. Exports end
    as `export_fate` says at the time somebody looks. `metrics`, `journeys`, `links`, `actions`, `contents`
    and `test_groups` map a path — `campaigns/5`, `newsletters/3/contents/1` — to series of numbers (one a
    day, the last of them today's) and to records.
    `suppressions` maps a type of the mail provider's list to records. `reported` are metrics that clients
    reported, `sent` the transactional sends, `triggers` those of broadcasts.
    """

    def __init__(self, clock: Clock, identifiers: Identifiers, switches: Switches) -> None:
        self.clock = clock
        self.kinds: tuple[str, ...] = _KINDS[identifiers]
        self.switches = switches
        self.people: dict[str, Person] = {}
        self.objects: dict[str, Thing] = {}
        self.segments: dict[int, Segment] = {}
        self.activities: deque[Activity] = deque(maxlen=200_000)
        self.campaigns: list[Record] = []
        self.broadcasts: list[Record] = []
        self.newsletters: list[Record] = []
        self.messages = Messages()
        self.transactional: list[Record] = []
        self.sender_identities: list[Record] = []
        self.snippets: list[Record] = []
        self.collections: list[Record] = []
        self.topics: list[Record] = []
        self.object_types: list[Record] = [object_type(1, "Companies", "Company")]
        self.workspaces: list[Record] = []
        self.exports: list[Record] = []
        self.reporting_webhooks: list[Record] = []
        self.ip_addresses = list(IP_ADDRESSES)
        self.metrics: dict[str, dict[str, list[int]]] = {}
        self.journeys: dict[str, dict[str, list[int]]] = {}
        self.links: dict[str, list[Record]] = {}
        self.actions: dict[str, list[Record]] = {}
        self.contents: dict[str, list[Record]] = {}
        self.test_groups: dict[str, list[Record]] = {}
        self.suppressions: dict[str, list[Record]] = {}
        self.reported: list[Record] = []
        self.sent: list[Record] = []
        self.triggers: list[Record] = []
        self.forbidden: set[str] = set()
        self.export_fate: ExportFate = "done"
        self.event_count = 0
        self.duplicates = 0
        self.ignored = 0
        self.failures = 0
        self.notify: Callable[[str, str, Person, Mapping[str, Any]], None] = _nobody
        self._serial = 0

    def now(self) -> int:
        """Unix seconds of the clock."""
        return int(self.clock.now())

    def serial(self) -> int:
        """Count on: no two records have the same number."""
        self._serial += 1
        return self._serial

    def new_id(self, prefix: str) -> str:
        """Make an id in the vendor's look: a prefix and hex digits."""
        return f"{prefix}{self.serial():08x}"

    def record(
        self, kind: str, person: Person | None, data: dict[str, Any], name: str = "", at: int | None = None
    ) -> None:
        """Write an activity."""
        now = self.now()
        moment = now if at is None else at
        self.activities.append(Activity(self.serial(), kind, moment, person, data, name, now))

    def fail(self, person: Person | None, attribute: str, value: Any, reason: str) -> None:
        """Write an Attribute Update Failure: the call was answered 200, this part of it has no effect."""
        self.failures += 1
        old = person.attributes.get(attribute, "") if person is not None else ""
        data = {attribute: (old, value), "reason": reason}
        self.record("failed_attribute_change", person, data, attribute)


_KINDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "email_or_id": ("id", "email"),
    "email_phone_or_id": ("id", "email", "phone"),
}


def _nobody(_object_type: str, _metric: str, _person: Person, _more: Mapping[str, Any]) -> None:
    """Tell nobody: no reporting webhooks are served."""


def object_type(number: int, name: str, singular: str) -> Record:
    """Make an object type as the App API shows it; its id is a string there."""
    slugs = {"slug": name.lower(), "singular_slug": singular.lower()}
    return {
        "id": str(number),
        "name": name,
        "singular_name": singular,
        **slugs,
        "icon": "box",
        "enabled": True,
    }


def ulid(serial: int, at: float) -> str:
    """Make a ULID of a number: the time, then the number."""
    value = (int(at * 1000) << 80) | serial
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_ulid(text: Any) -> bool:
    """Tell whether a text is a ULID: 26 digits of Crockford's base 32, the first at most 7."""
    return (
        isinstance(text, str)
        and len(text) == 26
        and text[0] <= "7"
        and not set(text.upper()).difference(_CROCKFORD)
    )


def shown(value: Any) -> str:
    """Write an attribute's value as the App API does: always a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return msgspec.json.encode(value).decode()


def token(position: int, kind: str = "0") -> str:
    """Write where a list goes on: base64 of `<kind>:<position>`."""
    return base64.b64encode(f"{kind}:{position}".encode()).decode()


def position(start: str) -> tuple[str, int]:
    """Read a token as (kind, position). Raises `ValueError` for what is none."""
    kind, _, number = base64.b64decode(start, validate=True).decode("ascii").partition(":")
    return kind, int(number)
