"""JSON Schema of the whole file, for editors and for the reference, from the models alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from pydantic import BaseModel

from towpath.registry import Kinds, destinations, settings_of, sources
from towpath.units import format_duration, format_share, format_size

from .model import NAME_PATTERN, AccountBlock, DestinationBlock, File, SourceBlock
from .settings import models_in, spellings

Schema: TypeAlias = dict[str, Any]

OTHER = "Another spelling of"
_OUTSIDE = ("title", "description", "default")
PLACEHOLDER = {"type": "string", "pattern": r"\$\{"}
SECTIONS = (("accounts", AccountBlock), ("sources", SourceBlock), ("destinations", DestinationBlock))


def schema() -> Schema:
    """JSON Schema (2020-12) of towpath.yaml, with the settings of every installed destination and source."""
    whole, definitions = model_schema(File, "")
    for section, block in SECTIONS:
        kinds = kinds_of(section)
        for kind in kinds:
            entry, inner = entry_schema(section, block, kinds, kind)
            _demand(entry, section)
            definitions |= {f"{section}.{kind}": entry, **inner}
        whole["properties"][section] |= {
            "patternProperties": {f"^{NAME_PATTERN}$": _one_of(section, kinds)},
            "additionalProperties": False,
        }
    for model in (whole, *definitions.values()):
        if "needed" in model:
            model["required"] = [names[0] for names in model.pop("needed")]
    opened: Schema = _opened({**whole, "title": "towpath.yaml", "$defs": dict(sorted(definitions.items()))})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **opened}


def kinds_of(section: str) -> Kinds:
    """What `type` may be in a section of the file."""
    return sources() if section == "sources" else destinations()


def entry_schema(
    section: str, block: type[BaseModel], kinds: Kinds, kind: str
) -> tuple[Schema, dict[str, Schema]]:
    """The schema of one entry of a type, and the definitions it refers to; `needed` as in `model_schema`."""
    common, definitions = model_schema(block, f"{section}.")
    settings, inner = model_schema(settings_of(kinds[kind]), f"{section}.{kind}.")
    entry: Schema = {
        "title": kind,
        "description": settings.get("description", ""),
        "type": "object",
        "properties": {**common["properties"], "type": {"const": kind}, **settings["properties"]},
        "additionalProperties": False,
        "needed": settings["needed"],
    }
    return entry, {**definitions, **inner}


def model_schema(model: type[BaseModel], prefix: str) -> tuple[Schema, dict[str, Schema]]:
    """A model's schema under every spelling of its keys, and its definitions with names of their own.

    `needed` lists the spellings of each required key.
    """
    whole: Schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    definitions = {f"{prefix}{name}": each for name, each in whole.pop("$defs", {}).items()}
    written, required = whole["properties"], whole.pop("required", [])
    whole["properties"], whole["needed"] = {}, []
    for name, field in model.model_fields.items():
        names = [each for each in spellings(name, field) if not each.endswith("_")]
        key = next(each for each in names if each in written)
        _write_default(written[key], field.default)
        whole["properties"][names[0]] = written[key]
        for other in names[1:]:
            whole["properties"][other] = {**written[key], "description": f"{OTHER} `{names[0]}`."}
        if key in required:
            whole["needed"].append(names)
        for inner in models_in(field.annotation):
            definition, deeper = model_schema(inner, prefix)
            definitions |= {f"{prefix}{inner.__name__}": definition, **deeper}
    return whole, definitions


def _write_default(schema: Schema, default: Any) -> None:
    """A default as people write it in the file; a section's own is in its keys."""
    if isinstance(default, BaseModel):
        schema.pop("default", None)
    elif isinstance(default, timedelta):
        schema["default"] = format_duration(default)
    elif isinstance(default, tuple) and default and isinstance(default[0], timedelta):
        schema["default"] = [format_duration(each) for each in default]
    elif schema.get("title") == "size":
        schema["default"] = format_size(default)
    elif schema.get("title") == "share":
        schema["default"] = format_share(default)


def _demand(entry: Schema, section: str) -> None:
    """What must be written: all that is needed in a source; in a destination, unless an account holds it."""
    needed = [_any_spelling(names) for names in entry["needed"]]
    entry["needed"] = [["type"]]
    if needed and section == "sources":
        entry["allOf"] = needed
    if needed and section == "destinations":
        entry["anyOf"] = [{"required": ["account"]}, {"allOf": needed}]


def _any_spelling(names: Sequence[str]) -> Schema:
    alternatives = [{"required": [name]} for name in names]
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _one_of(section: str, kinds: Iterable[str]) -> Schema:
    """An editor names the unknown type first, and completes the settings of a known one."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(kinds)}},
        "oneOf": [{"$ref": f"#/$defs/{section}.{kind}"} for kind in kinds],
    }


def _opened(schema: Any, *, key: str = "") -> Any:
    """The schema with `${…}` allowed wherever a value is not free text; a `type` is always written out."""
    if isinstance(schema, list):
        return [_opened(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if key == "properties":
        return {name: each if name == "type" else _opened(each) for name, each in schema.items()}
    opened = {name: _opened(each, key=name) if name != "default" else each for name, each in schema.items()}
    return _or_placeholder(opened) if _restricted(opened) else opened


def _restricted(schema: Schema) -> bool:
    kinds = schema.get("type")
    listed = set(kinds if isinstance(kinds, list) else [kinds])
    scalar = {"string", "integer", "number", "boolean"} & listed
    return bool(scalar) and not {"object", "array"} & listed and (scalar != {"string"} or _bounded(schema))


def _bounded(schema: Schema) -> bool:
    return bool({"enum", "const", "pattern", "format", "minLength", "maxLength"} & schema.keys())


def _or_placeholder(schema: Schema) -> Schema:
    outside: Schema = {each: schema.pop(each) for each in _OUTSIDE if each in schema}
    return outside | {"anyOf": [schema, PLACEHOLDER]}
