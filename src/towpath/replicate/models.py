"""Ready SQL views over the replicated tables: one source for DuckDB and PostgreSQL, each column explained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal, TypeAlias

from msgspec import Struct

from ..warehouse import DELETED, LOADED, WORKSPACE, Kind, Shape

Dialect: TypeAlias = Literal["duckdb", "postgres"]

MODELS = (
    "deliveries",
    "campaign_funnel_daily",
    "newsletter_funnel_weekly",
    "message_funnel_weekly",
    "newsletter_variants_compared",
    "person_engagement",
    "segment_growth",
    "deliverability",
    "unsubscribes_and_bounces",
)
"""Every view, those that others read first. Each is a file of that name beside this one."""

_JSON: Mapping[Dialect, str] = {"duckdb": "json", "postgres": "jsonb"}
_TYPES: Mapping[Kind, str] = {
    "text": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "time": "timestamptz",
    "date": "date",
}
_LINEAGE: Mapping[str, Kind] = {WORKSPACE: "text", LOADED: "time", DELETED: "time"}

# What the views' files write in braces, with {0}, {1} … for the words that follow. All of it is SQL that both
# engines understand in the same way: days and weeks are those of UTC whatever the session's time zone.
_METRIC = (
    "case when (m.metrics ->> '{0}') ~ '^[0-9]{{1,10}}([.][0-9]+)?$' "
    "then to_timestamp(cast((m.metrics ->> '{0}') as double precision)) end"
)
_RATE = "(cast({0} as double precision) / nullif({1}, 0))"
_SCORE = (
    f"(({_RATE.format('{0}', '{1}')} - {_RATE.format('({2} - {0})', '({3} - {1})')}) / nullif(sqrt("
    f"{_RATE.format('{2}', '{3}')} * (1 - {_RATE.format('{2}', '{3}')}) * "
    f"({_RATE.format('1', '{1}')} + {_RATE.format('1', '({3} - {1})')})), 0))"
)
_PHRASES: Mapping[str, str] = {
    "metric": _METRIC,
    "latest": f"greatest({_METRIC}, reported.{{0}}_at)",
    "reported": "max(case when event.metric = '{0}' then event.at end) as {0}_at",
    "by_person": "max(case when event.metric = '{0}' and not {1} then event.at end) as human_{0}_at",
    "by_machine": "max(case when event.metric = '{0}' and {1} then event.at end) as prefetch_{0}_at",
    "day": "cast(({0}) at time zone 'UTC' as date)",
    "week": "cast(date_trunc('week', ({0}) at time zone 'UTC') as date)",
    "domain": "case when {0} like '%@%' then lower(regexp_replace({0}, '^.*@|>.*$', '', 'g')) end",
    "rate": _RATE,
    "total": "cast(sum({0}) as bigint)",
    "lately": "count(case when {0}_at > now() - interval '{1} days' then 1 end) as {0}_{1}_days",
    "score": _SCORE.format("beside.{0}", "beside.delivered", "beside.all_{0}", "beside.all_delivered"),
}
_BRACES = re.compile(r"\{(\w+)((?: [^{}\n]*)?)\}")
_READS = re.compile(r"^-- reads (\w+)(\?)?(?:: (.*))?\n", re.MULTILINE)
_FIELD = re.compile(r"(\w+) (\w+)(!)?")
_SHOWN = re.compile(r"^    (?:.*\bas )?(?:\w+\.)?(\w+),?  -- (.+)$", re.MULTILINE)
_COMMENT = re.compile(r" *-- .*$", re.MULTILINE)


class View(Struct, frozen=True):
    """A view: the statements that make it, and what it is; or in `left_out` why it cannot be made.

    `columns` says of each column, in order, what it holds; `notes` what stays empty, since it is not
    replicated.
    """

    name: str
    about: str
    columns: Mapping[str, str]
    statements: tuple[str, ...] = ()
    left_out: str = ""
    notes: tuple[str, ...] = ()


class Field(Struct, frozen=True):
    """A column that a view reads; without one that is `needed` there is no view."""

    name: str
    kind: Kind
    needed: bool


class Reads(Struct, frozen=True):
    """A table that a view reads, or (without fields) another view; `optional` where it does without."""

    table: str
    optional: bool
    fields: tuple[Field, ...]


class Model(Struct, frozen=True):
    """A view as its file has it: what it is for, what it reads, its columns, and its query with braces."""

    name: str
    about: str
    reads: tuple[Reads, ...]
    columns: Mapping[str, str]
    query: str


def models() -> Sequence[Model]:
    """Every view there is, those that others read first."""
    return tuple(_model(name) for name in MODELS)


def views(shapes: Sequence[Shape], dialect: Dialect, schema: str = "") -> Sequence[View]:
    """Every view over the tables that a target keeps, in the order to make them in.

    The statements may be run again at any time; they replace the views of before. With `schema` all names
    are of that schema, else of the session's own.
    """
    workshop = _Workshop({shape.table.name: shape for shape in shapes}, dialect, schema)
    made: dict[str, View] = {}
    for model in models():
        made[model.name] = workshop.view(model, made)
    return tuple(made.values())


def document() -> str:
    """The page of the docs about the views, in Markdown."""
    return "\n".join([_PREFACE, *(_section(model) for model in models())])


@cache
def _model(name: str) -> Model:
    text = _file(name).replace("{counts}", _file("_counts").strip())
    about, _, rest = text.removeprefix("-- ").partition("\n")
    reads = tuple(_reads(found) for found in _READS.finditer(rest))
    query = _READS.sub("", rest).strip()
    shown = query[query.rindex("\nselect") if "\nselect" in query else 0 :]
    return Model(name, about, reads, dict(_SHOWN.findall(shown)), _COMMENT.sub("", query))


def _file(name: str) -> str:
    return (files(__package__) / "models" / f"{name}.sql").read_text("utf-8")


def _reads(found: re.Match[str]) -> Reads:
    table, optional, fields = found.groups()
    each = _FIELD.findall(fields or "")
    return Reads(table, bool(optional), tuple(Field(name, kind, bool(needed)) for name, kind, needed in each))


class _Workshop:
    """Makes views for the tables of one target."""

    def __init__(self, shapes: Mapping[str, Shape], dialect: Dialect, schema: str) -> None:
        self._shapes = shapes
        self._dialect = dialect
        self._schema = schema

    def view(self, model: Model, made: Mapping[str, View]) -> View:
        if why := self._obstacle(model, made):
            return View(model.name, model.about, model.columns, left_out=why)
        statements = (self._create(model), *self._comments(model))
        return View(model.name, model.about, model.columns, statements, notes=tuple(self._missing(model)))

    def _obstacle(self, model: Model, made: Mapping[str, View]) -> str:
        """Why the view cannot be made; empty if it can."""
        if any(shape.name == model.name for shape in self._shapes.values()):
            return f"a table is called {model.name}"
        for read in model.reads:
            if not read.fields and made[read.table].left_out:
                return f"it reads {read.table}, which is left out too"
            if read.fields and not read.optional and (why := self._unreadable(read)):
                return why
        return ""

    def _missing(self, model: Model) -> Iterator[str]:
        """What is not there for the view's columns."""
        for read in model.reads:
            if read.fields and read.optional and (why := self._unreadable(read)):
                yield why
                continue
            for field in read.fields:
                if why := _absent(self._shapes[read.table], field):
                    yield why

    def _unreadable(self, read: Reads) -> str:
        """Why a table cannot be read; empty if it can."""
        shape = self._shapes.get(read.table)
        if shape is None:
            return f"the table {read.table} is not replicated"
        return next((why for field in read.fields if field.needed and (why := _absent(shape, field))), "")

    def _create(self, model: Model) -> str:
        query = self._query(model)
        create = f"create or replace view {self._name(model.name)} as\n{query}"
        if self._dialect == "duckdb":
            return create
        # PostgreSQL replaces a view only by one that begins with the same columns. Where this does not, ours
        # that read it go too, and are made again after it; a view of somebody else's stops that.
        drops = ", ".join(self._name(name) for name in (*_readers(model.name), model.name))
        return (
            f"do $towpath$ begin\n{create};\n"
            f"exception when invalid_table_definition then\ndrop view if exists {drops};\n{create};\n"
            "end $towpath$"
        )

    def _comments(self, model: Model) -> Iterator[str]:
        name = self._name(model.name)
        yield f"comment on view {name} is {_text(model.about)}"
        for column, about in model.columns.items():
            yield f"comment on column {name}.{_quoted(column)} is {_text(about)}"

    def _query(self, model: Model) -> str:
        reads = {read.table: read for read in model.reads}

        def filled(found: re.Match[str]) -> str:
            word = found[1]
            return self._relation(reads[word]) if word in reads else _PHRASES[word].format(*found[2].split())

        return _BRACES.sub(filled, model.query)

    def _relation(self, read: Reads) -> str:
        """The table with just the columns that are read; those that are not there are null."""
        if not read.fields:
            return self._name(read.table)
        shape = None if self._unreadable(read) else self._shapes[read.table]
        columns = [self._column(name, kind, there=shape is not None) for name, kind in _LINEAGE.items()]
        for field in read.fields:
            there = shape is not None and not _absent(shape, field)
            columns.append(self._column(field.name, field.kind, there=there))
        source = f"from {self._name(shape.name)}" if shape else "where false"
        return f"(select {', '.join(columns)} {source})"

    def _column(self, name: str, kind: Kind, *, there: bool) -> str:
        if there:
            return _quoted(name)
        return f"cast(null as {_JSON[self._dialect] if kind == 'json' else _TYPES[kind]}) as {_quoted(name)}"

    def _name(self, name: str) -> str:
        return f"{_quoted(self._schema)}.{_quoted(name)}" if self._schema else _quoted(name)


def _absent(shape: Shape, field: Field) -> str:
    """Why a column cannot be read; empty if it can. A text reads the same as a hash, to count and to join."""
    name = f"{shape.table.name}.{field.name}"
    column = next((one for one in shape.kept if one.name == field.name), None)
    if column is None:
        return f"the column {name} is left out"
    if field.name in shape.hashed and field.kind != "text":
        return f"the column {name} is hashed"
    return ""


def _readers(name: str) -> Sequence[str]:
    """The views that read a view, and what reads those, last first."""
    found: list[str] = []
    for model in models():
        if any(read.table in (name, *found) for read in model.reads):
            found.insert(0, model.name)
    return found


_PREFACE = """# Views of a replication

<!-- Made by `python -m towpath.replicate.models`; do not edit. -->

Ready SQL views over the [replicated tables](replication.md), the same in DuckDB and PostgreSQL. In the
warehouse every view and column carries its line of this page as a comment.

`towpath replicate models` makes them, and says which are left out and why: a view needs the tables it reads,
where they are not marked as optional. Each row names its workspace in `_workspace`. Days and weeks are those
of UTC, whatever the session's time zone; weeks begin on Monday. Rates are parts of 1, and null where they
would divide by nothing. A column that was not replicated is null; one that is hashed counts and joins as
before, and an address that is hashed has no domain.
"""


def _section(model: Model) -> str:
    read = [f"`{one.table}`{' (optional)' if one.optional else ''}" for one in model.reads]
    rows = [f"| `{name}` | {about} |" for name, about in model.columns.items()]
    head = [
        f"## {model.name}",
        "",
        model.about,
        "",
        f"Reads {', '.join(read)}.",
        "",
        "| column | |",
        "|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    print(document(), end="")
