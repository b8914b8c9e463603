"""Where a table's run begins: how far back it reads, and whether an earlier one goes on."""

from __future__ import annotations

from msgspec.structs import replace

from .reading import Wanted
from .report import DAY_S, Options, Tier
from .state import Ids, TableRun, TableState
from .table import Replicated

RESUMED_S = DAY_S
"""A run that was cut off longer ago than this is begun anew."""


def resumed(state: TableState, now: float) -> TableRun | None:
    """Return the run that was cut off, where it is young enough to go on."""
    run: TableRun | None = state.find("run", TableRun)
    return run if run is not None and now - RESUMED_S <= run.at <= now else None


def begun(replicated: Replicated, state: TableState, options: Options, run: str, now: float) -> TableRun:
    """Begin a run: with a cursor, as far behind it as is due."""
    since, back_s = None, None
    if replicated.table.cursor:
        since = start = options.starts.get(replicated.name, options.start_at)
        cursor = state.cursor
        if cursor is not None and not _moved_back(start, state):
            back_s = due(look_back(replicated, options), tiers(state), now)
            behind = min(cursor, now) - back_s
            since = behind if since is None else max(since, behind)
        if options.since is not None:
            since, back_s = options.since, 0.0
    wanted = Wanted(until=now, since=since, parts=options.in_flight, domains=options.domains)
    return TableRun(run, now, wanted, back_s)


def _moved_back(start: float | None, state: TableState) -> bool:
    """Whether the start date is now before that of the last run: what lies between was never read."""
    before: float | None = state.find("start", float)
    return before is not None and (start or 0.0) < before


def look_back(replicated: Replicated, options: Options) -> tuple[Tier, ...]:
    """Return how far a table looks back."""
    return options.look_back.get(replicated.name, replicated.look_back)


def tiers(state: TableState) -> dict[str, float]:
    """Return when each tier was read last: Unix seconds by its seconds back."""
    return state.find("tiers", dict[str, float]) or {}


def due(look_back: tuple[Tier, ...], read_at: dict[str, float], now: float) -> float:
    """Return the longest tier whose time has come; 0 where there is none.

    A reading of the future is none: the clock was wrong then, and would not be believed for as long.
    """
    known = {one: read_at.get(name(one), 0.0) for one in look_back}
    ready = [one.back_s for one, at in known.items() if at > now or at + one.every_s <= now]
    return max(ready, default=0.0)


def name(tier: Tier) -> str:
    """What the state calls a tier."""
    return f"{tier.back_s:.0f}"


def read_now(run: TableRun, look_back: tuple[Tier, ...], read_at: dict[str, float]) -> dict[str, float]:
    """Return when each tier was read last, once this run is at its end: it read the shorter ones as well."""
    now = {name(one): run.at for one in look_back if run.back_s is None or one.back_s <= run.back_s}
    return {**read_at, **now}


def below(run: TableRun, ids: Ids, *, ready_only: bool) -> TableRun:
    """Return the run with the parents it is read under."""
    parents, unready = (ids.ids, ids.unready) if ready_only else ((*ids.ids, *ids.unready), ())
    return replace(run, wanted=replace(run.wanted, parents=parents, unready=unready))
