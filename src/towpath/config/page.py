"""The reference page of the file, docs/config.md, from the same models that check it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .json_schema import OTHER, SECTIONS, Schema, entry_schema, kinds_of, model_schema
from .model import File

HEAD = """# towpath.yaml

This page is made from the models that check the file: `python -m towpath.config > docs/config.md`.

Unknown keys are errors, and all errors are shown at once, each at its line. Durations are written `30s`,
`5m`, `2h`, `7d`; sizes `64KB`, `4MB`; rates `500/s`, `300/min`; shares `20%`. Relative
paths start from the file's directory.

Values may hold placeholders; in `{ }` and `[ ]` put them in quotes:

| Placeholder | Value |
|---|---|
| `${NAME}` | the environment variable; an error when it is unset or empty |
| `${NAME:-default}` | the variable, or the default |
| `${file:path}` | the content of a file, without its last line break |
| `${secret:name}` | a secret of the encrypted store: `towpath secrets set name` |
| `$${` | a plain `${` |
"""


def reference() -> str:
    """Markdown: every key with its type, default and description; the settings of what comes with towpath."""
    parts = [HEAD, *_model("", *model_schema(File, "File."))]
    for section, block in SECTIONS[1:]:
        kinds = kinds_of(section)
        for kind in kinds.built_in():
            entry, definitions = entry_schema(section, block, kinds, kind)
            entry["properties"].pop("type")
            head = f"## {section}: `type: {kind}`\n\n{entry['description']}\n"
            parts += [head, _table(entry, definitions)]
    return "\n".join(parts)


def _model(name: str, schema: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    """The table of a model, then those of the models inside it."""
    yield f"## `{name}`\n\n{schema['description']}\n" if name else "## Sections\n"
    yield _table(schema, definitions)
    for key, inner in schema["properties"].items():
        target = _target(inner)
        if target in definitions:
            below = f"{name}.{key}" if name else key
            below += ".NAME" if _named(inner) else ""
            yield from _model(below, definitions[target], definitions)


def _table(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    needed = {names[0] for names in schema["needed"]}
    rows: dict[str, str] = {}
    for key, inner in schema["properties"].items():
        described = str(inner.get("description", ""))
        if described.startswith(OTHER):
            first = described.split("`")[1]
            rows[first] = rows[first].removesuffix(" |") + f" Also written `{key}`. |"
        else:
            cells = [
                f"`{key}`",
                _type(inner, definitions),
                _default(key, inner, needed),
                _cell(inner, definitions),
            ]
            rows[key] = f"| {' | '.join(cells)} |"
    return "\n".join(["| Key | Type | Default | |", "|---|---|---|---|", *rows.values(), ""])


def _cell(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    described = schema if "description" in schema else definitions.get(_target(schema), {})
    return str(described.get("description", "")).replace("|", "\\|").replace("\n", " ")


def _default(key: str, schema: Schema, needed: set[str]) -> str:
    if key in needed:
        return "required"
    default: Any = schema.get("default")
    if default in (None, {}, [], "") or _target(schema):
        return ""
    written = ", ".join(map(str, default)) if isinstance(default, list) else default
    return f"`{written if isinstance(written, str) else json.dumps(written)}`"


def _type(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """A type in a word or two."""
    if _target(schema) and _named(schema):
        return "sections by name"
    if _target(schema):
        return "section" if schema.get("type") != "array" else "list of sections"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_type(each, definitions) for each in schema["anyOf"] if each.get("type") != "null")
    if schema.get("title") in ("duration", "size", "rate", "share", "names", "nothing"):
        return "name or list of names" if schema["title"] == "names" else str(schema["title"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), definitions)}"
    words = {"string": "text", "integer": "number", "boolean": "true or false", "object": "keys and values"}
    return words.get(str(schema.get("type")), str(schema.get("type", "any")))


def _target(schema: Schema) -> str:
    """The definition a schema refers to, itself, by its items or by its values; empty when to none."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix("#/$defs/")
    nested = [schema.get("items"), *_values(schema), *schema.get("anyOf", []), *schema.get("allOf", [])]
    return next((found for each in nested if isinstance(each, dict) and (found := _target(each))), "")


def _named(schema: Schema) -> bool:
    """Whether it refers to a definition by values under names that are free."""
    return bool(_values(schema)) or any(map(_named, schema.get("anyOf", [])))


def _values(schema: Schema) -> list[Schema]:
    """What may stand under names that are free."""
    found = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    return [each for each in found if isinstance(each, dict)]
