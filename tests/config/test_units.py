"""Durations, sizes and rates."""

from __future__ import annotations

from datetime import timedelta

import pytest

from towpath import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), ("250ms", 0.25), ("1.5 h", 5400), (0, 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "5", 5, "5 weeks", "-5s", "5s5s", "s", "1e3s", None, True, "9" * 20 + "d", "٣s٣"]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        units.duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64KB", 65536), ("4MB", 4194304), ("1gb", 1 << 30), (512, 512), ("512B", 512)]
)
def test_sizes(text: object, size: int) -> None:
    assert units.size(text) == size


@pytest.mark.parametrize("text", ["", "KB", "-1KB", "1TB", True, None, "1,5KB"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        units.size(text)


@pytest.mark.parametrize(("text", "per_s"), [("500/s", 500), ("300/min", 5), ("300/m", 5), ("7200 / h", 2)])
def test_rates(text: str, per_s: float) -> None:
    assert units.rate(text) == per_s


@pytest.mark.parametrize("text", ["500", "0/s", "5/d", 500, "/s"])
def test_what_is_no_rate(text: object) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        units.rate(text)


@pytest.mark.parametrize("text", ["30s", "5m", "2h", "1d", "0.25s"])
def test_a_duration_is_written_as_it_was_read(text: str) -> None:
    assert units.format_duration(units.duration(text)) == text
    assert units.format_duration(timedelta(0)) == "0s"


@pytest.mark.parametrize("text", ["512B", "64KB", "4MB", "1GB"])
def test_a_size_is_written_as_it_was_read(text: str) -> None:
    assert units.format_size(units.size(text)) == text
