"""Routes of replication: discover, check, plan, run, status, state, reset, others' states, models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.requests import Request

from ..app import App
from ..errors import TowpathError
from ..replicate.job import ReplicateSettings
from ..replicate.plan import PER_S, Plan
from ..replicate.table import Replicated
from ..replicate.tables import REPLICATED
from ..views import moment
from ..warehouse import Lost, Shape
from . import asking
from .answering import Answer, Missing, Named

BAD = "E4433"
UNREACHED = "E5641"


class ReplicationRoutes:
    """Answers about replications."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        named: list[tuple[str, str, Callable[[str, Any], Awaitable[Any]]]] = [
            ("GET", "", self.status),
            ("GET", "/state", self.state),
            ("POST", "/state", self.set_state),
            ("POST", "/discover", self.discover),
            ("POST", "/check", self.check),
            ("POST", "/test", self.test),
            ("POST", "/plan", self.plan),
            ("POST", "/compare", self.compare),
            ("POST", "/job", self.job),
            ("POST", "/reset", self.reset),
            ("POST", "/import-state", self.import_state),
            ("POST", "/models", self.models),
        ]
        one = [(way, f"/replications/{{name}}{path}", self._of(answer)) for way, path, answer in named]
        return [("GET", "/replications", self.replications), *one]

    def _of(self, answer: Callable[[str, Any], Awaitable[Any]]) -> Answer:
        """Answer about a replication that there is, with the body of the request."""

        async def respond(request: Request) -> Any:
            name = request.path_params["name"]
            if name not in self._app.replications.names():
                known = ", ".join(self._app.replications.names()) or "none"
                raise Missing(f"there is no replication {name!r}", code="E4431", fix=f"known: {known}")
            try:
                return await answer(name, await asking.body(request))
            except Lost as error:
                raise _unreached(error) from error

        return respond

    async def replications(self, _: Request) -> Any:
        """List the replications."""
        return [self._line(name) for name in self._app.replications.names()]

    async def status(self, name: str, _: Any) -> Any:
        """Show how fresh and how full each table is, and what the last run said of it."""
        return {**self._line(name), **await self._app.replications.desk.standing(name)}

    async def discover(self, name: str, body: Any) -> Any:
        """List tables with columns, keys and how they are read."""
        asked = _asked({"tables": body.get("tables") or ()})
        first = self._app.replications.workspaces(name, asked)[0]
        return [_table(REPLICATED[shape.table.name], shape) for shape in first.options.shapes]

    async def check(self, name: str, body: Any) -> Any:
        """Ask table by table whether the key may read it."""
        found = await self._app.replications.desk.check(
            name, _asked({"tables": body.get("tables") or ()}).tables
        )
        return [
            {"workspace": workspace, "table": line.name, "ok": line.ok, "detail": line.detail}
            for workspace, lines in found.items()
            for line in lines
        ]

    async def test(self, name: str, _: Any) -> Any:
        """Ask whether the keys may read and the warehouse can be written, as `connectors test` does."""
        found = await self._app.replications.desk.check(name, ())
        lines = [
            {**msgspec.to_builtins(line), "name": f"{workspace}: read {line.name}"}
            for workspace, checks in found.items()
            for line in checks
        ]
        return [*lines, msgspec.to_builtins(await self._app.replications.desk.opens(name))]

    async def plan(self, name: str, body: Any) -> Any:
        """Say what a run would cost."""
        full = bool(body.get("full"))
        asked = _asked({"tables": body.get("tables") or (), "full": full})
        return _costs(await self._app.replications.desk.costs(name, asked))

    async def compare(self, name: str, _: Any) -> Any:
        """Compare row counts with what Customer.io counts itself."""
        found = await self._app.replications.desk.reconcile(name)
        return [
            {"workspace": workspace, **msgspec.to_builtins(line)}
            for workspace, lines in found.items()
            for line in lines
        ]

    async def job(self, name: str, body: Any) -> Any:
        """Say which job a run is of, with its settings, checked."""
        asked = _asked(body)
        self._app.replications.workspaces(name, asked)  # raises for a table there is not
        return {"job": f"{name}.replicate", "settings": asked.model_dump(mode="json", exclude_defaults=True)}

    async def state(self, name: str, _: Any) -> Any:
        """Show what is kept of how far the tables were read."""
        kept = await self._app.replications.desk.kept(name)
        return [{"key": key, "value": value} for key, value in sorted(kept.items())]

    async def set_state(self, name: str, body: Any) -> Any:
        """Set a table's cursor."""
        table, text = str(body.get("table") or ""), str(body.get("cursor") or "")
        set_to = await self._app.replications.desk.set_cursor(name, body.get("workspace"), table, text)
        return {"table": table, "cursor": moment(set_to)}

    async def reset(self, name: str, body: Any) -> Any:
        """Empty tables, or forget only how far they were read."""
        keep_rows = bool(body.get("keep_rows"))
        return await self._app.replications.desk.reset(name, body.get("tables") or (), keep_rows=keep_rows)

    async def import_state(self, name: str, body: Any) -> Any:
        """Take over another tool's cursors."""
        found, notes = await self._app.replications.desk.import_state(
            name, body.get("workspace"), str(body.get("text") or ""), dry_run=bool(body.get("dry_run"))
        )
        rows = [{"table": table, "cursor": moment(at)} for table, at in found.items()]
        return {"cursors": rows, "notes": list(notes)}

    async def models(self, name: str, body: Any) -> Any:
        """Make the ready views, or say how they would be made."""
        found = await self._app.replications.desk.models(name, dry_run=bool(body.get("dry_run")))
        return [
            {
                "view": view.name,
                "made": not view.left_out,
                "about": view.about,
                "why_not": view.left_out,
                "notes": list(view.notes),
                "statements": list(view.statements),
                "columns": dict(view.columns),
            }
            for view in found
        ]

    def _line(self, name: str) -> dict[str, Any]:
        entry = self._app.replications.entry(name)
        return {
            "replication": name,
            "from": list(entry.sources),
            "target": entry.target.target.about,
            "schedule": entry.settings.times().text if entry.settings.repeats else "",
        }


def _asked(fields: Mapping[str, Any]) -> ReplicateSettings:
    try:
        return ReplicateSettings.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise TowpathError(
            f"{where} {said}".strip(),
            code=BAD,
            fix="towpath replicate run --help",
            data="Nothing was started.",
        ) from None


def _table(found: Replicated, shape: Shape) -> dict[str, Any]:
    table = shape.table
    hashed = {*shape.hashed}
    return {
        "table": shape.name,
        "also_called": list(found.aliases),
        "about": table.about,
        "method": found.method,
        "endpoint": found.endpoint,
        "under": found.parent,
        "key": list(table.key),
        "cursor": table.cursor,
        "deletes": ("removed" if shape.remove else "marked") if found.vanishes else "kept",
        "columns": [
            {
                "column": column.name,
                "kind": column.kind,
                "treated": "hashed" if column.name in hashed else "",
                "personal": column.personal,
                "about": column.about,
            }
            for column in shape.kept
        ],
    }


def _costs(plans: Mapping[str, Plan]) -> dict[str, Any]:
    rows = [
        {"workspace": workspace, **msgspec.to_builtins(line), "seconds": round(line.seconds, 1)}
        for workspace, plan in plans.items()
        for line in plan.tables
    ]
    # Workspaces are read one after the other.
    seconds = sum(plan.seconds for plan in plans.values())
    people = [f"{name}: {one.people:,} people, read by {one.by}" for name, one in plans.items() if one.people]
    return {
        "tables": rows,
        "requests": sum(plan.requests for plan in plans.values()),
        "rows": sum(line.rows or 0 for plan in plans.values() for line in plan.tables),
        "seconds": round(seconds, 1),
        "time": str(timedelta(seconds=round(seconds))),
        "per_s": PER_S,
        "notes": people,
    }


def _unreached(error: Lost) -> TowpathError:
    return TowpathError(
        f"the warehouse is out of reach: {error}",
        code=UNREACHED,
        fix="see that it is there and that nobody else has it open, then try again",
        data="What was not confirmed is not in; nothing is lost.",
    )
