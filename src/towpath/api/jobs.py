"""Routes of jobs: list, show, start, cancel, retry, their schedules, and what their runs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request

from ..app import App
from ..errors import TowpathError
from ..jobs import Measure, Progress
from ..jobs.runner import Overview, Unknown
from ..state.jobs import MOVES, JobRow, Line, ScheduleRow
from ..views import moment
from . import asking
from .answering import Answer, Missing, Named

LINES_MAX = 1000


class JobRoutes:
    """Answers about jobs and their runs."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        named: list[tuple[str, str, Answer]] = [
            ("GET", "/jobs", self.jobs),
            ("GET", "/jobs/{name}", self.job),
            ("POST", "/jobs/{name}/run", self.run),
            ("POST", "/jobs/{name}/pause", self.pause),
            ("POST", "/jobs/{name}/resume", self.resume),
            ("GET", "/runs", self.runs),
            ("GET", "/runs/{id:int}", self.show),
            ("POST", "/runs/{id:int}/cancel", self.cancel),
            ("POST", "/runs/{id:int}/retry", self.retry),
            ("GET", "/runs/{id:int}/logs", self.logs),
        ]
        return [(way, path, _found(answer)) for way, path, answer in named]

    async def jobs(self, _: Request) -> Any:
        """List jobs with schedule, run at work and last run."""
        return [self._overview(one) for one in await self._app.jobs.overview()]

    async def job(self, request: Request) -> Any:
        """Show a job: what it does, its settings, its newest runs."""
        job = self._app.jobs.job(request.path_params["name"])
        line = next(self._overview(one) for one in await self._app.jobs.overview() if one.job is job)
        settings = job.Settings.model_json_schema().get("properties", {})
        return {**line, "settings": settings, "runs": await self._rows(job.name, (), 10)}

    async def run(self, request: Request) -> Any:
        """Start a run by hand."""
        settings = (await asking.body(request)).get("settings") or {}
        if not isinstance(settings, dict):
            raise TowpathError("settings must be a JSON object", code="E5201", data="Nothing was started.")
        row = await self._app.jobs.launch(request.path_params["name"], settings)
        return {**self._shown(row), "started": self._app.delivering}

    async def pause(self, request: Request) -> Any:
        """Stop a job's schedule."""
        row = await self._app.jobs.pause(request.path_params["name"], paused=True)
        return {"job": row.job, **_schedule(row)}

    async def resume(self, request: Request) -> Any:
        """Restart a job's schedule from now on."""
        row = await self._app.jobs.pause(request.path_params["name"], paused=False)
        return {"job": row.job, **_schedule(row)}

    async def runs(self, request: Request) -> Any:
        """List runs, newest first."""
        query = request.query_params
        name, state = query.get("job"), query.get("state")
        if state is not None and state not in MOVES:
            known = f"one of: {', '.join(MOVES)}"
            raise TowpathError(f"no run is ever {state!r}", code="E5205", fix=known)
        if name is not None:
            self._app.jobs.job(name)
        return await self._rows(name, () if state is None else (state,), asking.number(request, "limit", 20))

    async def show(self, request: Request) -> Any:
        """Show one run with its checkpoint."""
        row = await self._app.jobs.find(request.path_params["id"])
        kept = {} if row.checkpoint is None else msgspec.json.decode(row.checkpoint)
        return {**self._shown(row), "checkpoint": kept.get("state")}

    async def cancel(self, request: Request) -> Any:
        """End a run."""
        return self._shown(await self._app.jobs.cancel(request.path_params["id"]))

    async def retry(self, request: Request) -> Any:
        """Go on from where a run that failed or was cancelled ended."""
        row = await self._app.jobs.retry(request.path_params["id"])
        return {**self._shown(row), "started": self._app.delivering}

    async def logs(self, request: Request) -> Any:
        """Show what a run said after a line, and its state, to ask again from there."""
        number = request.path_params["id"]
        after = asking.number(request, "after", 0, most=2**31 - 1)
        limit = asking.number(request, "limit", LINES_MAX, most=LINES_MAX)
        row = await self._app.jobs.find(number)  # first, so that a final state has all its lines below
        lines = await self._app.jobs.lines(number, after, limit)
        return {"run": self._shown(row), "lines": [line_view(line) for line in lines]}

    async def _rows(self, name: str | None, states: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
        return [self._shown(row) for row in await self._app.jobs.runs(name, states, limit)]

    def _overview(self, one: Overview) -> dict[str, Any]:
        rows = {"live": [self._shown(row) for row in one.live], "last": one.last and self._shown(one.last)}
        return {
            "job": one.job.name,
            "kind": one.job.kind,
            "about": one.job.about,
            **_schedule(one.schedule),
            **rows,
        }

    def _shown(self, row: JobRow) -> dict[str, Any]:
        return run_view(row, self._app.clock.now())


def _found(answer: Answer) -> Answer:
    async def respond(request: Request) -> Any:
        try:
            return await answer(request)
        except Unknown as error:
            raise Missing(error.title, code=error.code, fix=error.fix) from None

    return respond


def run_view(row: JobRow, now: float) -> dict[str, Any]:
    """A run as API and CLI show it; `at_work` says whether a process holds it at this moment."""
    return {
        "run": row.id,
        "job": row.job,
        "state": row.state,
        "cause": row.cause,
        "settings": msgspec.json.decode(row.arguments),
        "attempt": row.attempt,
        "failures": row.failures,
        "at_work": row.lease_until > now,
        **_progress(msgspec.json.decode(row.progress, type=Progress)),
        "error": row.error,
        "due_at": moment(row.due_at) if row.state in ("queued", "snoozed") else "",
        "created_at": moment(row.created_at),
        "started_at": moment(row.started_at),
        "ended_at": moment(row.ended_at),
    }


def _progress(progress: Progress) -> Mapping[str, Any]:
    parts = [{"part": name, "ended": part.ended, **_measure(part)} for name, part in progress.parts.items()]
    return {
        **_measure(progress),
        "counts": msgspec.to_builtins(progress.counts),
        **({"parts": parts} if parts else {}),
    }


def _measure(measure: Measure) -> Mapping[str, Any]:
    share = measure.done / measure.total if measure.total else None
    return {
        "done": measure.done,
        "total": measure.total,
        "unit": measure.unit,
        "percent": None if share is None else round(100 * share, 1),
        "rate_per_s": round(measure.rate_per_s, 3),
        "eta_s": None if measure.eta_s is None else round(measure.eta_s, 1),
    }


def _schedule(row: ScheduleRow | None) -> dict[str, Any]:
    if row is None:
        return {"schedule": "", "paused": False, "next_at": ""}
    return {"schedule": row.spec, "paused": row.paused, "next_at": "" if row.paused else moment(row.next_at)}


def line_view(line: Line) -> dict[str, Any]:
    """A line that a run said."""
    return {"id": line.id, "at": moment(line.at), "level": line.level, "text": line.text}
