"""`towpath dev`: the server with simulated vendors and sample traffic."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..config import Config, load
from ..log.lock import DirectoryLock
from ..sandbox import phones
from ..sandbox.customerio import DEFAULT
from ..sandbox.customerio_seed import populate
from ..sandbox.firebase import PROJECT
from ..sandbox.kustomer import DEFAULT_KEY
from ..sandbox.scenarios import mixed
from ..sandbox.serve import Sandbox, sandbox
from ..serve import Serving, serving
from .output import say, show_json
from .posting import post_calls
from .traffic import outcome_line

WRITE_KEY = "wk_demo"
PHONE_KEY = "wk_phones"
CAMPAIGN = "hello"
KEY_FILE = "fcm.json"
WEBHOOK_SECRET = "whsec_dG93cGF0aC1zYW5kYm94LXNlY3JldC0wMQ=="  # noqa: S105 - the sandbox's own, guards nothing
PUSH_TOKEN = "sandbox-push-token"  # noqa: S105 - like it
RATE = 60_000
SEEDED = {
    "people": 300,
    "messages": 3000,
    "message_days": 60,
    "newsletters": 4,
    "senders": 3,
    "suppressions": 5,
}
"""What the simulated Customer.io holds before anything is sent to it."""
SINCE = timedelta(days=SEEDED["message_days"])
SINCE_S = 60.0
"""How long ago the phones of the story registered."""

CONFIG = """\
# Written by `towpath dev`; the vendors in it are simulated and live as long as that command.
version: 1
server: {{listen: "{listen}"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
  phones: {{type: segment, write_keys: [{phone_key}]}}
  app: {{type: firebase, project: {project}, push_token: {push_token}, collections: [users]}}
accounts:
  push: {{type: fcm, service_account: "${{file:{key_file}}}", fcm_url: "{fcm}"}}
  cio: {{type: customerio, app_api_key: {app_key}, base_url: "{customerio}"}}
  warehouse: {{type: warehouse, duckdb: ./warehouse.duckdb}}
destinations:
  kustomer: {{type: kustomer, api_key: {kustomer_key}, base_url: "{kustomer}", rate: {rate}}}
  hook: {{type: webhook, url: "{webhook}/hook", secret: "{secret}", allow_private: true}}
  customerio: {{type: customerio, site_id: {site_id}, api_key: {track_key}, base_url: "{customerio}"}}
connections:
  - {{from: web, to: [kustomer, hook], start: earliest}}
  - {{from: [web, app, phones, push], to: [customerio], start: earliest}}
replications:
  copy: {{from: cio, to: warehouse, start_date: "{start_date}"}}
push:
  account: push
  device_ids: "(phone|tablet|browser|old)-.+"
  campaigns:
    {campaign}: {{title: "Hello {{traits.first_name|there}}", body: "Your tea is on its way.", link: "shop://orders"}}
"""


def write_config(directory: Path, box: Sandbox, listen: str) -> Path:
    """Write the sandbox's configuration file, so that every other command works on it too."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "towpath.yaml"
    (directory / KEY_FILE).write_text(box.fcm.account(box.fcm_url))
    file.write_text(
        CONFIG.format(
            listen=listen,
            key=WRITE_KEY,
            kustomer_key=DEFAULT_KEY,
            rate=RATE,
            kustomer=box.kustomer_url,
            webhook=box.webhook_url,
            secret=WEBHOOK_SECRET,
            project=PROJECT,
            push_token=PUSH_TOKEN,
            customerio=box.customerio_url,
            site_id=DEFAULT.site_id,
            track_key=DEFAULT.api_key,
            app_key=DEFAULT.app_api_key,
            start_date=f"{datetime.now(UTC) - SINCE:%Y-%m-%d}",
            phone_key=PHONE_KEY,
            key_file=KEY_FILE,
            fcm=box.fcm_url,
            campaign=CAMPAIGN,
        )
    )
    return file


@contextlib.asynccontextmanager
async def running(directory: Path, listen: str) -> AsyncIterator[tuple[Serving, Sandbox, Config]]:
    """Run the server and the simulated vendors while the block lasts."""
    (directory / "data").mkdir(parents=True, exist_ok=True)
    # A second one must not write the file of the first one over.
    DirectoryLock(directory / "data").release()
    async with sandbox(webhook_secrets=(WEBHOOK_SECRET,), requests_per_minute=RATE) as box:
        populate(box.customerio, **SEEDED)
        config = load(write_config(directory, box, listen))
        async with serving(config) as server:
            yield server, box, config


# -- dev -----------------------------------------------------------------------------------------------


async def run_dev(directory: Path, listen: str, *, as_json: bool) -> None:
    """Run until interrupted, with a sample call every second; `as_json` prints outcomes as JSON lines."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(directory, listen) as (server, box, _):
        _announce(directory / "towpath.yaml", server, box, as_json=as_json)
        outcomes = _show_outcomes(server, as_json=as_json)
        chores = [asyncio.create_task(outcomes), asyncio.create_task(_sample_traffic(server))]
        await stop.wait()
        for chore in chores:
            chore.cancel()


def _announce(file: Path, server: Serving, box: Sandbox, *, as_json: bool) -> None:
    if as_json:
        vendors = {"kustomer": box.kustomer_url, "webhook": f"{box.webhook_url}/hook"}
        vendors |= {"customerio": box.customerio_url, "fcm": box.fcm_url}
        show_json({"ready": True, "events": server.address, "config": str(file), **vendors})
        return
    say(f"  events     http://{server.address}   write key {WRITE_KEY}")
    say(f"  kustomer   {box.kustomer_url} (simulated)   webhook {box.webhook_url}/hook")
    say(f"  customerio {box.customerio_url} (simulated)   fcm {box.fcm_url} (simulated)")
    say(f"  try        towpath trigger purchase --config {file}")
    say(f"             towpath push send {CAMPAIGN} --config {file}")
    say(f"             towpath replicate run --config {file}")
    say(f"             towpath audit balance --config {file}          Ctrl-C ends")
    sys.stdout.flush()


async def _show_outcomes(server: Serving, *, as_json: bool) -> None:
    async for line in server.app.bus.listen():
        if as_json:
            show_json(dict(line))
        else:
            say(outcome_line(dict(line)))


async def _sample_traffic(server: Serving) -> None:
    clock = server.app.clock
    for act in phones.acts(clock.now() - SINCE_S):
        await asyncio.to_thread(post_calls, server.address, PHONE_KEY, act.calls)
    seed = int(clock.now())
    for call in mixed(1_000_000, 20, seed=seed, at=clock.now()):
        await asyncio.to_thread(post_calls, server.address, WRITE_KEY, [call])
        await clock.sleep(1.0)
