"""What a vendor's rate-limit headers say about the next attempt."""

from __future__ import annotations

import pytest

from towpath.http import until_reset

NOW = 1_000_000.0


@pytest.mark.spec("K066", "D03")
@pytest.mark.parametrize(
    ("value", "expected"),
    [("1000030", 30.0), ("999000", 0.0), ("9999999999", 86400.0), ("", None), ("soon", None), ("-5", None)],
)
def test_a_reset_is_read_as_seconds_from_now(value: str, expected: float | None) -> None:
    assert until_reset({"x-ratelimit-reset": value}, NOW) == expected


def test_without_a_reset_nothing_is_known() -> None:
    assert until_reset({}, NOW) is None
