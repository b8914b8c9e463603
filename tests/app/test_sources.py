"""Sources that are asked and listened to: jobs with checkpoints, listeners that begin again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from towpath import registry
from towpath.app import App
from towpath.config import load
from towpath.http import Undelivered
from towpath.lanes import Item
from towpath.message import Message
from towpath.outcome import Rejected, Retry
from towpath.source import (
    Heard,
    Ignored,
    Known,
    Listening,
    Page,
    Poll,
    SourceScope,
    SourceSettings,
    State,
    Unfit,
)
from towpath.state.jobs import JobRow

from .support import until

CONFIG = """\
version: 1
server: {listen: "127.0.0.1:0"}
storage: ./data
sources:
  herd: {type: herd}
"""


class Herd(Listening[SourceSettings]):
    """A made-up source: ten animals to ask for, in pages of two, and whatever is put on the line."""

    name: ClassVar[str] = "herd"
    Settings: ClassVar[type[Any]] = SourceSettings
    line: ClassVar[asyncio.Queue[Any]]
    fails_at: ClassVar[dict[int, Exception]] = {}
    asked: ClassVar[list[int]] = []

    def polls(self) -> Sequence[Poll]:
        return (Poll("count", "Counts the herd.", options={"kind": "Only this kind."}),)

    def persons(self, known: Known) -> int:
        return 7

    def undelivered(self, message: Message, known: Known) -> None:
        known.keep(message.message_id, b"died")

    async def pages(self, poll: str, state: Any, scope: SourceScope) -> AsyncIterator[Page]:
        for start in range(state.get("next", 0), 10, 2):
            self.asked.append(start)
            if (error := self.fails_at.pop(start, None)) is not None:
                raise error
            prefix = scope.options.get("kind", "sheep")
            yield Page([f"{prefix}-{number}" for number in (start, start + 1)], {"next": start + 2}, 10)

    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        for item in page.items:
            if item == "wolf-5":
                raise ZeroDivisionError
            if item == "sheep-3":
                yield Unfit("black", "sheep-3 is black")
            elif item == "sheep-4":
                yield Ignored("asleep")
            else:
                yield Message(type="identify", message_id=item, user_id=item)

    async def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        while True:
            said = await self.line.get()
            if isinstance(said, Exception):
                raise said
            yield Page([said])


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    class Kinds(registry.Kinds):
        def __init__(self) -> None:
            super().__init__("towpath.sources", {})
            self._built_in["herd"] = __name__

    kinds = Kinds()
    monkeypatch.setattr(registry, "sources", lambda: kinds)
    monkeypatch.setattr("towpath.config.entries.sources", lambda: kinds)
    monkeypatch.setattr("towpath.app.sources.BACK_OFF_S", (0.0,))
    monkeypatch.setattr("towpath.app.line.HOLDS_S", 0.0)
    Herd.line, Herd.fails_at, Herd.asked = asyncio.Queue(), {}, []
    file = tmp_path / "towpath.yaml"
    file.write_text(CONFIG)
    async with App(load(file), reread=lambda: load(file)) as running:
        yield running


async def ended(app: App, run: JobRow, *states: str) -> JobRow:
    async def there() -> bool:
        return (await app.jobs.find(run.id)).state in (states or ("succeeded", "failed"))

    await until(there)
    return await app.jobs.find(run.id)


async def kept(app: App, count: int) -> list[str]:
    async def there() -> bool:
        return len(await app.store.read(0, 100)) >= count

    await until(there)
    return [record.message_id for record in await app.store.read(0, 100)]


async def standing(app: App, **wanted: Any) -> None:
    async def there() -> bool:
        return wanted.items() <= app.sources.standing()["herd"].items()

    await until(there)


ASLEEP = [f"sheep-{number}" for number in range(10) if number not in (3, 4)]


@pytest.mark.spec("F056")
async def test_a_poll_is_a_job_that_counts_what_it_took_in(app: App) -> None:
    row = await ended(app, await app.jobs.launch("herd.count"))
    assert row.state == "succeeded"
    assert await kept(app, 8) == ASLEEP
    assert '"read":10,"written":8,"skipped":1,"failed":1' in row.progress
    assert [letter.reason for letter in await app.store.refusals("herd")] == ["sheep-3 is black"]


@pytest.mark.spec("F056")
async def test_a_poll_goes_on_behind_the_last_page_it_kept(app: App) -> None:
    Herd.fails_at = {6: Undelivered(Rejected("403: the role is missing"))}
    row = await ended(app, await app.jobs.launch("herd.count"))
    assert (row.state, row.error) == ("failed", "403: the role is missing")
    await ended(app, await app.jobs.retry(row.id))
    assert Herd.asked == [0, 2, 4, 6, 6, 8]
    assert await kept(app, 8) == ASLEEP


async def test_a_vendor_that_asks_to_wait_is_waited_for(app: App) -> None:
    Herd.fails_at = {4: Undelivered(Retry("429: slowly", after_s=3600.0))}
    row = await ended(app, await app.jobs.launch("herd.count"), "snoozed")
    assert row.due_at - row.changed_at > 3000


@pytest.mark.spec("F056")
async def test_a_dry_run_counts_and_keeps_nothing(app: App) -> None:
    row = await ended(app, await app.jobs.launch("herd.count", {"dry_run": True, "kind": "goat"}))
    assert row.state == "succeeded"
    assert '"written":10' in row.progress
    assert await app.store.read(0, 100) == []
    assert await app.store.refusals("herd") == []


async def test_a_listener_begins_again_and_says_why_it_stopped(app: App) -> None:
    Herd.line.put_nowait("ram-1")
    assert await kept(app, 1) == ["ram-1"]
    lines = app.bus.listen()
    told = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    Herd.line.put_nowait(ConnectionError("the fence is down"))
    assert ((line := await told)["line"], line["why"]) == ("herd", "ConnectionError: the fence is down")
    Herd.line.put_nowait("ram-2")
    assert await kept(app, 2) == ["ram-1", "ram-2"]
    assert (await anext(lines))["state"] == "hearing"
    assert app.sources.standing()["herd"]["line"]["state"] == "hearing"
    Herd.line.put_nowait("sheep-4")
    await standing(app, ignored={"asleep": 1})


@pytest.mark.spec("P5", "F053")
async def test_an_item_that_towpath_fails_to_read_is_a_dead_letter_and_the_rest_goes_on(app: App) -> None:
    row = await ended(app, await app.jobs.launch("herd.count", {"kind": "wolf"}))
    assert row.state == "succeeded"
    assert await kept(app, 9) == [f"wolf-{number}" for number in range(10) if number != 5]
    (letter,) = await app.store.refusals("herd")
    assert (letter.code, letter.raw) == ("unforeseen", b'"wolf-5"')
    assert letter.reason.startswith("towpath failed to read this: ZeroDivisionError at heard:")


async def test_a_source_switched_off_neither_listens_nor_runs_by_itself(app: App) -> None:
    app.config.file.write_text(CONFIG.replace("type: herd", "type: herd, enabled: false"))
    await app.reload()
    assert app.sources.stations["herd"].hearing is None
    assert [one.job.name for one in await app.jobs.overview()] == ["trim"]


async def test_a_reload_keeps_the_turns_of_a_source_apart(app: App) -> None:
    before = app.sources.stations["herd"].feed
    app.config.file.write_text(CONFIG.replace("type: herd", "type: herd, trust: server"))
    await app.reload()
    assert app.sources.stations["herd"].feed is before
    assert before.trust == "server"


async def test_a_source_that_leaves_takes_its_job_along(app: App) -> None:
    file = app.config.file
    file.write_text(CONFIG.replace("herd: {type: herd}", "web: {type: segment, write_keys: [k]}"))
    await app.reload()
    assert [one.job.name for one in await app.jobs.overview()] == ["trim"]
    assert app.sources.stations == {}
    file.write_text(CONFIG)
    await app.reload()
    assert "herd.count" in [one.job.name for one in await app.jobs.overview()]
    Herd.line.put_nowait("ram-3")
    assert await kept(app, 1) == ["ram-3"]


@pytest.mark.spec("F053")
async def test_a_source_hears_of_its_dead_letters(app: App) -> None:
    Herd.line.put_nowait("ram-1")
    assert await kept(app, 1) == ["ram-1"]
    item = Item((await app.store.read(0, 1))[0], Message(message_id="ram-1"), None)
    app._observe("barn", item, Retry("later"))
    app._observe("barn", item, Rejected("lame"))

    async def told() -> bool:
        return app.sources.stations["herd"].feed.facts.view().find("ram-1") == b"died"

    await until(told)


@pytest.mark.spec("D14")
async def test_the_delete_guard_hears_how_many_people_the_sources_know(app: App) -> None:
    assert await app.sources.persons(["herd", "nobody"]) == 7


async def test_a_source_without_a_check_is_at_least_configured(app: App) -> None:
    (check,) = await app.sources.check("herd")
    assert (check.ok, check.name) == (True, "herd is configured")


@pytest.mark.spec("D19")
async def test_a_source_whose_memory_was_dropped_begins_anew(app: App) -> None:
    Herd.line.put_nowait("ram-1")
    assert await kept(app, 1) == ["ram-1"]
    feed = app.sources.stations["herd"].feed

    def learn(known: Known) -> Iterable[Heard]:
        known.keep("ram-1", b"seen")
        return ()

    await feed.take(learn, state={"at": 1})
    file = app.config.file
    file.write_text(CONFIG.replace("herd: {type: herd}", "web: {type: segment, write_keys: [k]}"))
    await app.reload()
    assert await app.sources.left_behind(app.config) == ["herd"]
    assert await app.sources.drop("herd") == 1
    assert await app.sources.left_behind(app.config) == []
    file.write_text(CONFIG)
    await app.reload()
    fresh = app.sources.stations["herd"].feed
    assert fresh is not feed
    assert (fresh.state, fresh.facts.view().find("ram-1")) == ({}, None)
    Herd.line.put_nowait("ram-2")
    assert await kept(app, 2) == ["ram-1", "ram-2"]
