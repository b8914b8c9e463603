"""The seed's own story, whole: apps report devices, people sign in, campaigns and events reach them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.fcm import ELSEWHERE, FcmSimulator
from towpath.sandbox.google import service_account
from towpath.sandbox.serve import serve
from towpath.serve import Serving

from ..app.conftest import key_file, own_log
from ..app.support import ask, hub, send, track, until

__all__ = ["key_file", "own_log"]

YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  app: {{type: segment, write_keys: [wk_test]}}
  shop: {{type: segment, write_keys: [wk_server], trust: server}}
accounts:
  firebase: {{type: fcm, service_account: "${{file:key.json}}", fcm_url: "{fcm}"}}
destinations:
  fcm:
    type: fcm
    account: firebase
    events:
      Order Shipped: {{title: "Order {{properties.order_id}}", body: "is on its way"}}
  people: {{type: customerio, site_id: {site}, api_key: {key}, base_url: "{customerio}", rate: 1000}}
connections:
  - {{from: [app, shop], to: [fcm]}}
  - {{from: push, to: [people]}}
push:
  account: firebase
  campaigns:
    welcome: {{title: "Hi {{traits.first_name|you}}", body: "welcome", link: "shop://home"}}
"""


class Story:
    """A hub with its simulators."""

    def __init__(
        self, serving: Serving, fcm: FcmSimulator, customerio: CustomerIoSimulator, file: Path
    ) -> None:
        self.address = serving.address
        self.fcm = fcm
        self.customerio = customerio
        self.file = file

    async def say(self, *calls: Mapping[str, Any], key: str = "wk_test") -> None:
        """Have an app (or, with its key, the shop's server) report something, and let it be delivered."""
        assert (await send(self.address, *calls, key=key))[0] == 200
        await until(self._settled)

    async def _settled(self) -> bool:
        rows = await ask(self.file, "GET", "/balance")
        standing = await ask(self.file, "GET", "/push")
        return not standing["untold"] and not any(row["waiting"] for row in rows)

    async def devices(self, person: str) -> list[str]:
        rows = await ask(self.file, "GET", f"/push/devices?person={person}")
        return [row["device_id"] for row in rows if row["status"] == "active"]

    async def campaign(self, **asked: Any) -> dict[str, Any]:
        """Send a campaign and wait for its end."""
        number = (await ask(self.file, "POST", "/push/send", {"code": "welcome", **asked}))["campaign"]
        found: dict[str, Any] = {}

        async def done() -> bool:
            found.update(await ask(self.file, "GET", f"/push/campaigns/{number}"))
            return found["state"] in ("done", "stopped")

        await until(done)
        return found

    def told(self) -> list[str]:
        """The addresses that were sent to, since last asked."""
        told = [message.address for message in self.fcm.state.accepted]
        self.fcm.state.accepted.clear()
        return sorted(told)


@asynccontextmanager
async def begun(directory: Path, text: str = YAML) -> AsyncIterator[Story]:
    fcm, customerio = FcmSimulator(), CustomerIoSimulator()
    async with serve(fcm) as fcm_url, serve(customerio) as customerio_url:
        (directory / "key.json").write_text(fcm.account(fcm_url))
        file = directory / "towpath.yaml"
        site, key = DEFAULT.site_id, DEFAULT.api_key
        file.write_text(text.format(fcm=fcm_url, customerio=customerio_url, site=site, key=key))
        async with hub(file) as serving:
            yield Story(serving, fcm, customerio, file)


def register(device: str, token: str, person: str | None = None, **more: str) -> dict[str, Any]:
    properties = {"deviceId": device, "fcmToken": token, "deviceType": "iOS", **more}
    return {
        "type": "track",
        "event": "Register Push",
        "userId": person or device,
        "properties": properties,
    }


@pytest.mark.spec("P002", "P020", "P021", "P022", "P024", "P025", "P030", "P034", "P046")
async def test_from_the_first_start_of_an_app_to_a_shared_phone(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        await story.say(register("d1", "ok-1"), track("d1", "Looked"))
        assert await story.devices("d1") == ["d1"]
        assert (await story.campaign())["accepted"] == 1
        assert story.told() == ["ok-1"]

        await story.say(
            {"type": "identify", "userId": "ada", "traits": {"first_name": "Ada"}},
            register("d1", "ok-1", "ada"),
            register("d2", "ok-2", "ada", deviceType="Android"),
        )
        assert await story.devices("ada") == ["d1", "d2"]
        assert await story.devices("d1") == []
        person = story.customerio.find(id="ada")
        assert person is not None
        assert set(person.devices) == {"ok-1", "ok-2"}

        await story.say({"type": "identify", "userId": "bob"}, register("d2", "ok-2", "bob"))
        assert await story.devices("ada") == ["d1"]
        assert await story.devices("bob") == ["d2"]
        assert set(story.customerio.find(id="ada").devices) == {"ok-1"}  # type: ignore[union-attr]
        assert set(story.customerio.find(id="bob").devices) == {"ok-2"}  # type: ignore[union-attr]

        done = await story.campaign(changes={"audience": {"persons": ["ada"]}})
        assert (done["state"], done["accepted"]) == ("done", 1)
        assert story.told() == ["ok-1"]


@pytest.mark.spec("P050", "D13")
async def test_events_send_pushes_when_a_server_says_so(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        await story.say(register("d1", "ok-1", "ada"), register("d2", "ok-2"))
        asked = track("ada", "send_push", assetId="welcome")
        await story.say(asked)  # from a client: anybody could
        assert story.told() == []
        await story.say(asked, track("d2", "SEND_PUSH", assetId="welcome"), key="wk_server")
        assert story.told() == ["ok-1"]
        await story.say(track("ada", "order shipped", order_id=7), key="wk_server")
        assert story.told() == ["ok-1"]


@pytest.mark.spec("P012", "P046", "P053")
async def test_what_firebase_says_is_gone_is_gone_everywhere(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        await story.say(register("d1", "ok-1", "ada"), register("d2", "gone-2", "ada"))
        assert set(story.customerio.find(id="ada").devices) == {"ok-1", "gone-2"}  # type: ignore[union-attr]
        done = await story.campaign()
        assert (done["accepted"], done["failed"]) == (1, 1)
        await until(lambda: set(story.customerio.find(id="ada").devices) == {"ok-1"})  # type: ignore[union-attr]
        await story.say(register("d2", "ok-22", "ada"))
        assert await story.devices("ada") == ["d1", "d2"]


@pytest.mark.spec("P003", "P051", "P057")
async def test_the_key_is_tried_without_sending(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        found = await ask(story.file, "POST", "/destinations/fcm/test")
        checks = found["checks"] if isinstance(found, dict) else found
        assert all(check["ok"] for check in checks)
        assert any(story.fcm.project in check["name"] for check in checks)
        await story.say(register("d1", "ok-1", "ada"))
        found = await ask(story.file, "POST", "/push/send", {"code": "welcome", "dry_run": True})
        assert [one["verdict"] for one in found["verdicts"]] == ["accepted"]
        assert story.told() == []


@pytest.mark.spec("P003", "P053")
async def test_a_key_of_another_project_stops_the_campaign_and_the_right_one_finishes_it(
    tmp_path: Path,
) -> None:
    async with begun(tmp_path) as story:
        await story.say(*[register(f"d{number}", f"ok-{number}") for number in range(20)])
        right, file = story.file.read_text(), tmp_path / "other.json"
        url = right.partition('fcm_url: "')[2].partition('"')[0]
        file.write_text(service_account(url, project=ELSEWHERE))
        wrong = right.replace('file:key.json}"', f'file:other.json}}", project: {story.fcm.project}')
        story.file.write_text(wrong)
        await ask(story.file, "POST", "/reload")
        stopped = await story.campaign()
        assert stopped["state"] == "stopped"
        assert "role" in stopped["reason"]
        story.file.write_text(right)
        await ask(story.file, "POST", "/reload")
        where = f"/push/campaigns/{stopped['campaign']}"
        await ask(story.file, "POST", f"{where}/resume")

        async def done() -> bool:
            return bool((await ask(story.file, "GET", where))["state"] == "done")

        await until(done)
        assert story.told() == sorted(f"ok-{number}" for number in range(20))


@pytest.mark.spec("D10", "P050")
async def test_a_suppressed_person_gets_no_campaign(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        await story.say(register("d1", "ok-1", "ada"), register("d2", "ok-2", "bob"))
        await ask(story.file, "POST", "/people/suppress", {"ids": ["ada"]})
        done = await story.campaign()
        assert (done["accepted"], done["skipped"]) == (1, 1)
        assert story.told() == ["ok-2"]


@pytest.mark.spec("P045", "D10")
async def test_an_erased_person_has_no_device_any_more(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        await story.say(register("d1", "ok-1", "ada"))
        await ask(story.file, "POST", "/people/erase", {"ids": ["ada"]})
        assert await story.devices("ada") == []
        state = (tmp_path / "data" / "state.db").read_bytes() + (
            tmp_path / "data" / "state.db-wal"
        ).read_bytes()
        assert b"ok-1" not in state
