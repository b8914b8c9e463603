"""One batch for Customer.io: everybody's items in one request, and each person's calls in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from towpath.destination import Ended
from towpath.http import Stopping, Undelivered
from towpath.outcome import Delivered, Outcome, Rejected, Skipped

from ._customerio_items import Post

AT_ONCE = 8
"""Calls at a time of one batch for what cannot travel in it."""
_WHOLE = frozenset({400, 413, 422})
"""Statuses of a batch that was refused as a whole, with nothing accepted."""


class Carrier(Protocol):
    """What sends posts."""

    def batches(self, post: Post) -> bool:
        """Whether it can be part of a batch."""
        ...

    async def alone(self, post: Post) -> Delivered:
        """Send one. Raises `Undelivered`."""
        ...

    async def together(self, posts: Sequence[Post]) -> Sequence[Ended]:
        """Send several in one request; what became of each. Raises `Undelivered` for all of them."""
        ...

    def own(self, error: Undelivered, post: Post) -> Undelivered:
        """Return a failure of a batch with no more than one item's part of it (D10)."""
        ...


class Batch:
    """The posts of one `deliver_batch`, in rounds.

    A round sends one request with what comes next of everybody that can be part of it, then what cannot,
    one call after the other for each person. Behind a post that is to be tried again nothing of that person
    is sent: it stays None. `people` are the names of each post's person.
    """

    def __init__(self, posts: Sequence[Post], people: Sequence[Sequence[str]], carrier: Carrier) -> None:
        self._posts = posts
        self._carrier = carrier
        self._ended: list[Ended] = [None] * len(posts)
        self._queues = [deque(indexes) for indexes in persons(people)]
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._begun = False

    async def run(self) -> list[Ended]:
        """Send all there is. Raises `Undelivered` where the first request of all fails."""
        while self._queues:
            await self._together()
            async with asyncio.TaskGroup() as group:
                for queue in self._queues:
                    group.create_task(self._alone(queue))
            self._queues = [queue for queue in self._queues if queue]
        return self._ended

    async def _together(self) -> None:
        taken = {index: queue for queue in self._queues for index in self._leading(queue)}
        indexes = sorted(taken)
        if not indexes:
            return
        verdicts = await self._sent(indexes)
        self._begun = True
        for index, ended in zip(indexes, verdicts, strict=True):
            self._ended[index] = ended
            if not _is_final(ended):
                taken[index].clear()

    def _leading(self, queue: deque[int]) -> Iterator[int]:
        """Take what comes next of a person, up to what cannot be part of the same request."""
        first = True
        while queue and self._carrier.batches(post := self._posts[queue[0]]):
            if post.apart and not first:
                return
            yield queue.popleft()
            if post.apart:
                return
            first = False

    async def _sent(self, indexes: Sequence[int]) -> Sequence[Ended]:
        posts = [self._posts[index] for index in indexes]
        if len(posts) == 1:
            return [await self._ending(posts[0])]
        try:
            return await self._carrier.together(posts)
        except Stopping:
            return [None] * len(posts)
        except Undelivered as error:
            if not self._begun:
                raise  # nothing is through: it concerns them all, and the loop halves what was refused
            # Later it must not be halved with what is through already; it comes again as a batch of its own.
            whole = isinstance(error.outcome, Rejected) and error.outcome.code in _WHOLE
            return [None if whole else self._carrier.own(error, post) for post in posts]
        except Exception as error:
            return [error] * len(posts)

    async def _alone(self, queue: deque[int]) -> None:
        while queue and not self._carrier.batches(self._posts[queue[0]]):
            index = queue.popleft()
            async with self._slots:
                self._begun = True
                ended = await self._ending(self._posts[index])
            self._ended[index] = ended
            if not _is_final(ended):
                queue.clear()

    async def _ending(self, post: Post) -> Ended:
        try:
            return await self._carrier.alone(post)
        except Stopping:
            return None
        except Exception as error:
            return error


def persons(people: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the places of each person, in order: whoever shares a name is one person here."""
    known: dict[str, list[int]] = {}
    for index, names in enumerate(people):
        mine = _joined(known, names)
        mine.append(index)
        for name in names:
            known[name] = mine
        if not names:
            known[f"\0{index}"] = mine
    return sorted({id(mine): sorted(mine) for mine in known.values()}.values())


def _joined(known: dict[str, list[int]], names: Sequence[str]) -> list[int]:
    """Return the list of those that have one of these names; several become one."""
    found = list({id(known[name]): known[name] for name in names if name in known}.values())
    if len(found) < 2:
        return found[0] if found else []
    joined = found[0]
    for other in found[1:]:
        joined.extend(other)
    for name, mine in known.items():
        if any(mine is other for other in found[1:]):
            known[name] = joined
    return joined


def _is_final(ended: Ended) -> bool:
    """Whether what follows of the same person may be sent."""
    outcome: Outcome | Exception | None = ended.outcome if isinstance(ended, Undelivered) else ended
    return isinstance(outcome, Delivered | Rejected | Skipped)
