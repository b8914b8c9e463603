"""Rows that are gone at Customer.io: told by a complete read, and believed unless they are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..vendors.customerio import Id
from ..warehouse import Gone, Warehouse
from .state import encoded
from .table import Replicated

UNDER = "/under"


class Departing:
    """The end of a complete read, in which rows that it did not see are marked or removed.

    What was read under a parent goes with it: that a parent is gone is judged among parents, as one large
    segment may hold most of all memberships.
    """

    def __init__(self, warehouse: Warehouse, replicated: Replicated, workspace: str, run: str) -> None:
        self._warehouse = warehouse
        self._table = replicated.name
        self._column = replicated.parent_column
        self._workspace = workspace
        self._run = run

    async def depart(
        self,
        *,
        parents: Sequence[Id],
        before: Sequence[Id],
        unread: Sequence[Id],
        most: float,
        state: Mapping[str, str | None],
        under: str,
    ) -> tuple[Gone, str]:
        """Mark rows as gone; returns how many, and why none was where they are too many.

        `before` are the parents of the last read, which the state keeps under the key `under`. Rows below
        `unread` parents are left alone.
        """
        present = set(parents)
        lost = [parent for parent in before if parent not in present]
        believed = len(lost) <= most * len(before)
        now = {**state, under: encoded(tuple(parents))} if self._column and believed and not lost else state
        gone = await self._finish(self._run, (*unread, *lost), most, now)
        if gone.held:
            await self._warehouse.keep(state)
            return gone, _held(gone.gone, gone.rows, "rows", most)
        if not believed:
            return gone, _held(len(lost), len(before), "parents", most)
        if lost:
            below = await self._below_lost(parents, {under: encoded(tuple(parents))})
            gone = Gone(gone.gone + below.gone, gone.rows)
        return gone, ""

    async def _below_lost(self, parents: Sequence[Id], state: Mapping[str, str | None]) -> Gone:
        """Mark what is below no parent there is: a second finish, of a run that saw nothing."""
        run = f"{self._run}{UNDER}"
        await self._warehouse.begin(self._table, self._workspace, run)
        return await self._finish(run, parents, 1.0, state)

    async def _finish(
        self, run: str, unread: Sequence[Id], most: float, state: Mapping[str, str | None]
    ) -> Gone:
        alone = [{self._column: parent} for parent in unread]
        finish = self._warehouse.finish
        return await finish(self._table, self._workspace, run, unread=alone, most=most, state=state)


def _held(gone: int, there: int, what: str, most: float) -> str:
    return (
        f"{gone} of {there} {what} are gone at Customer.io, more than {most:.0%}; none was marked. Approve "
        "it if that is so; the next run reads again"
    )
