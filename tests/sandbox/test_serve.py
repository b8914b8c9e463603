"""Serving: free and fixed ports, a quick end, several loops, and an import that stays light."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import aiohttp
import pytest
import uvloop

from towpath.sandbox.kustomer import DEFAULT_KEY, KustomerSimulator
from towpath.sandbox.serve import sandbox, serve

from .conftest import Client, until

pytestmark = pytest.mark.spec("D12")


async def test_the_sandbox_serves_a_kustomer_and_a_webhook_receiver(session: aiohttp.ClientSession) -> None:
    async with sandbox(requests_per_minute=7) as box:
        client = Client(session, box.kustomer_url)
        got = await client("POST", "/v1/customers", {"externalId": "u-1"}, key=DEFAULT_KEY)
        hook = await Client(session, box.webhook_url)("POST", "/hook", {"a": 1})
        state = await client("GET", "/_sandbox/state")
    assert got.headers["X-Ratelimit-Limit"] == "7"
    assert (got.status, hook.status, state.json["customers"]) == (201, 200, 1)
    assert list(box.kustomer.state.customers) == [got.id]
    assert box.webhook.received[0].json() == {"a": 1}


async def test_a_port_is_free_after_the_end_and_taken_before(session: aiohttp.ClientSession) -> None:
    async with serve(KustomerSimulator()) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            async with serve(KustomerSimulator(), port=port):
                pass
        assert (await Client(session, url)("GET", "/v1/customers")).status == 401
    with pytest.raises(aiohttp.ClientConnectionError):
        await Client(session, url)("GET", "/v1/customers")
    async with serve(KustomerSimulator(), port=port) as again:
        assert again == url


async def test_a_request_in_flight_does_not_hold_up_the_end(session: aiohttp.ClientSession) -> None:
    simulator = KustomerSimulator()
    simulator.faults.add("delay", delay_s=3600.0)
    async with serve(simulator) as url:
        hanging = asyncio.ensure_future(Client(session, url)("GET", "/v1/customers"))
        await until(lambda: simulator.faults.met)
    with pytest.raises(aiohttp.ClientError):
        await hanging


async def test_signal_handlers_of_the_process_stay(session: aiohttp.ClientSession) -> None:
    before = signal.getsignal(signal.SIGINT)
    async with serve(KustomerSimulator()):
        assert signal.getsignal(signal.SIGINT) is before


def test_a_lost_answer_is_a_reset_under_uvloop_too() -> None:
    async def lose() -> int:
        simulator = KustomerSimulator(api_keys={"k": ["org"]})
        simulator.faults.add("drop_answer")
        async with serve(simulator) as url, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientOSError):
                await Client(session, url)("POST", "/v1/customers", {}, key="k")
        return len(simulator.state.customers)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(lose()) == 1


def test_importing_it_adds_neither_the_cli_nor_the_stores_nor_a_client() -> None:
    code = "import sys, towpath; a = {*sys.modules}; import towpath.sandbox.serve; print(*{*sys.modules} - a)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "uvicorn" in loaded
    assert not loaded & {"pydantic", "apsw", "typer", "rich", "pyreqwest", "aiohttp", "starlette"}
