"""As much of JSON Schema as the file's schema uses, so that the tests need no library for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": int | float,
}
LONGEST: dict[Any, str] = {dict: "maxProperties", list: "maxItems", str: "maxLength"}
KNOWN = {
    "$ref", "$schema", "$defs", "title", "description", "default", "examples", "format", "writeOnly",
    "type", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "minItems", "maxItems", "items", "properties", "patternProperties", "propertyNames",
    "additionalProperties", "required", "anyOf", "oneOf", "allOf", "maxProperties",
}  # fmt: skip


def faults(schema: dict[str, Any], value: Any, root: dict[str, Any], where: str = "") -> list[str]:
    """What is wrong with a value; empty when it is valid."""
    assert schema.keys() <= KNOWN, schema.keys() - KNOWN
    return [fault if ": " in fault else f"{where}: {fault}" for fault in _faults(schema, value, root, where)]


def _faults(schema: dict[str, Any], value: Any, root: dict[str, Any], where: str) -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from faults(root["$defs"][name], value, root, where)
    if "type" in schema and not any(_is(value, kind) for kind in _listed(schema["type"])):
        yield f"not {schema['type']}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"not one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"not {schema['const']}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"does not match {schema['pattern']}"
    for each in schema.get("allOf", []):
        yield from faults(each, value, root, where)
    for word in ("anyOf", "oneOf"):
        fits = [not faults(each, value, root) for each in schema.get(word, [])].count(True)
        if word in schema and (fits == 0 or (word == "oneOf" and fits > 1)):
            yield f"fits {fits} of {word}"
    yield from _inner(schema, value, root, where)


def _inner(schema: dict[str, Any], value: Any, root: dict[str, Any], where: str) -> Iterator[str]:
    if type(value) in LONGEST and len(value) > schema.get(LONGEST[type(value)], len(value)):
        yield "too long"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults(schema.get("items", {}), item, root, f"{where}[{index}]")
    if not isinstance(value, dict):
        return
    yield from (f"lacks {key}" for key in schema.get("required", []) if key not in value)
    for key, item in value.items():
        parts = [
            each for pattern, each in schema.get("patternProperties", {}).items() if re.search(pattern, key)
        ]
        parts += [schema["properties"][key]] if key in schema.get("properties", {}) else []
        if not parts and schema.get("additionalProperties") is False:
            yield f"unknown key {key}"
        elif not parts and isinstance(schema.get("additionalProperties"), dict):
            parts = [schema["additionalProperties"]]
        for part in parts:
            yield from faults(part, item, root, f"{where}.{key}")


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
