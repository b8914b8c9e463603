"""`towpath dev`: the server with simulated vendors and sample traffic; `--demo` is the whole journey once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from .. import views
from ..config import Config, load
from ..errors import TowpathError
from ..log import DeadFilter
from ..log.lock import DirectoryLock
from ..sandbox.customerio import DEFAULT
from ..sandbox.firebase import PROJECT, CloudEvent, document_event, user_event
from ..sandbox.kustomer import DEFAULT_KEY
from ..sandbox.scenarios import SCENARIOS, mixed
from ..sandbox.serve import Sandbox, sandbox
from ..serve import Serving, serving
from .output import FAILURE, OK, say, show_json, show_rows
from .traffic import outcome_line

WRITE_KEY = "wk_demo"
WEBHOOK_SECRET = "whsec_dG93cGF0aC1zYW5kYm94LXNlY3JldC0wMQ=="  # noqa: S105 - the sandbox's own, guards nothing
PUSH_TOKEN = "sandbox-push-token"  # noqa: S105 - like it
PATIENCE_S = 60.0
RATE = 60_000
UNFINISHED = "unfinished"
BALANCE_COLUMNS = [
    "connection",
    "accepted",
    "delivered",
    "waiting",
    "dead",
    "skipped",
    "erased",
    "difference",
]

CONFIG = """\
# Written by `towpath dev`; the vendors in it are simulated and live as long as that command.
version: 1
server: {{listen: "{listen}"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
  app: {{type: firebase, project: {project}, push_token: {push_token}, collections: [users]}}
destinations:
  kustomer: {{type: kustomer, api_key: {kustomer_key}, base_url: "{kustomer}", rate: {rate}}}
  hook: {{type: webhook, url: "{webhook}/hook", secret: "{secret}", allow_private: true}}
  customerio: {{type: customerio, site_id: {site_id}, api_key: {track_key}, base_url: "{customerio}"}}
connections:
  - {{from: web, to: [kustomer, hook], start: earliest}}
  - {{from: [web, app], to: [customerio], start: earliest}}
"""


def write_config(directory: Path, box: Sandbox, listen: str) -> Path:
    """Write the sandbox's configuration file, so that every other command works on it too."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "towpath.yaml"
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
        vendors["customerio"] = box.customerio_url
        show_json({"ready": True, "events": server.address, "config": str(file), **vendors})
        return
    say(f"  events     http://{server.address}   write key {WRITE_KEY}")
    say(f"  kustomer   {box.kustomer_url} (simulated)   webhook {box.webhook_url}/hook")
    say(f"  customerio {box.customerio_url} (simulated)")
    say(f"  try        towpath trigger purchase --config {file}")
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
    seed = int(clock.now())
    for call in mixed(1_000_000, 20, seed=seed, at=clock.now()):
        await _post(server, [call])
        await clock.sleep(1.0)


async def _post(server: Serving, calls: Sequence[Mapping[str, Any]]) -> None:
    await asyncio.to_thread(_post_batch, server.address, [dict(call) for call in calls])


def _post_batch(address: str, calls: Sequence[Mapping[str, Any]]) -> None:
    """Post over HTTP, as an SDK does. Raises `TowpathError` when it is not taken."""
    credentials = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        body = json.dumps({"batch": calls}).encode()
        connection.request("POST", "/v1/batch", body, {"authorization": f"Basic {credentials}"})
        response = connection.getresponse()
        said = response.read().decode("utf-8", "replace")
    finally:
        connection.close()
    if response.status != 200:
        raise TowpathError(f"the event API answered {response.status}: {said}", code="E5024")


# -- demo ----------------------------------------------------------------------------------------------


async def run_demo(directory: Path, *, as_json: bool) -> int:
    """Run the whole journey once; an interrupted one goes on where it was. Returns the exit code."""
    marker = _prepare(directory, quiet=as_json)
    async with running(directory, "127.0.0.1:0") as (server, box, _):
        journey = Demo(server, box, quiet=as_json)
        good = await journey.run()
        summary = await journey.summary()
    marker.unlink(missing_ok=True)
    if as_json:
        show_json(summary)
    return OK if good else FAILURE


def _prepare(directory: Path, *, quiet: bool) -> Path:
    """Make an empty directory, or keep that of a demo that did not end; its marker says so."""
    marker = directory / UNFINISHED
    if marker.exists():
        _say("the last demo was interrupted: going on with its data", quiet=quiet)
        return marker
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    marker.touch()
    return marker


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        say(text)
        sys.stdout.flush()


class Demo:
    """The journey: real SDK traffic, an outage healed in order, a dead letter replayed, the balance."""

    def __init__(self, server: Serving, box: Sandbox, *, quiet: bool) -> None:
        self._server = server
        self._app = server.app
        self._box = box
        self._quiet = quiet

    def _say(self, text: str) -> None:
        _say(text, quiet=self._quiet)

    async def run(self) -> bool:
        """Run every step; whether all of it came out right."""
        self._say(
            f"towpath on http://{self._server.address}; simulated: Kustomer, Customer.io, a webhook receiver"
        )
        await self._client_traffic()
        await self._outage()
        await self._dead_letter()
        await self._firebase()
        return await self._result()

    async def _client_traffic(self) -> None:
        calls = list(mixed(80, 12, seed=1))
        sender = await asyncio.to_thread(_send_with_sdk, self._server.address, calls)
        await _post(self._server, SCENARIOS["signup"].calls())
        await self._settled()
        self._say(
            f"\n1  {len(calls)} calls of 12 people through {sender}, and a signup: kept, then delivered"
        )
        self._say(f"   Kustomer now has {len(self._box.kustomer.state.customers)} customers")

    async def _outage(self) -> None:
        self._say("\n2  Kustomer goes down (503 for everybody); 60 more calls come in")
        self._box.kustomer.faults.add("status", status=503, path="/v1/")
        await _post(self._server, list(mixed(60, 12, seed=2)))
        loop = self._app.connections["kustomer"].loop
        await self._until(lambda: loop.health.stalled or not loop.lanes.size)
        await self._settled("hook")
        waiting = (await self._balance())["kustomer"]["waiting"]
        hook = (await self._balance())["hook"]["waiting"]
        self._say(
            f"   {waiting} deliveries wait for Kustomer, {hook} for the webhook: one does not slow the other"
        )
        self._box.kustomer.faults.clear()
        await self._settled()
        self._say(f"   Kustomer is back: everything arrived, {self.inversions()} out of order")

    async def _dead_letter(self) -> None:
        calls = SCENARIOS["poison"].calls()
        await _post(self._server, calls)
        refused = {
            "type": "track",
            "messageId": "demo-refused",
            "userId": "demo-vip",
            "event": "Plan Changed",
        }
        body = '{"errors":[{"status":400,"code":"badparam","title":"tier is not defined yet"}]}'
        self._box.kustomer.faults.add("status", status=400, person="demo-vip", body=body)
        await _post(self._server, [{**refused, "properties": {"tier": "gold"}}])
        await self._settled()
        self._say("\n3  Dead letters keep the message, the request, the answer and the reason:")
        letters = await self._letters()
        if not self._quiet:
            show_rows(letters, ["id", "event", "user_id", "code", "reason"], "none", as_json=False)
        self._box.kustomer.faults.clear()
        again = [letter["id"] for letter in letters if letter["message_id"] == "demo-refused"]
        if again:
            counts = await self._app.store.replay(DeadFilter(ids=again), self._app.clock.now())
            await self._app.refresh(counts)
            await self._settled()
        self._say(
            "   fixed at Kustomer, replayed: delivered. The others never fit Kustomer's name rule and stay."
        )

    async def _firebase(self) -> None:
        """Events in the wrong order, one of them twice, and a deletion: what Google promises and no more."""
        self._say("\n4  Firebase: two people sign up, a document changes, its events come late and twice")
        await asyncio.to_thread(_post_events, self._server.address, _firebase_story())
        await self._settled("customerio")
        ada, bob = (self._box.customerio.person(id=uid) or {} for uid in ("ada", "bob"))
        shown = ", ".join(f"{name} {ada.get(name)}" for name in ("email", "plan", "seats"))
        self._say(f"   Customer.io has ada with {shown}: the newer version, once")
        self._say(f"   and bob, who deleted his account, is {'STILL THERE' if bob else 'gone'}")

    async def _letters(self) -> list[dict[str, Any]]:
        return [views.dead(letter) for letter in await self._app.store.dead(DeadFilter())]

    async def _result(self) -> bool:
        rows = [views.balance(row) for row in await self._app.store.balance(recount=True)]
        good = not any(row["difference"] or row["waiting"] for row in rows) and not self.inversions()
        self._say("\n5  The balance, counted again from the log and the rows:")
        if not self._quiet:
            show_rows(rows, BALANCE_COLUMNS, "", as_json=False)
        verdict = "nothing is missing, nothing is out of order" if good else "SOMETHING IS WRONG"
        self._say(f"   accepted = delivered + waiting + dead + skipped + erased: {verdict}")
        return good

    async def summary(self) -> dict[str, Any]:
        """The result for programs."""
        return {"balance": list((await self._balance()).values()), "inversions": self.inversions()}

    def inversions(self) -> int:
        """How many events of a person reached Kustomer before an earlier one of the same journey."""
        count = 0
        for events in self._box.kustomer.state.events.values():
            steps = [event.meta["stepNum"] for event in events if "stepNum" in event.meta]
            count += sum(later < earlier for earlier, later in pairwise(steps))
        return count

    async def _balance(self) -> dict[str, dict[str, Any]]:
        return {row.connection: views.balance(row) for row in await self._app.store.balance()}

    async def _settled(self, connection: str | None = None) -> None:
        """Wait until nothing is left to deliver, on one connection or all."""

        async def done() -> bool:
            rows = await self._balance()
            return all(row["waiting"] == 0 for name, row in rows.items() if connection in (None, name))

        deadline = self._app.clock.monotonic() + PATIENCE_S
        while not await done() and self._app.clock.monotonic() < deadline:
            await self._app.clock.sleep(0.1)

    async def _until(self, condition: Any) -> None:
        deadline = self._app.clock.monotonic() + PATIENCE_S
        while not condition() and self._app.clock.monotonic() < deadline:
            await self._app.clock.sleep(0.02)


def _firebase_story() -> list[CloudEvent]:
    """Ada's document was made and changed; the newer version comes first, and once more at the end."""
    at, basic, gold = 1_767_261_600.0, {"plan": "basic", "seats": 1}, {"plan": "gold", "seats": 5}
    first = document_event("users/ada", {"attributes": basic}, at + 10)
    second = document_event(
        "users/ada", {"attributes": gold}, at + 20, before={"attributes": basic}, created_at=at + 10
    )
    return [
        user_event("ada", "created", at, email="ada@example.com", emailVerified=True, displayName="Ada"),
        user_event("bob", "created", at, email="bob@example.com"),
        second,
        first,
        user_event("bob", "deleted", at + 30, created_at=at, email="bob@example.com"),
        second,
    ]


def _post_events(address: str, events: Sequence[CloudEvent]) -> None:
    """Post CloudEvents as Eventarc does. Raises `TowpathError` when one is not taken."""
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"content-type": "application/cloudevents+json", "authorization": f"Bearer {PUSH_TOKEN}"}
    with contextlib.closing(connection):
        for event in events:
            connection.request("POST", "/webhooks/app", json.dumps(event).encode(), headers)
            response = connection.getresponse()
            said = response.read().decode("utf-8", "replace")
            if response.status != 200:
                raise TowpathError(f"the source app answered {response.status}: {said}", code="E5024")


def _send_with_sdk(address: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """Send through Segment's own Python client where it is installed, else through ours; which one it was."""
    try:
        from segment.analytics.client import Client as SegmentClient
    except ImportError:
        from ..client import Client

        client: Any = Client(WRITE_KEY, host=f"http://{address}")
        name = "towpath's client"
    else:
        client = SegmentClient(WRITE_KEY, host=f"http://{address}", upload_interval=0.1, gzip=True)
        name = "segment-analytics-python"
    for call in calls:
        ids = {
            "user_id": call["userId"],
            "anonymous_id": call["anonymousId"],
            "message_id": call["messageId"],
        }
        if call["type"] == "identify":
            client.identify(traits=call["traits"], **ids)
        elif call["type"] == "page":
            client.page(name=call["name"], properties=call["properties"], **ids)
        else:
            client.track(event=call["event"], properties=call["properties"], **ids)
    client.flush()
    return name
