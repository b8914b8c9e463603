"""The job that asks a source: page by page into the log, resumed where the last kept page ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, TypeAlias

import msgspec
from pydantic import BeforeValidator, Field, create_model

from ..destination import Settings
from ..errors import TowpathError
from ..feed import Fed, Feed, Unmade
from ..http import Undelivered
from ..jobs import GiveUp, Job, Run, Snooze
from ..outcome import Retry
from ..source import Heard, Known, Page, Poll, Polled, Source, SourceScope, State, Unfit

Text: TypeAlias = Annotated[str, BeforeValidator(str)]  # `full=true` arrives as true
SHORTEST_WAIT_S = 5.0
RAW_BYTES = 64 * 1024


class PollSettings(Settings):
    """The settings of every poll; those of one source's poll come on top."""

    dry_run: bool = Field(default=False, description="Count what would be taken in, and take nothing.")


class PollJob(Job[PollSettings]):
    """Asks one source for one thing. `scope` makes what asking may touch, from a run's options."""

    kind = "poll"

    def __init__(
        self,
        source: str,
        polled: Polled[Any],
        poll: Poll,
        feed: Feed,
        scope: Callable[[dict[str, str]], SourceScope],
    ) -> None:
        self.about = poll.about  # type: ignore[misc]  # each poll has its own sentence
        self.Settings = _settings(poll)  # type: ignore[misc]  # and its own options
        self._name = f"{source}.{poll.name}"
        self._polled = polled
        self._poll = poll
        self._feed = feed
        self._scope = scope

    @property
    def name(self) -> str:
        """`<source>.<poll>`."""
        return self._name

    async def run(self, run: Run[PollSettings]) -> None:
        """Take in page after page; each page's state is the checkpoint."""
        given = {name: str(value) for name, value in run.settings.model_dump().items() if value}
        given.pop("dry_run", None)
        try:
            async for page in self._polled.pages(self._poll.name, run.checkpoint or {}, self._scope(given)):
                fed = await self._take(page, dry=run.settings.dry_run)
                _note(run, page, fed)
                await run.save(page.state, done=run.state.done + len(page.items), total=page.total)
        except Undelivered as error:
            raise _ending(error) from error
        except TowpathError as error:
            raise GiveUp(f"{error.title}; {error.fix}") from error
        counts = run.state.counts
        did = "would be" if run.settings.dry_run else "were"
        run.log(f"{counts.read} read; {counts.written} messages {did} taken in; {counts.skipped} ignored")

    async def _take(self, page: Page, *, dry: bool) -> Fed:
        if dry:
            return await self._feed.rehearse(partial(_heard, self._polled, page))
        return await take(self._feed, self._polled, page)


async def take(feed: Feed, source: Source[Any], page: Page, *, state: State | None = None) -> Fed:
    """Take a page in; where towpath fails to read it item by item, the one at fault as a dead letter.

    A listener's `state` is kept with the last of it.
    """
    try:
        return await feed.take(partial(_heard, source, page), state=state)
    except Unmade as error:
        if len(page.items) == 1:
            letter = Unfit("unforeseen", f"towpath failed to read this: {error}", _raw(page.items[0]))
            return await feed.take(lambda _: (letter,), state=state)
    whole = Fed()
    for item in page.items:
        part = await take(feed, source, msgspec.structs.replace(page, items=[item]))
        whole.messages += part.messages
        whole.unfit += part.unfit
        whole.ignored = Counter(whole.ignored) + Counter(part.ignored)
    if state is not None:
        await feed.take(lambda _: (), state=state)
    return whole


def _heard(source: Source[Any], page: Page, known: Known) -> Iterable[Heard]:
    return source.heard(page, known) if isinstance(source, Polled) else ()


def _raw(item: Any) -> bytes:
    return msgspec.json.encode(item, enc_hook=str)[:RAW_BYTES]


def _note(run: Run[PollSettings], page: Page, fed: Fed) -> None:
    ignored = sum(fed.ignored.values())
    run.count(read=len(page.items), written=fed.messages, skipped=ignored, failed=fed.unfit)
    if fed.unfit:
        where = (
            "; nothing is kept of a dry run" if run.settings.dry_run else "; see  towpath dlq list --refused"
        )
        run.log(f"{fed.unfit} cannot be taken in{where}", "warning")


def _ending(error: Undelivered) -> Exception:
    """What a job does after a request that failed: go on when it may, try again, or give up."""
    outcome = error.outcome
    reason = getattr(outcome, "reason", "")
    if not isinstance(outcome, Retry):
        return GiveUp(reason)
    return Snooze(max(outcome.after_s, SHORTEST_WAIT_S), reason) if outcome.after_s else error


def _settings(poll: Poll) -> type[PollSettings]:
    fields: dict[str, Any] = {
        name: (Text, Field(default="", description=about)) for name, about in poll.options.items()
    }
    return create_model("PollSettings", __base__=PollSettings, **fields)
