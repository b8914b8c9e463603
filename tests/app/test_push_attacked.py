"""Push while its configuration changes under a campaign."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.serve import serve

from .support import ask, hub, until

YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [wk], trust: server}}
accounts:
  app: {{type: fcm, service_account: "${{file:key.json}}", fcm_url: "{fcm}", rate: 600}}
push:
  account: app
  campaigns:
    hello: {{title: Hello}}
"""
DEVICES = 60


@pytest.mark.spec("P055", "P050")
async def test_a_campaign_goes_on_when_its_account_is_there_again(tmp_path: Path) -> None:
    fcm = FcmSimulator()
    async with serve(fcm) as url:
        (tmp_path / "key.json").write_text(fcm.account(url))
        file = tmp_path / "towpath.yaml"
        text = YAML.format(fcm=url)
        file.write_text(text)
        async with hub(file) as serving:
            rows = [
                {"deviceId": f"d{at}", "fcmToken": f"ok-d{at}", "deviceType": "iOS"} for at in range(DEVICES)
            ]
            await ask(file, "POST", "/push/import", {"devices": rows})
            number = (await ask(file, "POST", "/push/send", {"code": "hello"}))["campaign"]

            async def state() -> str:
                return str((await ask(file, "GET", f"/push/campaigns/{number}"))["state"])

            async def failed() -> bool:
                runs = (await ask(file, "GET", f"/push/campaigns/{number}"))["runs"]
                return bool(runs[0]["state"] == "failed")

            await until(lambda: len(fcm.state.accepted) > 3)
            file.write_text(text[: text.index("push:")])
            await serving.app.reload()
            file.write_text(text.replace("  account: app\n", ""))
            await serving.app.reload()
            await until(failed)
            file.write_text(text)
            await serving.app.reload()

            async def done() -> bool:
                return await state() == "done"

            await until(done)
    assert len(fcm.state.accepted) == DEVICES
    assert fcm.state.repeated() == {}
