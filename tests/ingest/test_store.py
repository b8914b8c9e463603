"""Ingest before the real store: what was answered with 200 is there when the directory is opened again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from towpath.clock import SystemClock
from towpath.ingest import Ingest
from towpath.log.sqlite import SqliteStore
from towpath.message import read

from .support import Hub, source


@pytest.mark.spec("P1", "P8", "E022", "E035")
async def test_a_200_is_on_disk_once_with_its_refusals(tmp_path: Path) -> None:
    hub = Hub()
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        hub.ingest = Ingest(store, {"web": source()}, SystemClock())
        events = [{"type": "track", "userId": f"u{i}", "messageId": f"m{i}", "event": "x"} for i in range(20)]
        bodies = [{"batch": [event, {"type": "track"}], "context": {"a": 1}} for event in events]
        replies = await asyncio.gather(*[hub.post("/v1/batch", body) for body in bodies * 2])
        assert {reply.status for reply in replies} == {200}
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        records = await store.read(0, 100)
        assert sorted(record.raw for record in records) == sorted(map(msgspec.json.encode, events))
        assert {read(record).context["a"] for record in records} == {1}
        counts = (await store.counts())["web"]
        assert (counts["accepted"], counts["duplicates"], counts["refused"]) == (20, 20, 40)
        assert {refused.code for refused in await store.refusals("web")} == {"no_id"}


@pytest.mark.spec("E036")
async def test_a_full_disk_is_507(tmp_path: Path) -> None:
    hub = Hub()
    async with SqliteStore.open(tmp_path, SystemClock(), free_bytes=lambda path: 0) as store:
        hub.ingest = Ingest(store, {"web": source()}, SystemClock())
        reply = await hub.post("/v1/track", {"userId": "u1"})
        assert (reply.status, reply.headers["retry-after"]) == (507, "30")
        assert store.last() == 0


@pytest.mark.spec("E033", "E035")
async def test_a_refusal_keeps_the_beginning_of_what_was_too_large(tmp_path: Path) -> None:
    hub = Hub()
    large = msgspec.json.encode({"type": "track", "userId": "u1", "text": "x" * 100_000})
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        hub.ingest = Ingest(store, {"web": source()}, SystemClock())
        assert (await hub.batch(large)).status == 400
        assert [refused.raw for refused in await store.refusals("web")] == [large[: 64 * 1024]]
