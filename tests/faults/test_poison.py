"""One bad item makes a vendor refuse a batch of a thousand: it is found, and the innocent are delivered."""

from __future__ import annotations

from math import ceil, log2
from pathlib import Path
from typing import Any

import msgspec
import pytest

from towpath import registry
from towpath.sandbox.serve import serve

from ..app.support import KEY, ask, hub
from .batcher import BATCH
from .support import accept, balances, numbered, scenario, settled

REFUSAL = {"error": "one of the items is not acceptable"}
YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
destinations:
  batcher: {{type: batcher, url: "{url}"}}
connections:
  - {{from: web, to: [batcher], start: earliest}}
"""


class Vendor:
    """Takes batches of items; refuses each that holds a poisonous one. `taken` and `refused` hold ids."""

    def __init__(self) -> None:
        self.taken: list[list[str]] = []
        self.refused: list[list[str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        items = msgspec.json.decode(body)["items"]
        bad = any(item["poison"] for item in items)
        (self.refused if bad else self.taken).append([item["id"] for item in items])
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 400 if bad else 200, "headers": headers})
        await send({"type": "http.response.body", "body": msgspec.json.encode(REFUSAL if bad else {})})

    def spent_on(self, bad: str) -> int:
        """How many requests the first batch with this item took, from its first refusal to the last part."""
        first = max((set(batch) for batch in self.refused if bad in batch), key=len)
        return sum(set(batch) <= first for batch in self.taken + self.refused)


@pytest.mark.spec("D03", "D06", "P5")
async def test_bisection_finds_it_and_delivers_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.destinations()._built_in, "batcher", "tests.faults.batcher")
    allowed = 1 + 2 * ceil(log2(BATCH))
    target = f"≤ 1 + 2·⌈log2 n⌉ = {allowed} requests, 0 innocents lost, poison dead with the answer"
    with scenario("poison in a batch", target, __file__) as row:
        vendor, bad = Vendor(), "p700-0"
        calls = numbered([f"p{number}" for number in range(BATCH)], [0])
        calls[700]["properties"]["poison"] = True
        async with serve(vendor) as url:
            file = tmp_path / "towpath.yaml"
            file.write_text(YAML.format(key=KEY, url=url))
            async with hub(file) as running:
                await ask(file, "POST", "/destinations/batcher/pause", {})
                await accept(running.address, calls)
                await ask(file, "POST", "/destinations/batcher/resume", {})
                await settled(file, ["batcher"])
                balance = (await balances(file))["batcher"]
                letters = await ask(file, "GET", "/dlq?connection=batcher")
                letter = await ask(file, "GET", f"/dlq/{letters[0]['id']}")
        spent = vendor.spent_on(bad)
        delivered = [name for batch in vendor.taken for name in batch]
        largest = max(map(len, vendor.refused))
        row.injected = f"1 bad item in a batch of {largest:,}; the vendor answers 400 for the whole"
        row.measured = (
            f"{spent} requests; {balance['delivered']} of {BATCH - 1} innocents delivered once; "
            f"{balance['dead']} dead letter, with the vendor's answer"
        )
        assert largest == BATCH
        assert spent <= allowed
        assert sorted(delivered) == sorted(call["messageId"] for call in calls if call["messageId"] != bad)
        assert (balance["delivered"], balance["dead"], balance["difference"]) == (BATCH - 1, 1, 0)
        assert [each["message_id"] for each in letters] == [bad]
        assert REFUSAL["error"] in str(letter)
