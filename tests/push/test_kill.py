"""A campaign whose server is killed again and again: nobody left out, nobody acknowledged told twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.serve import serve
from towpath.state.campaigns import SendState

from ..app.conftest import key_file, own_log
from ..app.support import KILL, TERM, Hub, ask, until
from ..faults.support import size

__all__ = ["key_file", "own_log"]

YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [wk], trust: server}}
accounts:
  app: {{type: fcm, service_account: "${{file:key.json}}", fcm_url: "{fcm}", rate: 600000}}
push:
  account: app
  campaigns:
    hello: {{title: Hello, body: there}}
"""
KILLS = size(5, 20)
DEVICES = size(600, 2400)
PATIENCE_S = 120.0


def acknowledged(directory: Path) -> set[str]:
    """The devices whose answer is on disk as accepted, read after the process died."""
    with contextlib.closing(sqlite3.connect(directory / "data" / "state.db")) as database:
        rows = database.execute("SELECT device FROM push_sends WHERE state = ?", (SendState.ACCEPTED,))
        return {row[0] for row in rows}


def has_told(fcm: FcmSimulator, number: int) -> bool:
    """Whether so many messages were accepted."""
    return len(fcm.state.accepted) >= number


def told(fcm: FcmSimulator) -> Counter[str]:
    """How often each device was told."""
    return Counter(message.address.removeprefix("ok-") for message in fcm.state.accepted)


async def start(file: Path) -> Hub:
    return await asyncio.to_thread(Hub, file)


async def state_of(file: Path, campaign: int) -> dict[str, Any]:
    found: dict[str, Any] = await ask(file, "GET", f"/push/campaigns/{campaign}")
    return found


@pytest.mark.spec("P055")
async def test_a_campaign_outlives_kills(tmp_path: Path) -> None:
    fcm, chance = FcmSimulator(latency_s=0.02), random.Random(5)
    async with serve(fcm) as url:
        (tmp_path / "key.json").write_text(fcm.account(url))
        file = tmp_path / "towpath.yaml"
        file.write_text(YAML.format(fcm=url))
        hub = await start(file)
        try:
            devices = [
                {"deviceId": f"d{number}", "fcmToken": f"ok-d{number}", "deviceType": "iOS"}
                for number in range(DEVICES)
            ]
            taken = await ask(file, "POST", "/push/import", {"devices": devices})
            assert taken["taken"] == DEVICES
            campaign = (await ask(file, "POST", "/push/send", {"code": "hello"}))["campaign"]
            before: list[tuple[set[str], Counter[str]]] = []
            for _ in range(KILLS):
                reached = len(fcm.state.accepted) + chance.randrange(1, DEVICES // KILLS)
                await until(partial(has_told, fcm, reached), PATIENCE_S)
                hub.end(KILL)
                await asyncio.sleep(0)
                before.append((acknowledged(tmp_path), told(fcm)))
                hub = await start(file)

            async def done() -> bool:
                return bool((await state_of(file, campaign))["state"] == "done")

            await until(done, PATIENCE_S)
            row = await state_of(file, campaign)
            hub.end(TERM)
        finally:
            hub.close()
    times = told(fcm)
    lost = {f"d{number}" for number in range(DEVICES)} - times.keys()
    assert lost == set()
    for known, seen in before:
        again = {device for device in known if times[device] > seen[device]}
        assert again == set(), "told again although the answer was on disk"
    doubled = sum(times.values()) - DEVICES
    print(json.dumps({"kills": KILLS, "devices": DEVICES, "lost": len(lost), "repeated": doubled}))
    assert doubled <= row["repeated"]
    assert row["accepted"] == DEVICES
