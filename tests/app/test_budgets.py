"""Destinations of one vendor account share its budget (P10)."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.budget import Budget

from .support import ask, world

TWO = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
accounts:
  support: {{type: kustomer, api_key: {api_key}, base_url: "{kustomer}"}}
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
destinations:
  first: {{type: kustomer, account: support, rate: 300}}
  second: {{type: kustomer, account: support, rate: 120}}
connections:
  - {{from: web, to: [first, second]}}
"""


@pytest.mark.spec("P10")
async def test_the_lowest_rate_holds_for_all_that_share_an_account(tmp_path: Path) -> None:
    async with world(tmp_path, TWO) as (running, _, file):
        loops = [connection.loop for connection in running.app.connections.values()]
        budgets = {id(loop._scope.http.throttles[""]): loop._scope.http.throttles[""] for loop in loops}
        assert len(loops) == 2
        [budget] = budgets.values()
        assert isinstance(budget, Budget)
        assert budget.per_minute == 120
        for before, rate, lowest in ((120, 60, 60), (60, 900, 300)):
            file.write_text(file.read_text().replace(f"rate: {before}", f"rate: {rate}"))
            await ask(file, "POST", "/reload")
            shared = [c.loop._scope.http.throttles[""] for c in running.app.connections.values()]
            assert shared == [budget, budget]
            assert budget.per_minute == lowest
