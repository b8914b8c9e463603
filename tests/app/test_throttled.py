"""A long wait that a vendor asked for can be seen, and lifted by a person who knows better."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import ask, delivered, send, track, until, world


@pytest.mark.spec("D03", "K066")
@pytest.mark.parametrize(
    ("where", "body"),
    [("/destinations/kustomer/resume", {}), ("/deliveries/retry", {"connection": "kustomer"})],
)
async def test_a_throttled_connection_is_shown_and_lifted(
    tmp_path: Path, where: str, body: dict[str, str]
) -> None:
    async with world(tmp_path) as (running, box, file):
        headers = {"Retry-After": "3600"}
        box.kustomer.faults.add("status", status=429, path="/v1/tracking", count=1, headers=headers)
        await send(running.address, track("u1"), track("u2"))
        await until(lambda: running.app.connections["kustomer"].loop.throttled_s > 3000)
        shown = (await ask(file, "GET", "/status"))["connections"]["kustomer"]
        assert (shown["state"], shown["throttled_s"] > 3000) == ("throttled", True)
        checks = await ask(file, "POST", "/destinations/kustomer/test")
        assert all(check["ok"] for check in checks)
        await ask(file, "POST", where, body)
        assert (await delivered(file))["delivered"] == 2


@pytest.mark.spec("D10")
async def test_what_comes_during_an_erase_is_delivered(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, _, file):
        await send(running.address, track("u1", "Before"))
        await delivered(file)
        people, begun = running.app.people, running.app.store.last()
        people._erasing["u1"] = begun
        await send(running.address, track("u1", "Meanwhile"))
        balance = await delivered(file)
        assert (balance["delivered"], balance["skipped"]) == (2, {})
