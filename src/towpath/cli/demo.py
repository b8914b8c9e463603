"""`towpath dev --demo`: the whole journey once, in the sandbox, with a verdict at its end."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from .. import views
from ..api.jobs import run_view
from ..log import DeadFilter
from ..push.campaigns import Launch
from ..sandbox import phones
from ..sandbox.customerio_changes import open_late
from ..sandbox.firebase import CloudEvent, document_event, user_event
from ..sandbox.scenarios import SCENARIOS, mixed
from ..sandbox.serve import Sandbox
from ..serve import Serving
from .output import FAILURE, OK, say, show_json, show_rows
from .posting import post_calls, post_events, send_with_sdk
from .sandbox import CAMPAIGN, PHONE_KEY, PUSH_TOKEN, SINCE_S, WRITE_KEY, running

PATIENCE_S = 60.0
EVERY_S = 0.05
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
ACCEPTED = "accepted"
WAREHOUSE = find_spec("duckdb") is not None and find_spec("pyarrow") is not None
COPIED = ["campaigns", "segments", "customers", "messages"]
PHONE_COLUMNS = ["device", "owner", "type", "push", "status"]


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
        self._phones: list[dict[str, Any]] = []
        self._again: dict[str, int] = {}

    def _say(self, text: str) -> None:
        _say(text, quiet=self._quiet)

    async def run(self) -> bool:
        """Run every step; whether all of it came out right."""
        self._say(
            f"towpath on http://{self._server.address}; simulated: Kustomer, Customer.io, FCM, "
            "a webhook receiver"
        )
        await self._client_traffic()
        await self._outage()
        await self._dead_letter()
        await self._firebase()
        await self._push()
        await self._replication()
        return await self._result()

    async def _client_traffic(self) -> None:
        calls = list(mixed(80, 12, seed=1))
        sender = await asyncio.to_thread(send_with_sdk, self._server.address, WRITE_KEY, calls)
        await self._post(SCENARIOS["signup"].calls())
        await self._settled()
        self._say(
            f"\n1  {len(calls)} calls of 12 people through {sender}, and a signup: kept, then delivered"
        )
        self._say(f"   Kustomer now has {len(self._box.kustomer.state.customers)} customers")

    async def _outage(self) -> None:
        self._say("\n2  Kustomer goes down (503 for everybody); 60 more calls come in")
        self._box.kustomer.faults.add("status", status=503, path="/v1/")
        await self._post(list(mixed(60, 12, seed=2)))
        loop = self._app.connections["kustomer"].loop

        async def noticed() -> bool:
            return loop.health.stalled or not loop.lanes.size

        await self._until(noticed)
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
        await self._post(calls)
        refused = {
            "type": "track",
            "messageId": "demo-refused",
            "userId": "demo-vip",
            "event": "Plan Changed",
        }
        body = '{"errors":[{"status":400,"code":"badparam","title":"tier is not defined yet"}]}'
        self._box.kustomer.faults.add("status", status=400, person="demo-vip", body=body)
        await self._post([{**refused, "properties": {"tier": "gold"}}])
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
        await asyncio.to_thread(post_events, self._server.address, PUSH_TOKEN, _firebase_story())
        await self._settled("customerio")
        ada, bob = (self._box.customerio.person(id=uid) or {} for uid in ("ada", "bob"))
        shown = ", ".join(f"{name} {ada.get(name)}" for name in ("email", "plan", "seats"))
        self._say(f"   Customer.io has ada with {shown}: the newer version, once")
        self._say(f"   and bob, who deleted his account, is {'STILL THERE' if bob else 'gone'}")

    async def _push(self) -> None:
        self._say("\n5  Push: apps report their tokens as events; a tablet changes hands, an app is deleted")
        for act in phones.acts(self._app.clock.now() - SINCE_S):
            await self._post(act.calls, PHONE_KEY)
            await self._settled()
            self._say(f"   {act.about}")
        self._phones = await self._told(await self._campaign())
        if not self._quiet:
            show_rows(self._phones, PHONE_COLUMNS, "no devices", as_json=False)
        accepted = sum(row["push"] == ACCEPTED for row in self._phones)
        self._say(
            f"   one campaign, its title filled in for each: {accepted} accepted by FCM, "
            f"{len(self._phones) - accepted} unknown to FCM and removed, at Customer.io too"
        )

    async def _replication(self) -> None:
        self._say("\n6  Replication: Customer.io's tables into a DuckDB file, and once more after a change")
        if not WAREHOUSE:
            self._say("   LEFT OUT: DuckDB is not installed here:  pip install 'towpath[warehouse]'")
            return
        first = await self._copied()
        newest = max(self._box.customerio.state.messages, key=lambda message: message["created"])
        open_late(self._box.customerio.state, newest["id"])
        self._again = await self._copied()
        self._say(f"   {first['written']:,} rows written; then {self._again['written']}: a mail opened late")

    async def _copied(self) -> dict[str, int]:
        """Replicate some tables; what was read and written."""
        final = {"succeeded", "failed", "cancelled"}

        async def at_rest() -> bool:
            # A demo that was killed here left a run that goes on by itself.
            return all(run.state in final for run in await self._app.jobs.runs("copy.replicate"))

        await self._until(at_rest)
        row = await self._app.jobs.launch("copy.replicate", {"tables": COPIED})
        await self._until(at_rest)
        found = run_view(await self._app.jobs.find(row.id), self._app.clock.now())
        for part in found["parts"]:
            self._say(f"   {part['part']}: {part['done']:,.0f} rows read")
        return dict(found["counts"])

    async def _campaign(self) -> int:
        """Send the campaign, once however often the demo is begun, and wait for its end; its number."""
        desk = self._app.push.desk
        begun = await desk.newest()
        number = begun[0].row.id if begun else (await desk.launch(Launch(CAMPAIGN))).id

        async def ended() -> bool:
            return (await desk.show(number)).row.state in ("done", "stopped")

        await self._until(ended)
        await self._settled()
        return number

    async def _told(self, campaign: int) -> list[dict[str, Any]]:
        """Every device with its owner, and what became of its push."""
        sends = await self._app.push.desk.sends(campaign, None, 100)
        pushed = {send["device"]: f"{send['state']} {send['code']}".strip() for send in sends}
        return [
            {
                "device": device.id,
                "owner": device.person,
                "type": device.platform,
                "push": pushed.get(device.id, ""),
                "status": f"{device.status} {device.reason}".strip(),
            }
            for device in await self._app.push.registry.page("", 100)
        ]

    def _pushed(self) -> bool:
        """Whether each device has its owner and got its push, and the dead one is gone."""
        reached = {row["device"]: row["owner"] for row in self._phones if row["push"] == ACCEPTED}
        active = {row["device"] for row in self._phones if row["status"] == "active"}
        return reached == dict(phones.OWNERS) and active == set(reached)

    async def _letters(self) -> list[dict[str, Any]]:
        return [views.dead(letter) for letter in await self._app.store.dead(DeadFilter())]

    async def _result(self) -> bool:
        rows = [views.balance(row) for row in await self._app.store.balance(recount=True)]
        good = not any(row["difference"] or row["waiting"] for row in rows) and not self.inversions()
        good = good and self._pushed() and (not WAREHOUSE or self._again["written"] == 1)
        self._say("\n7  The balance, counted again from the log and the rows:")
        if not self._quiet:
            show_rows(rows, BALANCE_COLUMNS, "", as_json=False)
        verdict = "nothing is missing, nothing is out of order" if good else "SOMETHING IS WRONG"
        self._say(f"   accepted = delivered + waiting + dead + skipped + erased: {verdict}")
        return good

    async def summary(self) -> dict[str, Any]:
        """The result for programs."""
        balance = list((await self._balance()).values())
        return {
            "balance": balance,
            "inversions": self.inversions(),
            "phones": self._phones,
            "replicated_again": self._again.get("written"),
        }

    def inversions(self) -> int:
        """How many events of a person reached Kustomer before an earlier one of the same journey."""
        count = 0
        for events in self._box.kustomer.state.events.values():
            steps = [event.meta["stepNum"] for event in events if "stepNum" in event.meta]
            count += sum(later < earlier for earlier, later in pairwise(steps))
        return count

    async def _balance(self) -> dict[str, dict[str, Any]]:
        return {row.connection: views.balance(row) for row in await self._app.store.balance()}

    async def _post(self, calls: Sequence[Mapping[str, Any]], key: str = WRITE_KEY) -> None:
        await asyncio.to_thread(post_calls, self._server.address, key, calls)

    async def _settled(self, connection: str | None = None) -> None:
        """Wait until nothing is left to deliver, on one connection or all, nor to tell of devices."""

        async def delivered() -> bool:
            rows = await self._balance()
            return all(row["waiting"] == 0 for name, row in rows.items() if connection in (None, name))

        async def done() -> bool:
            # What was delivered may have moved a device, and telling that is one more message to deliver.
            told = await delivered() and not (await self._app.push.standing())["untold"]
            return told and await delivered()

        await self._until(done)

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        deadline = self._app.clock.monotonic() + PATIENCE_S
        while not await condition() and self._app.clock.monotonic() < deadline:
            await self._app.clock.sleep(EVERY_S)


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
