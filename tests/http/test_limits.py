"""What a vendor's rate-limit headers say about the next attempt."""

from __future__ import annotations

import pytest

from towpath.budget import Budget
from towpath.http import Http, Reply, Undelivered, until_reset
from towpath.outcome import Retry
from towpath.testing import FakeClock, FakeTransport

NOW = 1_000_000.0


@pytest.mark.spec("K066", "D03")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1000030", 30.0),
        ("999000", None),
        ("1000000", None),
        ("9999999999", None),
        ("999999999999999", None),
        ("9" * 16, None),
        (" 1000030 ", 30.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("²", None),
    ],
)
def test_a_reset_is_read_as_seconds_from_now(value: str, expected: float | None) -> None:
    assert until_reset({"x-ratelimit-reset": value}, NOW) == expected


def test_without_a_reset_nothing_is_known() -> None:
    assert until_reset({}, NOW) is None


@pytest.mark.spec("K066", "D03")
@pytest.mark.parametrize(
    ("reset_s", "wish", "blocked_s"),
    [(40, 40.0, 40.0), (10**13, None, 2.0), (-40, None, 2.0), (0, None, 2.0)],
)
async def test_the_wish_and_the_budget_read_a_reset_alike(
    reset_s: int, wish: float | None, blocked_s: float
) -> None:
    clock = FakeClock(NOW)
    budget = Budget(clock, 600)
    reply = Reply(429, {"x-ratelimit-reset": str(int(NOW) + reset_s)})
    http = Http(FakeTransport(("*", "*", reply)), clock, throttles={"": budget})
    with pytest.raises(Undelivered) as raised:
        await http.request("POST", "https://api.example.com/")
    assert raised.value.outcome == Retry("429", wish, throttled=True, code=429)
    assert budget.blocked_s == pytest.approx(blocked_s)
