"""The line of a listening source: each change is told once, with since when, why and the next try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from towpath.app.line import HOLDS_S, Line
from towpath.cli.output import line_words
from towpath.testing import FakeClock


class Following:
    """A line on a virtual clock, and what was told of it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.told: list[Mapping[str, Any]] = []
        self.line = Line("herd", self.clock, self.told.append)

    def fails(self, why: str = "the fence is down", times: int = 1) -> None:
        for _ in range(times):
            self.line.begin()
            self.line.failed(why, 5.0)


@pytest.fixture
def following() -> Following:
    return Following()


def test_a_line_hears_once_something_came(following: Following) -> None:
    following.line.begin()
    assert following.line.shown()["state"] == "starting"
    following.line.heard()
    assert following.line.shown()["state"] == "hearing"
    assert following.told == []


@pytest.mark.spec("P5")
async def test_a_line_that_is_down_says_since_when_why_and_when_it_is_tried_again(
    following: Following,
) -> None:
    since = following.line.shown()["since"]
    await following.clock.advance(60)
    with capture_logs() as logged:
        following.fails(times=3)
    shown = following.line.shown()
    assert (shown["state"], shown["why"]) == ("down", "the fence is down")
    assert since < shown["since"] < shown["next_try"]
    assert (
        line_words(shown) == f"down since {shown['since']}: the fence is down; next try {shown['next_try']}"
    )
    assert [line["log_level"] for line in logged] == ["warning"]  # once, however often it is tried
    assert [line["state"] for line in following.told] == ["down"]
    following.line.begin()
    assert line_words(following.line.shown()).endswith("the fence is down; trying now")


async def test_another_reason_is_told_and_the_silence_is_the_same(following: Following) -> None:
    following.fails()
    since = following.line.shown()["since"]
    await following.clock.advance(60)
    following.fails("the wolf is there")
    assert following.line.shown()["since"] == since
    assert [line["why"] for line in following.told] == ["the fence is down", "the wolf is there"]


async def test_a_line_is_back_once_it_has_held(following: Following) -> None:
    following.fails()
    following.line.begin()
    following.line.heard()
    assert following.line.shown()["state"] == "down"  # it may fail again at once
    with capture_logs() as logged:
        await following.clock.drive(following.line.hold())
    assert following.line.shown()["why"] == ""
    assert [line["event"] for line in logged] == ["a source hears again"]
    assert [line["state"] for line in following.told] == ["down", "hearing"]


async def test_a_line_over_which_nothing_came_is_not_back(following: Following) -> None:
    following.fails()
    following.line.begin()
    await following.clock.drive(following.line.hold())
    assert following.line.shown()["state"] == "down"
    await following.clock.advance(HOLDS_S)
    following.line.heard()
    assert following.line.shown()["state"] == "hearing"


def test_a_line_that_flaps_is_told_of_once(following: Following) -> None:
    following.fails()
    for _ in range(5):
        following.line.begin()
        following.line.heard()
        following.line.failed("the fence is down", 5.0)
    assert len(following.told) == 1
