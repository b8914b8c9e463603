"""A transform in its process (D24): what it returns, and every way it can fail, with real children."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from towpath import transforming
from towpath.message import Message
from towpath.transform import Made, ProcessTransform

FUNCTION = """
import os, sys, time

LEFT = {left!r}

def change(message):
    print("this is no answer")
    event = message.get("event")
    if event == "slow":
        time.sleep(60)
    if event == "dies":
        os._exit(3)
    if event == "leaves":
        sys.exit("gone")
    if event == "raises":
        raise ValueError("not this one")
    if event == "nothing":
        return None
    if event == "several":
        return [message, {{**message, "event": "second", "userId": "eve", "anonymousId": None}}]
    if event == "number":
        return 5
    if event == "typeless":
        return {{"event": "x"}}
    if event == "odd":
        return {{"type": "track", "event": {{1: object()}}}}
    if event == "large":
        return {{**message, "event": "x" * 2_000_000}}
    if event == "many":
        return [message] * 101
    if event == "junk":
        for number in range(3, 10):
            try:
                os.write(number, b"\\xff\\xff\\xff\\xff junk")
            except OSError:
                pass
        return message
    message["properties"] = {{"source": message["source"], "trust": message["trust"], "left": LEFT}}
    message["source"] = "elsewhere"
    return message
"""


def write(directory: Path, left: int = 0) -> None:
    (directory / "shop.py").write_text(FUNCTION.format(left=left))


def message(event: str) -> Message:
    return Message(
        type="track", message_id=event, user_id="ann", event=event, source="web", received_at=1.7e9
    )


@asynccontextmanager
async def running(directory: Path, timeout_s: float = 5.0) -> AsyncIterator[ProcessTransform]:
    found = ProcessTransform("shop:change", directory, timeout_s)
    try:
        yield found
    finally:
        await found.close()


async def make(transform: ProcessTransform, *events: str) -> list[Made]:
    return list(await transform.make([message(event) for event in events]))


def pid(transform: ProcessTransform) -> int:
    process = transform._process
    assert process is not None
    return process.pid


@pytest.mark.spec("D24")
async def test_what_it_returns_is_sent_for_its_person(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as transform:
        plain, none, several = await make(transform, "plain", "nothing", "several")
    (made,) = plain.messages
    assert made.properties == {"source": "web", "trust": "client", "left": 0}
    assert (made.source, made.message_id, made.received_at) == ("web", "plain", 1.7e9)
    assert none == Made([], [])
    assert [(each.message_id, each.event) for each in several.messages] == [
        ("several", "several"), ("several-1", "second"),
    ]  # fmt: skip
    assert {each.user_id for each in several.messages} == {"ann"}
    assert several.reports == ["the transform changed userId, which stays the message's own"]


FAILURES = {
    "raises": "ValueError: not this one (shop.py:",
    "leaves": "SystemExit: gone",
    "dies": "its process ended",
    "number": "it returned int; a transform returns a dict, a list of dicts or None",
    "typeless": "the type '' is none of",
    "odd": "TypeError",
    "large": "at most 1,048,576 are taken",
    "many": "it returned 101 messages; at most 100 are taken",
    "junk": "something else than an answer",
}


@pytest.mark.spec("D24")
async def test_every_failure_is_one_messages_own(tmp_path: Path) -> None:
    write(tmp_path)
    events = [event for failing in FAILURES for event in ("plain", failing)]
    async with running(tmp_path) as transform:
        made = await make(transform, *events, "plain")
    for event, each in zip([*events, "plain"], made, strict=True):
        assert FAILURES.get(event, "") in each.failure, event
        assert bool(each.messages) is (event == "plain")


@pytest.mark.spec("D24")
async def test_what_takes_too_long_is_stopped_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path, 0.5) as transform:
        await make(transform, "plain")
        first = pid(transform)
        slow, after = await make(transform, "slow", "plain")
        assert slow.failure == "the transform shop:change failed: it took longer than 0.5 s and was stopped"
        assert after.messages
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)


@pytest.mark.spec("D24")
async def test_a_child_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as transform:
        await make(transform, "plain")
        os.kill(pid(transform), signal.SIGKILL)
        (found,) = await make(transform, "plain")
        (again,) = await make(transform, "plain")
    assert found.messages or "ended" in found.failure
    assert again.messages


@pytest.mark.spec("D24")
async def test_a_call_that_is_given_up_answers_nobody_else(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as transform:
        await make(transform, "plain")
        waiting = asyncio.create_task(make(transform, "slow", "several"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        (found,) = await make(transform, "plain")
    assert [each.event for each in found.messages] == ["plain"]


@pytest.mark.spec("D24")
async def test_a_new_process_has_the_code_as_it_is_then(tmp_path: Path) -> None:
    write(tmp_path, left=1)
    async with running(tmp_path) as transform:
        (old,) = await make(transform, "plain")
        write(tmp_path, left=2)
        await transform.close()
        (new,) = await make(transform, "plain")
    assert [each.messages[0].properties["left"] for each in (old, new)] == [1, 2]


@pytest.mark.spec("D24")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library' (shop.py:1)"),
        ("1 / 0", "ZeroDivisionError"),
        ("change = 5", "TypeError: change in shop is not a function"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("import os; os._exit(1)", "its process ended"),
    ],
)
async def test_what_cannot_be_loaded_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "shop.py").write_text(text)
    async with running(tmp_path) as transform:
        made = await make(transform, "plain", "plain")
    for each in made:
        assert each.failure.startswith("the transform shop:change cannot be loaded: ")
        assert said in each.failure


async def test_many_large_messages_do_not_fill_the_pipes(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "shop.py").write_text("def change(message):\n    return message\n")
    large = Message(type="track", message_id="m", user_id="ann", event="x" * 60_000, received_at=1.7e9)
    async with running(tmp_path) as transform:
        made = await transform.make([large] * 100)
    assert all(each.messages == [large] or each.messages[0].event == large.event for each in made)


@pytest.mark.parametrize("returned", [{"a": 1}, [], [{}], None])
def test_dicts_lists_and_none_are_taken(returned: object) -> None:
    assert isinstance(transforming.fitting(returned), list)


@pytest.mark.parametrize("returned", [5, "x", [1], ({},), [{}, None]])
def test_anything_else_is_not(returned: object) -> None:
    with pytest.raises(transforming.Unfit):
        transforming.fitting(returned)


def test_times_and_origin_are_not_for_the_function_to_say() -> None:
    given: Callable[[object], object] = transforming.fitting
    assert given({"type": "track", "source": "x", "trust": "server", "receivedAt": 5}) == [{"type": "track"}]
