"""docs/push.md and its example: every call shown is taken as the page says, in its order."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.serve import serve

from ..app.conftest import key_file, own_log
from ..app.support import ask, hub, until
from ..sdks.npm import NODE

__all__ = ["key_file", "own_log"]

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "push.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "push-app"
KEY = "APP_KEY"
YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  phones: {{type: segment, write_keys: [{key}]}}
  strict: {{type: segment, write_keys: [strict], verify: required, verify_secret: a-secret-of-this-test}}
accounts:
  app: {{type: fcm, service_account: "${{file:key.json}}", fcm_url: "{fcm}"}}
push: {{account: app}}
"""


@asynccontextmanager
async def begun(directory: Path) -> AsyncIterator[Story]:
    """Run a hub with an FCM."""
    fcm = FcmSimulator()
    async with serve(fcm) as url:
        (directory / "key.json").write_text(fcm.account(url))
        file = directory / "towpath.yaml"
        file.write_text(YAML.format(key=KEY, fcm=url))
        async with hub(file) as serving:
            yield Story(serving.address, file)


def calls() -> list[dict[str, Any]]:
    """The calls of the page, in its order."""
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]


def post_now(address: str, where: str, call: dict[str, Any], headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {"content-type": "application/json", **headers}
        connection.request("POST", where, json.dumps(call), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def post(address: str, where: str, call: dict[str, Any], **headers: str) -> tuple[int, str]:
    """Post a call beside the loop: status and body of the answer."""
    return await asyncio.to_thread(post_now, address, where, call, headers)


class Story:
    """A hub that apps speak to."""

    def __init__(self, address: str, file: Path) -> None:
        self.address = address
        self.file = file

    async def say(self, call: dict[str, Any], key: str = KEY) -> None:
        """Post a call with the key in the body, and wait until it is delivered."""
        status, said = await post(self.address, f"/v1/{call['type']}", {"writeKey": key, **call})
        assert (status, "refused" in said) == (200, False), said

        async def settled() -> bool:
            rows = await ask(self.file, "GET", "/balance")
            assert not any(row["dead"] for row in rows)
            return not any(row["waiting"] for row in rows)

        await until(settled)

    async def owners(self) -> dict[str, tuple[str, str, bool]]:
        """Device → who has it, its status, and whether nobody has signed in on it."""
        rows = await ask(self.file, "GET", "/push/devices")
        return {row["device_id"]: (row["user_id"], row["status"], row["provisional"]) for row in rows}


@pytest.mark.spec(
    "P010", "P020", "P021", "P022", "P023", "P024", "P025", "P030", "P031", "P032", "P033", "P034", "P035",
    "P044",
)  # fmt: skip
async def test_every_call_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    anonymous, home, nobody, identify, signed_in, unregister, intilery = calls()
    async with begun(tmp_path) as story:
        await story.say(anonymous)
        await story.say(home)
        assert await story.owners() == {"device-1": ("device-1", "active", True)}
        await story.say(nobody)
        assert list(await story.owners()) == ["device-1"]
        await story.say(identify)
        await story.say(signed_in)
        await story.say(signed_in)
        assert await story.owners() == {"device-1": ("u-1", "active", False)}
        await story.say(unregister)
        assert await story.owners() == {"device-1": ("u-1", "removed", False)}
        await story.say(intilery)
        assert (await story.owners())["device-3"] == ("device-3", "active", True)


@pytest.mark.spec("P035")
async def test_intilerys_own_path_takes_the_same(tmp_path: Path) -> None:
    async with begun(tmp_path) as story:
        found = re.search(r'-H "auth-token: \$APP_KEY" http://127.0.0.1:8080(\S+)', PAGE)
        assert found is not None
        status, said = await post(story.address, found[1], calls()[0], **{"auth-token": KEY})
        assert status == 200, said
        await until(story.owners)
        assert (await story.owners())["device-1"] == ("device-1", "active", True)


@pytest.mark.spec("D13", "P021")
async def test_where_userids_need_a_proof_a_new_device_comes_with_its_anonymous_id(tmp_path: Path) -> None:
    first = calls()[0]
    assert "as `anonymousId`" in PAGE
    async with begun(tmp_path) as story:
        status, said = await post(story.address, "/v1/track", {"writeKey": "strict", **first})
        assert (status, "needs userHash" in said) == (400, True), said
        device = first.pop("userId")
        await story.say({**first, "anonymousId": device}, key="strict")
        assert await story.owners() == {device: (device, "active", True)}


@pytest.mark.spec("P058")
def test_the_page_says_what_is_not_supported_and_what_replaces_it() -> None:
    section = PAGE.partition("## Not supported")[2].partition("\n## ")[0]
    for word in ("topics", "Instance ID", "legacy FCM", "audience"):
        assert word in section


@pytest.mark.spec("P001", "P002", "P010")
def test_the_page_says_how_apps_are_registered_and_when_they_report() -> None:
    for word in ("iOS", "Android", "browsers", "console.firebase.google.com", "Every 30 to 45 days"):
        assert word in PAGE


@pytest.mark.parametrize("name", ["web.js", "PushRegistration.kt", "PushRegistration.swift"])
def test_the_example_reports_what_is_asked_for(name: str) -> None:
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    for word in ("Register Push", "Unregister Push", "deviceId", "fcmToken", "deviceType", "timezone"):
        assert word in text
    assert name in (EXAMPLE / "README.md").read_text(encoding="utf-8")


def test_the_web_example_can_be_parsed(tmp_path: Path) -> None:
    copy = tmp_path / "web.mjs"
    copy.write_text((EXAMPLE / "web.js").read_text(encoding="utf-8"))
    checked = subprocess.run([NODE, "--check", copy], capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stderr
