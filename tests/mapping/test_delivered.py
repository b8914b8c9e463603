"""The whole way: from the event API through filter, consent, a real transform and the map to a receiver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..app.support import HOOK, ask, delivered, send, track, until, world

FLOW = HOOK.replace(
    "  - {{from: web, to: [hook], start: earliest}}",
    """\
  - from: web
    to: hook
    start: earliest
    filter: 'event != "Internal"'
    consent: {{needs: [ads], missing: allow}}
    transform: shop:change
    map:
      - rename_event: {{Bought: Purchase}}
        hash: {{fields: [properties.email], key: "a key of the tests, 32 characters"}}
""",
)
CODE = """
def change(message):
    if message["event"] == "Dropped":
        return None
    if message["event"] == "Cart":
        items = message["properties"]["items"]
        return [{{**message, "event": "Bought", "properties": {{"sku": item}}}} for item in items]
    message["properties"]["version"] = {version}
    return message
"""


@pytest.mark.spec("D05", "D09", "D24", "E031")
async def test_messages_are_filtered_made_and_mapped_on_their_way(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CODE.format(version=1))
    denied = {**track("bob", "Seen"), "context": {"consent": {"categoryPreferences": {"ads": False}}}}
    async with world(tmp_path, FLOW) as (running, box, file):
        calls = [
            track("ann", "Internal"), track("ann", "Dropped"), denied,
            track("ann", "Cart", items=["a", "b", "c"]), track("ann", "Seen", email=" Ann@Example.com"),
        ]  # fmt: skip
        assert (await send(running.address, *calls))[0] == 200
        await until(lambda: len(bodies(box)) == 4)
        balance = await delivered(file, recount=True)
        assert balance["difference"] == 0
        assert (balance["accepted"], balance["delivered"]) == (7, 4)
        assert balance["skipped"] == {"consent": 1, "filtered": 1, "transformed away": 1}
        found = bodies(box)
        assert [(each["event"], each["properties"].get("sku")) for each in found] == [
            ("Purchase", "a"), ("Purchase", "b"), ("Purchase", "c"), ("Seen", None),
        ]  # fmt: skip
        assert found[3]["properties"] == {
            "email": "7b5e4f5d3c77320b7e2a6ea6d6769b2794def70023d039db3bedb15f961ca9f0",
            "version": 1,
        }
        assert len({each["messageId"] for each in found}) == 4

        (tmp_path / "shop.py").write_text(CODE.format(version=22))  # a reload brings the new code in force
        assert (await ask(file, "POST", "/reload"))["started"] == ["hook"]
        assert (await ask(file, "POST", "/reload"))["started"] == []
        await send(running.address, track("ann", "Seen"))
        await until(lambda: len(bodies(box)) == 5)
        assert bodies(box)[4]["properties"] == {"version": 22}


def bodies(box: Any) -> list[dict[str, Any]]:
    return [json.loads(received.body) for received in box.webhook.received]
