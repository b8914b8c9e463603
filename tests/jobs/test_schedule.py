"""When jobs come: cron where clocks change, intervals, and mistakes in either."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.errors import TowpathError
from towpath.jobs import Schedule


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def times(schedule: Schedule, start: str) -> Iterator[str]:
    at = stamp(start)
    while True:
        at = schedule.after(at, 0.0)
        yield datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M")


def test_cron_in_utc() -> None:
    assert list(islice(times(Schedule("17 3 * * *"), "2026-01-01T03:17:00"), 2)) == [
        "01-02 03:17",
        "01-03 03:17",
    ]


def test_a_time_that_is_skipped_runs_right_after_the_gap() -> None:
    night = Schedule("30 2 * * *", timezone="Europe/Berlin")  # 02:00 became 03:00
    found = list(islice(times(night, "2026-03-28T00:00:00"), 3))
    assert found == [
        "03-28 01:30",
        "03-29 01:00",
        "03-30 00:30",
    ]


def test_a_time_that_comes_twice_runs_once() -> None:
    night = Schedule("30 2 * * *", timezone="Europe/Berlin")  # 03:00 became 02:00
    found = list(islice(times(night, "2026-10-24T00:00:00"), 3))
    assert found == [
        "10-24 00:30",
        "10-25 00:30",
        "10-26 01:30",
    ]
    # Asked in the middle of the hour that comes again: never a time that has passed.
    assert next(times(night, "2026-10-25T01:10:00")) == "10-26 01:30"


def test_every_quarter_of_an_hour_that_passes() -> None:
    quarters = Schedule("*/15 * * * *", timezone="Europe/Berlin")
    assert list(islice(times(quarters, "2026-10-25T00:45:00"), 5)) == [
        "10-25 01:00",
        "10-25 01:15",
        "10-25 01:30",
        "10-25 01:45",
        "10-25 02:00",
    ]


def test_every_counts_from_its_anchor() -> None:
    quarter = Schedule(every_s=900)
    assert quarter.after(1000.0, 1000.0) == 1900.0
    assert quarter.after(1899.9, 1000.0) == 1900.0
    assert quarter.after(9999.0, 1000.0) == 10_000.0
    assert quarter.after(50.0, 1000.0) == 100.0


@given(
    at=st.floats(0, 4e9),
    anchor=st.floats(0, 4e9),
    every_s=st.floats(1, 1e7),
)
def test_every_is_the_next_and_not_far(at: float, anchor: float, every_s: float) -> None:
    planned = Schedule(every_s=every_s).after(at, anchor)
    assert at < planned <= at + 2 * every_s


@given(
    at=st.floats(1.7e9, 1.9e9),
    cron=st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 3 * * 1", "59 23 31 12 *", "15 1-4 * 3,10 SUN"]),
    zone=st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "UTC"]),
)
def test_cron_is_always_later(at: float, cron: str, zone: str) -> None:
    assert Schedule(cron, timezone=zone).after(at, 0.0) > at


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cron": "every day"}, "not a cron expression"),
        ({"cron": "0 17 3 * * *"}, "not a cron expression"),
        ({"cron": "99 3 * * *"}, "Bad minute"),
        ({"cron": "0 0 31 2 *"}, "Bad day"),
        ({"cron": "0 0 * 2 MON#5", "timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
        ({"cron": "0 0 * * *", "timezone": "../etc"}, "no time zone"),
        ({"cron": "0 0 */30 2 MON#2"}, "never comes"),
        ({}, "either cron or every"),
        ({"cron": "0 0 * * *", "every_s": 5.0}, "either cron or every"),
        ({"every_s": 0.5}, "a second or more"),
        ({"every_s": float("inf")}, "a second or more"),
        ({"every_s": 60.0, "jitter_s": 60.0}, "shorter than every"),
        ({"every_s": 60.0, "jitter_s": -1.0}, "zero or more"),
    ],
)
def test_a_mistake_is_told_with_its_fix(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(TowpathError, match=said) as caught:
        Schedule(**wrong)  # type: ignore[arg-type]
    assert (caught.value.code, bool(caught.value.fix)) == ("E5204", True)


def test_as_people_write_it() -> None:
    assert Schedule("17 3 * * *", timezone="Europe/Berlin").text == "17 3 * * * Europe/Berlin"
    assert Schedule(every_s=900, jitter_s=30).text == "every 15m, jitter 30s"
    assert Schedule(every_s=86400).text == "every 1d"
    assert Schedule(every_s=1.5).text == "every 1.5s"
