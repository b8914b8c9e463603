"""Everything ends as dead letters, and is replayed at once: order, the rate limit, and a second replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.sandbox.kustomer import DEFAULT_KEY, KustomerSimulator
from towpath.sandbox.serve import serve

from ..app.support import KEY, ask
from .support import (
    accept,
    balances,
    inversions,
    numbered,
    repeats,
    scenario,
    settled,
    size,
    started,
)

PERSONS = [f"p{number}" for number in range(size(50, 500))]
STEPS = size(20, 200)
LETTERS = len(PERSONS) * STEPS
RATE = 30_000
TRACKING = "/v1/tracking"
YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
destinations:
  kustomer: {{type: kustomer, api_key: {api_key}, base_url: "{url}", rate: {rate}}}
connections:
  - {{from: web, to: [kustomer], start: earliest}}
"""


def arrived(kustomer: KustomerSimulator) -> dict[str, list[int]]:
    """Steps of each person in the order Kustomer took them."""
    return {
        customer: [event.meta["stepNum"] for event in events]
        for customer, events in kustomer.state.events.items()
    }


def taken_per_minute(kustomer: KustomerSimulator) -> float:
    """How fast tracking calls were taken from the first to the last."""
    times = [seen.at for seen in kustomer.requests if seen.path.startswith(TRACKING) and seen.status < 300]
    return (len(times) - 1) / (times[-1] - times[0]) * 60


@pytest.mark.spec("D03", "D04", "D06", "P2", "P4", "P5")
async def test_a_replay_keeps_order_and_rate_and_happens_once(tmp_path: Path) -> None:
    target = f"0 inversions, 0 repeats, ≤ {RATE:,} requests a minute, no 429; a second finds nothing"
    with scenario("replay of dead letters", target, __file__) as row:
        kustomer = KustomerSimulator(requests_per_minute=RATE, kept_requests=10 * LETTERS)
        async with serve(kustomer) as url:
            file = tmp_path / "towpath.yaml"
            file.write_text(YAML.format(key=KEY, api_key=DEFAULT_KEY, url=url, rate=RATE))
            async with started(file) as running:
                await accept(running.address, [{"type": "identify", "userId": person} for person in PERSONS])
                await settled(file, ["kustomer"])
                kustomer.faults.add("status", status=400, path=TRACKING)
                await accept(running.address, numbered(PERSONS, range(STEPS)))
                await settled(file, ["kustomer"])
                before = (await balances(file))["kustomer"]
                kustomer.faults.clear()
                kustomer.requests.clear()
                replayed = await ask(file, "POST", "/dlq/replay", {"connection": "kustomer"})
                await settled(file, ["kustomer"])
                again = await ask(file, "POST", "/dlq/replay", {"connection": "kustomer"})
                balance = (await balances(file))["kustomer"]
        found, refused = arrived(kustomer), sum(seen.status == 429 for seen in kustomer.requests)
        rate = taken_per_minute(kustomer)
        row.injected = f"{before['dead']:,} dead letters of {len(PERSONS)} persons, replayed by filter, twice"
        row.measured = (
            f"{replayed.get('kustomer', 0):,} replayed, {inversions(found)} inversions, "
            f"{repeats(found)} repeats, {rate:,.0f} requests a minute of {RATE:,} allowed, {refused} 429s; "
            f"second replay: {again or 'nothing'}"
        )
        assert before["dead"] == replayed["kustomer"] == LETTERS
        assert sum(map(len, found.values())) == LETTERS
        assert (inversions(found), repeats(found), refused, again) == (0, 0, 0, {})
        assert (balance["dead"], balance["difference"]) == (0, 0)
        assert balance["delivered"] == LETTERS + len(PERSONS)
        assert rate <= RATE
