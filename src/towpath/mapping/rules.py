"""Field mapping: rules that rename, set, compute, hash and drop, in the order they are written."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema, field_validator

from ..destination import Settings
from ..message import KINDS, Kind, Message
from ..outcome import Rejected, Skipped
from .expression import Expression, Failure
from .hashing import Hashing
from .paths import FIXED, MISSING, OBJECTS, BadPath, Draft, Path, TakenAway, Unusable, parse
from .template import Template

SHORTEST_KEY = 16
MOST = 100
REPORTS = 20
PROTECTING = ("hash", "keep", "drop")
HASHABLE = frozenset({"userId", "anonymousId", "previousId"})
OnError: TypeAlias = Literal["keep", "skip", "reject"]
_NAMES = {"title": "names", "type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths: TypeAlias = Annotated[
    tuple[str, ...], BeforeValidator(_listed), Field(min_length=1, max_length=MOST), WithJsonSchema(_NAMES)
]
Kinds: TypeAlias = Annotated[
    tuple[Kind, ...],
    BeforeValidator(_listed),
    Field(min_length=1),
    WithJsonSchema({**_NAMES, "items": {"type": "string", "enum": sorted(KINDS)}}),
]


class HashRule(Settings):
    """Values that leave only as HMAC-SHA256, in hex."""

    fields: Paths = Field(description="Their paths; `*` stands for every key of an object or item of a list.")
    key: SecretStr = Field(
        description=f"The key, at least {SHORTEST_KEY} characters: `${{secret:NAME}}`. "
        "The same key gives the same hash for the same value."
    )
    normalize: bool = Field(
        default=True, description="Trim text and lower-case it first, so that one e-mail has one hash."
    )

    @field_validator("key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < SHORTEST_KEY:
            raise ValueError(f"must have at least {SHORTEST_KEY} characters")
        return value


class MapRule(Settings):
    """One step: for which messages, and what it does to them, in the order of these keys."""

    type: Kinds | None = Field(default=None, description="Only for these types of message.")
    event: Paths | None = Field(default=None, description="Only for track calls with these event names.")
    when: str | None = Field(default=None, description="Only where this CEL expression is true.")
    rename_event: dict[str, str] = Field(default={}, max_length=1000, description="Event names, old to new.")
    rename: dict[str, str] = Field(
        default={}, max_length=MOST, description="Paths, old to new; what is not there is left alone."
    )
    set: dict[str, Any] = Field(
        default={},
        max_length=MOST,
        description="Paths to constants or templates: `{properties.first}` in text is the value there.",
    )
    default: dict[str, Any] = Field(
        default={}, max_length=MOST, description="The same, only where there is nothing (or null) yet."
    )
    compute: dict[str, str] = Field(
        default={}, max_length=MOST, description="Paths to CEL expressions whose value they get."
    )
    hash: HashRule | None = Field(default=None, description=str(HashRule.__doc__))
    keep: Paths | None = Field(
        default=None, description="Of each object named here, only these fields stay: `properties.total`."
    )
    drop: Paths | None = Field(
        default=None, description="Paths that are taken away; `*` stands for every key."
    )
    on_error: OnError = Field(
        default="keep",
        description="When a step cannot be done for a message: leave that field as it is and report it, "
        "skip the message, or reject it. What cannot be hashed is taken away, never sent as it is; "
        "where hash, keep or drop fails otherwise, the message is rejected in any case.",
    )


class Mistake(NamedTuple):
    """What is wrong with a rule: where in it, what, what to do, at which column of the text.

    `of_key` says that it is about the key that stands there, not about its value.
    """

    place: tuple[str | int, ...]
    title: str
    hint: str
    column: int
    of_key: bool = False


class Mapped(NamedTuple):
    """What a mapping made of a message, and what people should know about it."""

    message: Message
    reports: Sequence[str] = ()


Step: TypeAlias = Callable[[Draft], None]


class Uncertain(Exception):
    """Whether a rule is for a message cannot be told; says why."""


class Rule:
    """A rule ready to run; what cannot be used is in `mistakes`."""

    def __init__(self, written: MapRule, number: int) -> None:
        self.written = written
        self.number = number
        self.mistakes: list[Mistake] = []
        self._types = frozenset(written.type or ())
        self._events = frozenset(written.event or ())
        self._when = self._made(("when",), Expression, written.when) if written.when else None
        self._steps = [step for step in self._read() if step is not None]

    def apply(self, draft: Draft) -> Skipped | Rejected | None:
        """Do to a draft what the rule says; why the message goes no further, if it does not."""
        try:
            if not self._concerns(draft):
                return None
        except Uncertain as why:
            if self._protects:
                return self._rejected(f"when failed, so nothing it takes away may pass: {why}")
            self._report(draft, f"when failed, which counts as false: {why}")
            return None
        for place, step in self._steps:
            try:
                step(draft)
            except (Unusable, Failure) as why:
                if place.startswith(PROTECTING) and not isinstance(why, TakenAway):
                    return self._rejected(f"{place}: {why}")
                if self._ends(draft):
                    return self._ended(f"{place}: {why}")
                self._report(draft, f"{place}: {why}")
        return None

    @property
    def _protects(self) -> bool:
        """Whether it takes personal data away: it must never be passed over by mistake (D08)."""
        return any(place.startswith(PROTECTING) for place, _ in self._steps)

    def _ends(self, draft: Draft) -> bool:
        """Whether a step that cannot be done ends the message; nothing skips a deletion (D10)."""
        on_error = self.written.on_error
        return on_error == "reject" or (on_error == "skip" and draft.fields["type"] != "delete")

    def _ended(self, why: str) -> Skipped | Rejected:
        if self.written.on_error == "skip":
            return Skipped("mapping", f"rule {self.number}, {why}")
        return self._rejected(why)

    def _rejected(self, why: str) -> Rejected:
        return Rejected(f"mapping rule {self.number}, {why}")

    def _report(self, draft: Draft, why: str) -> None:
        if len(draft.reports) < REPORTS:
            draft.reports.append(f"mapping rule {self.number}, {why}")

    def _concerns(self, draft: Draft) -> bool:
        fields = draft.fields
        if self._types and fields["type"] not in self._types:
            return False
        if self._events and not (fields["type"] == "track" and _named(fields["event"], self._events)):
            return False
        if self._when is None:
            return True
        try:
            return bool(self._when.holds(draft))
        except Failure as why:
            if not why.missing:
                raise Uncertain(why) from None
            return False

    # -- reading ---------------------------------------------------------------------------------------

    def _read(self) -> Iterator[tuple[str, Step] | None]:
        written = self.written
        if written.rename_event:
            yield "rename_event", _renaming_events(written.rename_event)
        for old, new in written.rename.items():
            yield self._rename(old, new)
        for text, value in written.set.items():
            yield self._write(("set", text), text, value, _setting)
        for text, value in written.default.items():
            yield self._write(("default", text), text, value, _defaulting)
        for text, value in written.compute.items():
            yield self._compute(text, value)
        if written.hash is not None:
            yield from self._hash(written.hash)
        if written.keep is not None:
            yield from self._keep(written.keep)
        for number, text in enumerate(written.drop or ()):
            path = self._path(("drop", number), text, stars=True)
            yield (f"drop {text}", _dropping(path)) if path else None

    def _made(
        self, place: tuple[str | int, ...], make: Callable[[Any], Any], value: Any, *, of_key: bool = False
    ) -> Any:
        try:
            return make(value)
        except BadPath as error:
            self.mistakes.append(Mistake(place, str(error), error.hint, error.column, of_key))
            return None

    def _path(
        self,
        place: tuple[str | int, ...],
        text: str,
        *,
        stars: bool = False,
        fixed: bool = False,
        of_key: bool = False,
    ) -> Path | None:
        """A path that a rule writes; `stars` and `fixed` allow those."""
        path: Path | None = self._made(place, parse, text, of_key=of_key)
        if path is None:
            return None
        if path.word in FIXED and not fixed:
            hint = "only hash may replace it" if path.word in HASHABLE else ""
            self.mistakes.append(Mistake(place, f"no rule changes {path.word}", hint, 0, of_key))
        elif "*" in path.keys and not stars:
            column = text.find("*")
            self.mistakes.append(Mistake(place, "* cannot stand here", "name the key", column, of_key))
        else:
            return path
        return None

    def _rename(self, old: str, new: str) -> tuple[str, Step] | None:
        place = ("rename", old)
        source, target = self._path(place, old, of_key=True), self._path(place, new)
        if source is None or target is None:
            return None
        if not source.keys and source.word in OBJECTS:
            title = f"{old} as a whole cannot be renamed"
            self.mistakes.append(Mistake(place, title, "name its fields", 0, of_key=True))
            return None
        return f"rename {old}", _renaming(source, target)

    def _write(
        self, place: tuple[str, str], text: str, value: Any, step: Callable[[Path, Template], Step]
    ) -> tuple[str, Step] | None:
        path, template = self._path(place, text, of_key=True), self._made(place, Template, value)
        return (" ".join(place), step(path, template)) if path and template else None

    def _compute(self, text: str, value: str) -> tuple[str, Step] | None:
        place = ("compute", text)
        path, expression = self._path(place, text, of_key=True), self._made(place, Expression, value)
        return (" ".join(place), _computing(path, expression)) if path and expression else None

    def _hash(self, written: HashRule) -> Iterator[tuple[str, Step] | None]:
        hashing = Hashing(written.key.get_secret_value(), normalize=written.normalize)
        for number, text in enumerate(written.fields):
            place = ("hash", "fields", number)
            path = self._path(place, text, stars=True, fixed=text in HASHABLE)
            yield (f"hash {text}", _hashing(path, hashing)) if path else None

    def _keep(self, written: Sequence[str]) -> Iterator[tuple[str, Step] | None]:
        """An allow list: the objects are those that hold the named fields."""
        kept: dict[Path, set[str]] = {}
        for number, text in enumerate(written):
            path = self._path(("keep", number), text)
            if path is not None and not path.keys:
                self.mistakes.append(Mistake(("keep", number), f"{text} is no field of an object", "", 0))
            elif path is not None:
                holder = Path(text, path.root, path.keys[:-1])
                kept.setdefault(Path("", holder.root, holder.keys), set()).add(path.keys[-1])
        for holder, names in kept.items():
            yield "keep", _keeping(holder, _with_holders(holder, names, kept))


def _with_holders(holder: Path, names: set[str], kept: Mapping[Path, set[str]]) -> frozenset[str]:
    """A field that holds kept fields stays too."""
    size = len(holder.keys)
    inner = {
        other.keys[size]
        for other in kept
        if other.root == holder.root and len(other.keys) > size and other.keys[:size] == holder.keys
    }
    return frozenset(names | inner)


def _renaming_events(names: Mapping[str, str]) -> Step:
    def step(draft: Draft) -> None:
        event = draft.fields["event"]
        if _named(event, names.keys()):
            draft.fields["event"], draft.changed = names[event], True

    return step


def _renaming(source: Path, target: Path) -> Step:
    """Move a value: also to a place inside its own, or to the place of the object that holds it."""
    inside = source.root == target.root and target.keys[: len(source.keys)] == source.keys
    around = source.root == target.root and source.keys[: len(target.keys)] == target.keys

    def step(draft: Draft) -> None:
        value = draft.find(source)
        if value is MISSING or (value is None and not source.keys) or (inside and around):
            return
        if inside:
            draft.remove(source)
        draft.write(target, value)
        if not inside and not around:
            draft.remove(source)

    return step


def _setting(path: Path, template: Template) -> Step:
    return lambda draft: draft.add(path, template.fill(draft))


def _defaulting(path: Path, template: Template) -> Step:
    def step(draft: Draft) -> None:
        if draft.find(path) in (MISSING, None):
            draft.add(path, template.fill(draft))

    return step


def _computing(path: Path, expression: Expression) -> Step:
    return lambda draft: draft.add(path, expression.value(draft))


def _hashing(path: Path, hashing: Hashing) -> Step:
    def step(draft: Draft) -> None:
        failed: list[str] = []

        def hashed(value: Any) -> Any:
            made = hashing.of(value)
            if made is MISSING:
                failed.append(type(value).__name__)
            return made

        draft.change(path, hashed)
        if failed:
            raise TakenAway(f"a {failed[0]} has no hash; it is taken away")

    return step


def _keeping(holder: Path, names: frozenset[str]) -> Step:
    def step(draft: Draft) -> None:
        value = draft.find(holder)
        if type(value) is dict and not value.keys() <= names:
            draft.write(holder, {key: each for key, each in value.items() if key in names})
        elif type(value) is not dict and value not in (MISSING, None):
            draft.remove(holder)
            raise TakenAway(f"a {type(value).__name__} has no fields; it is taken away")

    return step


def _dropping(path: Path) -> Step:
    return lambda draft: draft.remove(path)


def _named(event: Any, names: Container[str]) -> bool:
    return isinstance(event, str) and event in names


class FieldMap:
    """The rules of a connection, one after the other. Pure: the message given is never changed."""

    def __init__(self, rules: Sequence[MapRule]) -> None:
        self._rules = [Rule(written, number) for number, written in enumerate(rules, 1)]

    @property
    def mistakes(self) -> Iterator[tuple[int, Mistake]]:
        """What cannot be used, with the index of its rule."""
        for rule in self._rules:
            for mistake in rule.mistakes:
                yield rule.number - 1, mistake

    def apply(self, message: Message) -> Mapped | Skipped | Rejected:
        """The message as this connection sends it, or why it does not."""
        draft = Draft(message)
        for rule in self._rules:
            ended = rule.apply(draft)
            if ended is not None:
                return ended
        return Mapped(draft.finish(), draft.reports)
