"""Validation by pydantic models, with every complaint turned into a problem at its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, TypeVar, get_args

from msgspec import Struct
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from . import errors
from .document import Document, Path
from .errors import Problem
from .interpolate import Interpolation

M = TypeVar("M", bound=BaseModel)

_RULES = {
    "string_type": ("must be text", 'put it in quotes: "…"'),
    "int_type": ("must be a whole number", ""),
    "int_parsing": ("must be a whole number", ""),
    "int_from_float": ("must be a whole number", ""),
    "float_type": ("must be a number", ""),
    "float_parsing": ("must be a number", ""),
    "bool_type": ("must be true or false", ""),
    "bool_parsing": ("must be true or false", ""),
    "tuple_type": ("must be a list", "write [a, b], or one item per line after a dash"),
    "list_type": ("must be a list", "write [a, b], or one item per line after a dash"),
    "dict_type": ("must hold keys and values", ""),
    "model_type": ("must hold keys and values", ""),
    "model_attributes_type": ("must hold keys and values", ""),
    "too_short": ("must not be empty", ""),
    "string_too_short": ("must not be empty", ""),
}


class Within(Struct, frozen=True):
    """Where in the file the validated data stands.

    `known` names keys allowed there beside the model's own. `places` says which keys came from elsewhere (an
    account), so that a complaint points there. `partial` data need not be complete.
    """

    path: Path = ()
    known: Sequence[str] = ()
    places: Mapping[str, Path] = {}
    partial: bool = False


class Checker:
    """Validates parts of one document and collects what is wrong."""

    def __init__(self, document: Document, interpolation: Interpolation) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._interpolation = interpolation

    def validate(self, model: type[M], data: Any, within: Within) -> M | None:
        """The model's instance; None with problems kept."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            for detail in details:
                if not _echo(detail, details) and not (within.partial and _incomplete(detail)):
                    self._complain(model, detail, within)
        except Exception as error:  # a destination author's validator may raise anything
            self.add(
                errors.PLUGIN,
                f"{dotted(within.path)} cannot be checked ({type(error).__name__})",
                within.path,
            )
        return None

    def add(self, code: str, title: str, path: Path, hint: str = "", *, at_key: bool = False) -> None:
        """Keep a problem, with every secret and placeholder's value taken out of its words."""
        if self._interpolation.failed(path):
            return
        clean = self._interpolation.redact
        problem = self._document.problem(code, clean(title, path), path, clean(hint, path), at_key=at_key)
        if problem not in self.problems:
            self.problems.append(problem)

    def _complain(self, model: type[BaseModel], detail: ErrorDetails, within: Within) -> None:
        location, kind = detail["loc"], detail["type"]
        path = self._place(location, within, missing=kind == "missing")
        if kind == "extra_forbidden":
            self.unknown_key(
                path, [*keys_of(model, location[:-1]), *(within.known if len(location) == 1 else ())]
            )
        elif kind == "missing":
            self._missing(path)
        elif location and location[-1] == "[key]":
            title, hint = f'"{location[-2]}" cannot be a name', "use letters, digits and . _ + -"
            self.add(errors.NAME, title, path, hint, at_key=True)
        elif not self._interpolation.failed_below(path):
            code = errors.NOT_BUILT if kind == "not_built" else errors.VALUE
            self.add(code, _sentence(dotted(path), detail), path, _advice(detail), at_key=not location)

    def unknown_key(self, path: Path, allowed: Sequence[str]) -> None:
        """Keep the problem of a key nobody knows, with the nearest known one."""
        self.add(
            errors.UNKNOWN_KEY,
            f'unknown key "{path[-1]}"',
            path,
            suggestion(str(path[-1]), allowed),
            at_key=True,
        )

    def _missing(self, path: Path) -> None:
        where, key = dotted(path[:-1]) or "the file", path[-1]
        self.add(errors.MISSING, f'{where} needs "{key}"', path[:-1], f"add  {key}: …", at_key=True)

    def _place(self, location: Sequence[str | int], within: Within, *, missing: bool) -> Path:
        """The path in the file of a pydantic location: aliases and union branches are seen through."""
        steps = [step for step in location if step != "[key]"]
        path = within.path
        if steps and steps[0] in within.places:
            path, steps = within.places[str(steps[0])], steps[1:]
        for number, step in enumerate(steps):
            found = self._document.child(path, step)
            if found is not None:
                path = (*path, found)
            elif missing and number == len(steps) - 1:
                path = (*path, step)
        return path


def keys_of(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """The keys a model knows at a location inside it, names and aliases."""
    for step in location:
        fields = {key: field for name, field in model.model_fields.items() for key in spellings(name, field)}
        field = fields.get(str(step))
        inner = next(models_in(field.annotation), None) if field is not None else None
        if inner is not None:
            model = inner
    return [spellings(name, field)[0] for name, field in model.model_fields.items()]


def spellings(name: str, field: FieldInfo) -> list[str]:
    """How a field may be written: as in the reference first, then its other names."""
    aliases = [field.alias] if field.alias else []
    if isinstance(field.validation_alias, str):
        aliases.append(field.validation_alias)
    elif isinstance(field.validation_alias, AliasChoices):
        aliases += [choice for choice in field.validation_alias.choices if isinstance(choice, str)]
    names = [*aliases, name] if name.endswith("_") else [name, *aliases]
    return list(dict.fromkeys(names))


def suggestion(word: str, known: Sequence[str]) -> str:
    """`did you mean "x"?`, or the known words when none is near."""
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(known)}" if known else "none is defined"


def dotted(path: Path) -> str:
    """A path as people write it: `connections[0].from`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def _incomplete(detail: ErrorDetails) -> bool:
    return detail["type"] == "missing" or not detail["loc"]


def _echo(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Whether a complaint only follows from another: a list without its bad items, a misspelt key."""
    location = detail["loc"]
    if detail["type"] == "too_short":
        return any(len(other["loc"]) > len(location) == _common(other["loc"], location) for other in details)
    if detail["type"] != "missing":
        return False
    unknown = [other["loc"] for other in details if other["type"] == "extra_forbidden"]
    misspelt = [str(other[-1]).lower() for other in unknown if other[:-1] == location[:-1]]
    return bool(get_close_matches(str(location[-1]), misspelt, n=1))


def _common(left: Sequence[str | int], right: Sequence[str | int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _sentence(name: str, detail: ErrorDetails) -> str:
    if detail["type"] in _RULES:
        return f"{name} {_RULES[detail['type']][0]}"
    said = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    said = re.sub(r"^(Input|String|Value|List|Tuple) should ", "must ", said)
    return f"{name} {said}" if re.match(r"(is|must|needs|by|cannot)\b", said) else f"{name}: {said}"


def _advice(detail: ErrorDetails) -> str:
    if detail["type"] in ("literal_error", "enum"):
        expected = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        near = get_close_matches(str(detail["input"]).lower(), expected, n=1)
        return f'did you mean "{near[0]}"?' if near else ""
    return _RULES.get(detail["type"], ("", ""))[1]
