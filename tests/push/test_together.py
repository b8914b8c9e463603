"""Work done together: what is asked meanwhile goes in one lot, and one at fault fails nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from towpath.push.together import Together


class Work:
    """Doubles numbers, in a thread that a test may hold; negative ones are at fault."""

    def __init__(self, most: int = 100) -> None:
        self.lots: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self.together: Together[int, int] = Together(self._double, most)

    def _double(self, numbers: Sequence[int]) -> list[int]:
        self.lots.append(list(numbers))
        self.began.set()
        assert self.go.wait(10)
        if any(number < 0 for number in numbers):
            raise ValueError(f"there is a negative one in {list(numbers)}")
        return [2 * number for number in numbers]

    async def hold(self, number: int) -> asyncio.Future[int]:
        """Begin a lot that does not end."""
        self.go.clear()
        asked = asyncio.ensure_future(self.together.ask(number))
        await asyncio.to_thread(self.began.wait, 10)
        return asked


async def test_what_is_asked_meanwhile_is_done_together() -> None:
    work = Work(most=3)
    first = await work.hold(1)
    rest = [asyncio.ensure_future(work.together.ask(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8, 10]
    assert work.lots == [[1], [2, 3, 4], [5]]


async def test_answers_are_in_order_and_none_asked_none_done() -> None:
    work = Work()
    assert await work.together.ask_all([3, 1, 2]) == [6, 2, 4]
    assert await work.together.ask_all([]) == []
    assert work.lots == [[3, 1, 2]]


async def test_one_at_fault_fails_nobody_else() -> None:
    work = Work()
    first = await work.hold(1)
    good, bad = (asyncio.ensure_future(work.together.ask(number)) for number in (2, -2))
    await asyncio.sleep(0)
    work.go.set()
    assert [await first, await good] == [2, 4]
    with pytest.raises(ValueError, match=r"\[-2\]"):
        await bad
    assert work.lots == [[1], [2, -2], [2], [-2]]


async def test_who_gives_up_does_not_stop_the_others() -> None:
    work = Work()
    first = await work.hold(1)
    gone, stays = (asyncio.ensure_future(work.together.ask(number)) for number in (2, 3))
    await asyncio.sleep(0)
    gone.cancel()
    first.cancel()
    work.go.set()
    assert await stays == 6
    assert await work.together.ask(4) == 8
