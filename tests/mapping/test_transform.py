"""A transform in its process (D24): what it returns, and every way it can fail, with real children."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from towpath import transforming
from towpath.connection import Connection
from towpath.destinations.webhook import Webhook
from towpath.message import Message
from towpath.preview import preview
from towpath.transform import Made, ProcessTransform

FUNCTION = """
import os, subprocess, sys, time

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
    if event == "forks":
        os.fork()
        return {{**message, "properties": {{"of": message["userId"]}}}}
    if event == "says whose":
        return {{**message, "properties": {{"of": message["userId"]}}}}
    if event == "raises":
        raise ValueError("not this one")
    if event == "nothing":
        return None
    if event == "several":
        return [message, {{**message, "event": "second", "userId": "eve", "anonymousId": None}}]
    if event == "environment":
        return {{**message, "properties": dict(os.environ)}}
    if event == "hungry":
        bytearray(8 << 30)
    if event == "starts":
        started = subprocess.Popen(["sleep", "600"])
        return {{**message, "properties": {{"pid": started.pid}}}}
    if event == "starts and hangs":
        with open(message["messageId"], "w") as file:
            file.write(str(subprocess.Popen(["sleep", "600"]).pid))
        time.sleep(60)
    if event in ("delete", "alias"):
        return {{"type": event, "userId": message["userId"], "previousId": "bob"}}
    if event == "previous":
        return {{**message, "previousId": "bob"}}
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
    return await every(transform, [message(event) for event in events])


async def every(transform: ProcessTransform, messages: list[Message]) -> list[Made]:
    """What becomes of each message, also behind one that stops the process."""
    made: list[Made] = []
    while len(made) < len(messages):
        made += await transform.make(messages[len(made) :])
    return made


def pid(transform: ProcessTransform) -> int:
    process = transform._child._process
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
    "raises": "the transform failed: ValueError (shop.py:",
    "leaves": "SystemExit (shop.py:",
    "dies": "its process ended",
    "number": "it returned int; a transform returns a dict, a list of dicts or None",
    "typeless": "its type is none of",
    "odd": "it returned what JSON cannot hold (TypeError)",
    "large": "it returned a message of 2,000,",
    "delete": "it turned track into delete; nothing else becomes that",
    "alias": "it turned track into alias; nothing else becomes that",
    "hungry": "MemoryError (shop.py:",
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


@pytest.mark.spec("D08", "D24")
async def test_what_an_error_quotes_of_the_message_is_for_the_one_who_tries_it_out(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def change(message):\n    raise ValueError(message['event'])\n")
    async with running(tmp_path) as transform:
        (made,) = await make(transform, "ann@example.com")
    assert made.failure == "the transform failed: ValueError (shop.py:2)"
    assert made.detail == "the transform failed: ValueError: ann@example.com (shop.py:2)"


@pytest.mark.spec("D08", "D24")
async def test_a_preview_quotes_what_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def change(message):\n    raise ValueError(message['event'])\n")
    settings = {"url": "https://example.com/", "secret": "whsec_dGhpcy1pcy1uby1zZWNyZXQtYXQtYWxsLi4u"}
    hook = Webhook(Webhook.Settings.model_validate(settings))
    async with running(tmp_path) as transform:
        connection = Connection(
            name="c", sources=frozenset({"web"}), destination_name="hook", destination=hook,
            transform=transform,
        )  # fmt: skip
        said = await preview(connection, b'{"type": "track", "userId": "u1", "event": "ann@example.com"}')
    assert "ValueError: ann@example.com (shop.py:2)" in said["reason"]


@pytest.mark.spec("D24", "P4")
async def test_whoever_stopped_it_runs_apart_until_one_of_theirs_has_passed(tmp_path: Path) -> None:
    write(tmp_path)
    bob = Message(type="track", message_id="b", user_id="bob", event="plain", source="web", received_at=1.7e9)
    async with running(tmp_path, 0.5) as transform:
        (slow,) = await transform.make([message("slow"), message("plain")])  # it ends with the one that hung
        assert slow.stopped
        assert transform.suspect(message("plain"))
        assert not transform.suspect(bob)
        await transform.make([bob])
        others = pid(transform)
        hanging = asyncio.create_task(transform.make([message("slow")]))
        await asyncio.sleep(0)
        (made,) = await transform.make([bob])
        assert made.messages
        assert not hanging.done()
        await hanging
        assert pid(transform) == others  # it lives: the other one was stopped
        await make(transform, "plain")
        assert not transform.suspect(message("plain"))


async def test_only_so_many_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.transform.SUSPECTS_MAX", 2)
    transform = ProcessTransform("shop:change", tmp_path)
    people = [Message(type="track", user_id=name) for name in ("ann", "bob", "cid")]
    for each in people:
        transform._note(each, stopped=True)
    assert [transform.suspect(each) for each in people] == [False, True, True]


@pytest.mark.spec("D24")
async def test_what_the_function_started_ends_with_it(tmp_path: Path) -> None:
    write(tmp_path)
    note = tmp_path / "note"
    hangs = msgspec.structs.replace(message("starts and hangs"), message_id=str(note))
    async with running(tmp_path, 1.0) as transform:
        (stopped,) = await transform.make([hangs])
        assert stopped.stopped
        await gone(int(note.read_text()))
    async with running(tmp_path) as transform:
        (made,) = await make(transform, "starts")
        left = made.messages[0].properties["pid"]
        os.kill(left, 0)
    await gone(left)


async def gone(process: int) -> None:
    """Wait until a process that is not our child has been killed; a zombie nobody waits for counts."""
    for _ in range(1000):
        if state_of(process) in ("", "Z"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{process} still runs")


def state_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.spec("D09", "D24")
async def test_it_sees_of_the_environment_only_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    for name, value in {"VENDOR_KEY": "secret", "SHOP_URL": "here", "LC_TIME": "C", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    transform = ProcessTransform("shop:change", tmp_path, 5.0, ["SHOP_URL"])
    try:
        (made,) = await make(transform, "environment")
    finally:
        await transform.close()
    seen = made.messages[0].properties
    assert (seen["SHOP_URL"], seen["LC_TIME"], seen["TZ"]) == ("here", "C", "UTC")
    assert "PATH" in seen
    assert "VENDOR_KEY" not in seen


@pytest.mark.spec("D13", "D24")
async def test_it_merges_nobody(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as transform:
        (track,) = await make(transform, "previous")
        own = msgspec.structs.replace(message("previous"), type="alias", previous_id="ann's phone")
        (alias,) = await transform.make([own])
    assert [each.messages[0].previous_id for each in (track, alias)] == [None, "ann's phone"]
    assert track.reports == ["the transform changed previousId, which stays the message's own"]


@pytest.mark.spec("D10", "D24")
async def test_a_delete_passes_by_it(tmp_path: Path) -> None:
    write(tmp_path)
    gone = Message(type="delete", message_id="d", user_id="ann", event="nothing", received_at=1.7e9)
    async with running(tmp_path) as transform:
        made = await transform.make([message("plain"), gone, message("nothing"), gone])
        alone = await transform.make([gone])
        slow = message("dies")
        short = await transform.make([gone, slow, gone, message("plain")])
    assert [list(each.messages) for each in made[1:]] == [[gone], [], [gone]]
    assert list(alone) == [Made([gone])]
    assert [each.stopped for each in short] == [False, True, False]


@pytest.mark.spec("D24")
@pytest.mark.parametrize(
    ("factor", "taken"), [(1, True), (2, False)], ids=["as large as the one it is made of", "larger"]
)
async def test_a_made_message_may_be_as_large_as_the_one_it_is_made_of(
    tmp_path: Path, factor: int, *, taken: bool
) -> None:
    text = f"def change(message):\n    return {{**message, 'event': message['event'] * {factor}}}\n"
    (tmp_path / "shop.py").write_text(text)
    async with running(tmp_path) as transform:
        large, small = await transform.make([message("x" * 100_000), message("x" * 20_000)])
    assert bool(large.messages) is taken
    assert large.final is not taken
    assert small.messages


@pytest.mark.spec("D24")
async def test_all_that_is_made_of_one_is_bounded(tmp_path: Path) -> None:
    text = "def change(message):\n    return [{**message, 'event': 'x' * 60_000}] * 20\n"
    (tmp_path / "shop.py").write_text(text)
    async with running(tmp_path) as transform:
        (made,) = await make(transform, "many")
    assert "at most 1,048,576 are taken" in made.failure
    assert made.final


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


@pytest.mark.spec("D24", "P9")
async def test_a_copy_that_the_function_forks_answers_nothing(tmp_path: Path) -> None:
    """Else each later person's message would be sent with what was made of another one's."""
    write(tmp_path)
    events = ["says whose", "forks", "says whose", "says whose", "says whose"]
    people = [msgspec.structs.replace(message(event), user_id=f"u{n}") for n, event in enumerate(events)]
    async with running(tmp_path) as transform:
        first = await every(transform, people)
        again = await every(transform, people[2:])
    assert [each.messages[0].properties for each in first] == [{"of": f"u{n}"} for n in range(5)]
    assert [each.messages[0].properties for each in again] == [{"of": f"u{n}"} for n in range(2, 5)]


async def test_a_pipe_that_breaks_while_handing_over_is_one_failure(tmp_path: Path) -> None:
    write(tmp_path)
    async with running(tmp_path) as transform:
        await make(transform, "plain")
        process = transform._child._process
        assert process is not None
        assert process.stdin is not None

        def broken(_: object) -> None:
            raise RuntimeError("unable to perform operation on <WriteUnixTransport closed=True>")

        process.stdin.writelines = broken  # type: ignore[method-assign,assignment]
        (failed,) = await make(transform, "plain")
        assert "its process ended" in failed.failure
        (made,) = await make(transform, "plain")
        assert made.messages


def test_a_child_whose_server_was_killed_ends_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "quiet.py").write_text("def same(message):\n    return message\n")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "towpath.transforming", "quiet:same", str(tmp_path)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
