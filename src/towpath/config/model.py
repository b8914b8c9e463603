"""The keys of towpath.yaml as pydantic models: types, defaults and the sentences of the reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from towpath.destination import Settings
from towpath.jobs.settings import JobBlock, Positive
from towpath.mapping import ConsentRule, MapRule
from towpath.mapping.consent import needed
from towpath.message import Kind
from towpath.push.settings import PushSettings
from towpath.replicate.settings import ReplicationSettings
from towpath.retry import SCHEDULE_S
from towpath.units import Duration, Share, Size


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _room(value: int) -> int:
    if value < 1024:
        raise ValueError("must be at least 1KB")
    return value


def _by_event(value: Any) -> Any:
    return value if isinstance(value, dict) else {"*": value}


def _or_none(value: Any) -> Any:
    return {} if value is None else value


def _empty(value: Any) -> Any:
    if value:
        raise PydanticCustomError("not_built", "is not built yet in this version; leave it out")
    return None


def _directory(value: Any) -> Any:
    if isinstance(value, dict) or (isinstance(value, str) and "://" in value):
        raise PydanticCustomError("not_built", "by URL comes with the cluster engine; name a directory")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character, which no path may")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError("cannot be a name; use letters, digits and . _ + -")
    return value


LATER = "Not built yet in this version; must be empty."
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}"

Name: TypeAlias = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"})
]
Room: TypeAlias = Annotated[Size, AfterValidator(_room)]
_DURATION = TypeAdapter(Duration).json_schema()
_NAMES = {"title": "names", "type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}

MaxAge: TypeAlias = Annotated[
    dict[str, Positive],
    BeforeValidator(_by_event),
    WithJsonSchema({"anyOf": [_DURATION, {"type": "object", "additionalProperties": _DURATION}]}),
]
Later: TypeAlias = Annotated[
    None,
    BeforeValidator(_empty),
    WithJsonSchema(
        {"title": "nothing", "type": ["null", "object", "array"], "maxProperties": 0, "maxItems": 0}
    ),
]
Addresses: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_listed), WithJsonSchema({**_NAMES, "minItems": 0})
]
Names: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_listed), Field(min_length=1), WithJsonSchema(_NAMES)
]


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("is not an address; write host:port, like 127.0.0.1:8080")
    return value


def _loopback(value: str) -> str:
    if _address(value).rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
        raise ValueError("must be a loopback address, like 127.0.0.1:8081")
    return value


Address: TypeAlias = Annotated[str, AfterValidator(_address)]
Loopback: TypeAlias = Annotated[str, AfterValidator(_loopback)]


class Tls(Settings):
    """The server's own certificate, for when no proxy in front of it does TLS."""

    certificate: str = Field(description="PEM file with the certificate chain.")
    key: str = Field(description="PEM file with the private key.")


class RequestLimits(Settings):
    """How much one request may carry."""

    event: Room = Field(
        default=64 * 1024, description="Most bytes of one event; a larger one is refused, its batch is not."
    )
    request: Room = Field(
        default=4 * 1024**2,
        description="Most bytes of one request body, as sent and after inflating; a larger one gets a 413.",
    )
    depth: int = Field(default=200, ge=2, le=400, description="Deepest JSON nesting of one event.")


class Server(Settings):
    """Where events come in."""

    listen: Address = Field(
        default="127.0.0.1:8080", description="The address and port for events, `host:port`."
    )
    public_url: str | None = Field(
        default=None, description="The URL under which the outside reaches this server."
    )
    trusted_proxies: Addresses = Field(
        default=(), description="Addresses or networks whose X-Forwarded-For is believed."
    )
    tls: Tls | None = Field(
        default=None, description="Certificate and key files; without them the server speaks HTTP."
    )
    limits: RequestLimits = Field(default=RequestLimits(), description="How much one request may carry.")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            try:
                ip_network(item, strict=False)
            except ValueError:
                raise ValueError("must hold addresses or networks, like 10.0.0.0/8") from None
        return value


class Admin(Settings):
    """The way in for the CLI, the API and the dashboard: apart from events, never on a public address."""

    socket: str | None = Field(
        default=None,
        description="The Unix socket, mode 0600; by default admin.sock in the storage directory.",
    )
    listen: Loopback | None = Field(
        default=None, description="A loopback address to listen on besides the socket."
    )
    token: SecretStr | None = Field(
        default=None, description="What callers of `listen` must present; at least 16 characters."
    )

    @model_validator(mode="after")
    def _guarded(self) -> Admin:
        if self.listen and (self.token is None or len(self.token.get_secret_value()) < 16):
            raise ValueError("needs token (at least 16 characters) beside listen")
        return self


class Retry(Settings):
    """How long a delivery is tried before it becomes a dead letter."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(timedelta(seconds=pause) for pause in SCHEDULE_S),
        min_length=1,
        max_length=100,
        description="The pauses between attempts; each is stretched by 0…20 %; a Retry-After is honoured.",
    )
    timeout: Positive = Field(default=timedelta(seconds=30), description="How long one attempt may take.")


class RetryChange(Settings):
    """What one destination does differently from the file's `retry`."""

    schedule: tuple[Duration, ...] | None = Field(
        default=None, min_length=1, max_length=100, description="The pauses between its attempts."
    )
    timeout: Positive | None = Field(default=None, description="How long one of its attempts may take.")


class Retention(Settings):
    """How long things are kept."""

    log: Positive = Field(
        default=timedelta(days=7), description="Messages in the log, once delivered everywhere."
    )
    dead_letters: Positive = Field(
        default=timedelta(days=30), description="Dead letters, with message, request, response and attempts."
    )
    dedup: Positive = Field(
        default=timedelta(days=7), description="How long a repeated messageId of one source is recognised."
    )
    jobs: Positive = Field(
        default=timedelta(days=30), description="Runs of jobs that ended, with what they said."
    )


class IdentityBlock(Settings):
    """What may join ids to one person. A change counts for what is read from then on."""

    junk: tuple[str, ...] = Field(
        default=(),
        description="Ids that are nobody's and never join, besides `undefined`, `null`, `0` and the like.",
    )
    links: int = Field(default=500, ge=1, description="Most ids that are joined to one person directly.")
    identifiers: int = Field(default=1000, ge=2, description="Most ids of one person, through all joins.")


class Jobs(Settings):
    """When the jobs that come with towpath run by themselves (`towpath jobs list`)."""

    trim: JobBlock = Field(
        default=JobBlock(every=timedelta(hours=1)), description="Drops what is past its `retention`."
    )


class Privacy(Settings):
    """What may be written about people."""

    log_pii: bool = Field(default=False, description="Whether the program's own log may hold personal data.")


class TransformBlock(Settings):
    """A Python function between the log and the destination, run in a process of its own."""

    function: str = Field(
        min_length=1,
        description="`package.module:function`, beside this file or on PYTHONPATH: takes a message as dict, "
        "returns a dict, a list of dicts, or None for nothing.",
    )
    timeout: Positive = Field(
        default=timedelta(seconds=1), description="How long one message may take; then it is stopped."
    )
    env: tuple[str, ...] = Field(
        default=(),
        description="Names of environment variables that the function may read, besides PATH, HOME, "
        "PYTHONPATH, the language and the time zone; it sees no others.",
    )


def _called(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


def _or(*others: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Let the JSON schema of a section also take its short form."""

    def extend(schema: dict[str, Any]) -> None:
        schema["anyOf"] = [*schema["anyOf"], *others]

    return extend


class DeleteGuardBlock(Settings):
    """How many people one connection may delete: the larger of `share` and `count`; more wait for a yes."""

    enabled: bool = Field(default=True, description="`delete_guard: off` turns it off: nothing waits.")
    share: Share = Field(
        default=0.2, description="This part of the persons its sources know, where they count them."
    )
    count: int = Field(default=1000, ge=0, description="This many persons.")
    within: Positive = Field(default=timedelta(hours=1), description="The time they are counted over.")


def _guarded(value: Any) -> Any:
    return {"enabled": False} if value is False or value == "off" else value


Guarded: TypeAlias = Annotated[DeleteGuardBlock | None, BeforeValidator(_guarded)]


class ConnectionBlock(Settings):
    """From which sources to which destinations; each destination named is a connection of its own."""

    name: Name | None = Field(
        default=None,
        description="A stable name, which the queue belongs to; by default the destination's. A second "
        "connection to the same destination needs one. With several destinations: `name-destination`.",
    )
    from_: Names = Field(alias="from", description="One source or a list of sources.")
    to: Names = Field(description="One destination or a list of destinations.")
    only: tuple[Kind, ...] | None = Field(
        default=None, min_length=1, description="Only these types of message pass."
    )
    events: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Only track calls with these event names pass; other types are not concerned.",
    )
    start: Literal["now", "earliest"] = Field(
        default="now",
        description="Where a new connection begins: with what comes next, or with all that is kept.",
    )
    max_age: MaxAge = Field(
        default={},
        description="Older messages are skipped: a duration, or one per event or type (`*` for the rest).",
    )
    enabled: bool = Field(default=True, description="Whether deliveries are made; while false, they wait.")
    filter: str | None = Field(
        default=None, min_length=1, description="A CEL expression: only messages of which it is true pass."
    )
    consent: Annotated[ConsentRule | None, BeforeValidator(needed)] = Field(
        default=None,
        description="The consent categories this destination needs; a list of names, or a section.",
        json_schema_extra=_or(
            {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}
        ),
    )
    transform: Annotated[TransformBlock | None, BeforeValidator(_called)] = Field(
        default=None,
        description="A Python function, `package.module:function`, for what rules cannot say.",
        json_schema_extra=_or({"type": "string"}),
    )
    map: tuple[MapRule, ...] = Field(
        default=(), max_length=100, description="Rules that rename, set, hash and drop fields, in this order."
    )
    delete_guard: Guarded = Field(
        default=None,
        description="Instead of the file's `delete_guard`: a section, or `off`.",
        json_schema_extra=_or({"const": "off"}, {"const": False}),
    )


class DestinationBlock(Settings):
    """What every destination takes beside the settings of its type."""

    type: str = Field(description="Which tool it is.")
    account: str | None = Field(default=None, description="The entry of `accounts` whose settings it uses.")
    retry: RetryChange | None = Field(default=None, description="What differs from the file's `retry`.")


class SourceBlock(Settings):
    """What every source takes beside the settings of its type."""

    type: str = Field(description="Which kind of source it is.")


class AccountBlock(Settings):
    """One vendor workspace: credentials, region, URLs and budgets, shared by all that name it."""

    type: str = Field(description="Which tool it is; its settings may be given here once for all.")


class File(Settings):
    """towpath.yaml."""

    version: Literal[1] = Field(description="The version of this format.")
    server: Server = Field(default=Server(), description=str(Server.__doc__))
    admin: Admin = Field(default=Admin(), description=str(Admin.__doc__))
    storage: Annotated[str, BeforeValidator(_directory), Field(min_length=1)] = Field(
        default="./data", description="The data directory, relative to this file. One process owns it."
    )
    durability: Literal["strict", "relaxed"] = Field(
        default="strict",
        description="`strict`: a 200 means on disk. `relaxed`: a power cut may lose the last events.",
    )
    accounts: dict[Name, dict[str, Any]] = Field(default={}, description=str(AccountBlock.__doc__))
    sources: dict[Name, dict[str, Any]] = Field(default={}, description="Where events come from, by name.")
    destinations: dict[Name, dict[str, Any]] = Field(default={}, description="Where events go, by name.")
    connections: tuple[ConnectionBlock, ...] = Field(
        default=(), description="Which source feeds which destination."
    )
    retry: Retry = Field(default=Retry(), description=str(Retry.__doc__))
    retention: Retention = Field(default=Retention(), description=str(Retention.__doc__))
    jobs: Jobs = Field(default=Jobs(), description=str(Jobs.__doc__))
    privacy: Privacy = Field(default=Privacy(), description=str(Privacy.__doc__))
    identity: IdentityBlock = Field(default=IdentityBlock(), description=str(IdentityBlock.__doc__))
    delete_guard: Guarded = Field(
        default=None,
        description="How many people a connection may delete within an hour before somebody has to confirm; "
        "a section, or `off`.",
        json_schema_extra=_or({"const": "off"}, {"const": False}),
    )
    connectors: Later = Field(default=None, description=LATER)
    replications: Annotated[dict[Name, ReplicationSettings], BeforeValidator(_or_none)] = Field(
        default={}, description=str(ReplicationSettings.__doc__)
    )
    push: PushSettings | None = Field(default=None, description=str(PushSettings.__doc__))
    alerts: Later = Field(default=None, description=LATER)
