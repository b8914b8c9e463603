"""When a push may reach a device."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.push.hours import Quiet, end_of_quiet, local_moment, zone

VIENNA = ZoneInfo("Europe/Vienna")
NIGHT = Quiet(time(21), time(8))
ZONES = [
    "UTC",
    "Europe/Vienna",
    "America/New_York",
    "Asia/Kathmandu",
    "Pacific/Kiritimati",
    "Australia/Lord_Howe",
]


def at(text: str, place: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(place)).timestamp()


@pytest.mark.spec("P056")
@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-01-10T20:59:59", None),
        ("2026-01-10T21:00:00", "2026-01-11T08:00:00"),
        ("2026-01-11T07:59:59", "2026-01-11T08:00:00"),
        ("2026-01-11T08:00:00", None),
        ("2026-03-28T23:00:00", "2026-03-29T08:00:00"),  # the clocks go forward at 2
        ("2026-10-24T23:00:00", "2026-10-25T08:00:00"),  # and back at 3
    ],
)
def test_the_end_of_a_quiet_night(now: str, until: str | None) -> None:
    found = end_of_quiet(at(now, "Europe/Vienna"), VIENNA, NIGHT)
    assert found == (None if until is None else at(until, "Europe/Vienna"))


@pytest.mark.spec("P056")
@given(
    st.floats(1_700_000_000, 1_900_000_000),
    st.sampled_from(ZONES),
    st.times(timezones=st.none()),
    st.times(timezones=st.none()),
)
def test_after_quiet_hours_it_is_not_quiet(now: float, place: str, begins: time, ends: time) -> None:
    quiet = Quiet(begins.replace(microsecond=0, fold=0), ends.replace(microsecond=0, fold=0))
    end = end_of_quiet(now, zone(place), quiet)
    if end is not None and quiet.begins != quiet.ends:
        assert now <= end <= now + timedelta(hours=26).total_seconds()
        local = datetime.fromtimestamp(end, zone(place))
        # Where the clocks change in the night, its end may not exist, or come twice.
        around = {(local + timedelta(minutes=step)).time() for step in (0, 61)}
        assert not all(quiet.holds(moment) for moment in around) or quiet.holds(quiet.ends)


@pytest.mark.spec("P056")
def test_none_are_none() -> None:
    assert end_of_quiet(at("2026-01-10T23:00:00"), UTC, None) is None


@pytest.mark.spec("P056")
@pytest.mark.parametrize(
    ("told", "otherwise", "name"),
    [
        ("Asia/Tokyo", "UTC", "Asia/Tokyo"),
        (None, "Europe/Vienna", "Europe/Vienna"),
        ("Mars/Olympus", "Europe/Vienna", "Europe/Vienna"),
        ("../../etc/passwd", "UTC", "UTC"),
        ("", "", "UTC"),
        ("\0", "UTC", "UTC"),
        ("America", "UTC", "UTC"),
    ],
)
def test_a_zone_is_the_devices_or_the_configurations(told: str | None, otherwise: str, name: str) -> None:
    assert str(zone(told, otherwise)) == name


@pytest.mark.spec("P056")
@pytest.mark.parametrize(
    ("wall", "place", "moment"),
    [
        ("2026-06-01T09:00", "Asia/Tokyo", "2026-06-01T00:00"),
        ("2026-03-29T02:30", "Europe/Vienna", "2026-03-29T01:30"),  # is left out: 03:30 summer time
        ("2026-10-25T02:30", "Europe/Vienna", "2026-10-25T00:30"),  # is there twice: the first
    ],
)
def test_a_wall_clocks_time_is_one_moment(wall: str, place: str, moment: str) -> None:
    assert local_moment(datetime.fromisoformat(wall), zone(place)) == at(moment)
