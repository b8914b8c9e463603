"""Other programs that read a Customer.io workspace, against the simulator: a check of both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.customerio_seed import Sizes, populate
from towpath.sandbox.customerio_state import Switches
from towpath.sandbox.serve import serve

from . import tap
from .npm import Unavailable

pytestmark = pytest.mark.spec("D12")


class Workspace:
    """A served workspace, every list of which is longer than a page."""

    def __init__(self, simulator: CustomerIoSimulator, url: str, sizes: Sizes) -> None:
        self.simulator = simulator
        self.url = url
        self.sizes = sizes


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    simulator = CustomerIoSimulator(app_per_s=10_000)
    sizes = populate(simulator, message_days=100, messages=2300)
    async with serve(simulator) as url:
        yield Workspace(simulator, url, sizes)


# -- singer-io/tap-customerio ------------------------------------------------------------------------------


@pytest.fixture
async def reader(workspace: Workspace, tmp_path: Path) -> tap.Tap:
    try:
        python = await asyncio.to_thread(tap.installed)
    except Unavailable as error:
        pytest.skip(f"THE SINGER TAP WAS NOT TESTED: {error}")
    return tap.Tap(python, tmp_path, workspace.url, DEFAULT.app_api_key)


async def test_the_tap_reads_what_lies_on_one_page(workspace: Workspace, reader: tap.Tap) -> None:
    catalog = await asyncio.to_thread(reader.discover)
    assert len(catalog["streams"]) == 18
    for stream, count in (
        ("campaigns", workspace.sizes.campaigns),
        ("segments", workspace.sizes.segments - 1),
        ("transactional_messages", workspace.sizes.transactional),
        ("newsletters", workspace.sizes.newsletters),
        ("activities", workspace.sizes.activities),
    ):
        found = await asyncio.to_thread(reader.sync, catalog, stream)
        assert (found.code, len(found.records)) == (0, count), f"{stream}: {found.errors[-500:]}"


async def test_the_tap_ends_at_the_second_page_of_messages(reader: tap.Tap) -> None:
    catalog = await asyncio.to_thread(reader.discover)
    for stream, count in (("messages", 1000), ("sender_identities", 100)):
        found = await asyncio.to_thread(reader.sync, catalog, stream)
        assert (found.code, len(found.records)) == (1, count)
        assert "NotImplementedError" in found.errors


async def test_the_tap_loses_people_and_suppressions(workspace: Workspace, reader: tap.Tap) -> None:
    catalog = await asyncio.to_thread(reader.discover)
    people = await asyncio.to_thread(reader.sync, catalog, "customers")
    assert people.code == 0
    assert 0 < len(people.records) < sum("id" in each.attributes for each in _people(workspace))
    suppressed = await asyncio.to_thread(reader.sync, catalog, "eps_suppression")
    assert (suppressed.code, len(suppressed.records)) == (0, 102)
    assert sum(map(len, workspace.simulator.state.suppressions.values())) == 1105


async def test_the_tap_leaves_out_what_the_key_may_not_read(workspace: Workspace, reader: tap.Tap) -> None:
    workspace.simulator.state.forbidden |= {"/v1/messages", "/v1/customers"}
    catalog = await asyncio.to_thread(reader.discover)
    names = {each["tap_stream_id"] for each in catalog["streams"]}
    assert len(names) == 16
    assert not names & {"messages", "customers"}


def _people(workspace: Workspace) -> list[Any]:
    return list(workspace.simulator.state.people.values())


# -- dlt's rest_api ----------------------------------------------------------------------------------------

_DLT = """
import json, os, sys
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
import dlt
from dlt.sources.rest_api import rest_api_source

def resource(name, **params):
    page = {"type": "cursor", "cursor_path": "next", "cursor_param": "start"}
    endpoint = {"path": name, "params": params, "data_selector": name, "paginator": page}
    return {"name": name, "endpoint": endpoint}

url, key = sys.argv[1:]
source = rest_api_source({
    "client": {"base_url": f"{url}/v1/", "auth": {"type": "bearer", "token": key}},
    "resources": [
        resource("campaigns"), resource("newsletters", limit=100), resource("sender_identities", limit=100),
        resource("activities", limit=100), resource("messages", limit=1000),
    ],
})
counts = {}
for name, found in source.resources.items():
    try:
        counts[name] = len(list(found))
    except Exception as error:
        counts[name] = str(error)
print(json.dumps(counts))
"""


@pytest.mark.parametrize("empty_pages", [False, True])
async def test_dlt_reads_pages_by_their_tokens(tmp_path: Path, empty_pages: bool) -> None:
    simulator = CustomerIoSimulator(app_per_s=10_000, switches=Switches(empty_pages=empty_pages))
    sizes = populate(simulator, message_days=400, messages=2300)
    async with serve(simulator) as url:
        found = await asyncio.to_thread(_read_by_dlt, url, tmp_path)
    assert found["campaigns"] == sizes.campaigns
    assert found["newsletters"] == sizes.newsletters
    assert found["sender_identities"] == sizes.senders, "and no hidden one: it does not know of them"
    assert found["activities"] == sizes.activities
    assert 0 < found["messages"] < sizes.messages, "half a year, without a word"


def _read_by_dlt(url: str, place: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _DLT, url, DEFAULT.app_api_key]
    given = {**os.environ, "HOME": str(place)}
    ran = subprocess.run(
        command, cwd=place, env=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    counts: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return counts
