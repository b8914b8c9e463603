"""`towpath replicate` as people use it: against a simulated workspace, into a DuckDB file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.customerio_seed import populate
from towpath.sandbox.serve import serve

from .support import Shell, served

CONFIG = """\
version: 1
storage: ./data
server: {{listen: "127.0.0.1:0"}}
accounts:
  cio: {{type: customerio, app_api_key: {key}, base_url: "{url}"}}
  wh: {{type: warehouse, duckdb: ./wh.duckdb}}
replications:
  copy: {{from: cio, to: wh, tables: {tables}{more}}}
"""
LISTS = "[campaigns, segments, snippets]"


class Workspace:
    """A simulated workspace that answers in a thread of its own."""

    def __init__(self, simulator: CustomerIoSimulator, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.simulator = simulator
        self.state = simulator.state
        self.url = url
        self._loop = loop

    def asked(self, path: str) -> int:
        """How many requests came for a path."""
        return sum(one.path == path for one in list(self.simulator.requests))

    def configure(self, directory: Path, tables: str = LISTS, more: str = "", key: str = "") -> Path:
        file = directory / "towpath.yaml"
        key = key or DEFAULT.app_api_key
        file.write_text(CONFIG.format(key=key, url=self.url, tables=tables, more=more))
        return file


@contextmanager
def workspace(**sizes: int) -> Iterator[Workspace]:
    simulator = CustomerIoSimulator(app_per_s=10_000)
    populate(simulator, seed=1, **sizes)
    ready, ended, found = threading.Event(), list[asyncio.Event](), list[Workspace]()

    async def work() -> None:
        async with serve(simulator) as url:
            ended.append(asyncio.Event())
            found.append(Workspace(simulator, url, asyncio.get_running_loop()))
            ready.set()
            await ended[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        found[0]._loop.call_soon_threadsafe(ended[0].set)
        thread.join(30)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cio() -> Iterator[Workspace]:
    with workspace() as found:
        yield found


def rows(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the file, as soon as the server has closed it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with duckdb.connect(str(directory / "wh.duckdb"), read_only=True) as connection:
                return connection.sql(sql).fetchall()
        except duckdb.IOException as error:
            if "lock" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


@pytest.mark.spec("R004", "R007")
def test_discover_shows_tables_columns_and_keys(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place, "[messages, topics, messages]")
    found = shell("replicate", "discover", "--json").json()
    assert [row["table"] for row in found] == ["transactional_messages", "subscription_topics", "messages"]
    assert found[2]["key"] == ["id"]
    assert {"column": "id", "kind": "text"}.items() <= found[2]["columns"][0].items()
    assert "topics" in found[1]["also_called"]
    assert "subscription_topics" in shell("replicate", "discover", "topics").out
    columns = shell("replicate", "discover", "messages", "--columns").out
    assert "recipient" in columns


@pytest.mark.spec("R005")
def test_rights_are_asked_table_by_table(shell: Shell, place: Path) -> None:
    with workspace() as cio:
        cio.configure(place)
        cio.state.forbidden.add("/v1/segments")
        said = shell("replicate", "discover", "--check", "--json")
        assert said.code == 1
        assert {line["table"]: line["ok"] for line in said.json()} == {
            "campaigns": True,
            "segments": False,
            "snippets": True,
        }
        run = shell("replicate", "run", "--json")
        assert run.code == 1
        assert "segments" in run.json()["error"]
        assert rows(place, "select count(*) from campaigns") == [(len(cio.state.campaigns),)]


@pytest.mark.spec("R041", "R044", "R046")
def test_a_run_a_second_run_and_what_is_said_of_them(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place)
    plan = shell("replicate", "plan", "--json").json()
    assert plan["requests"] >= 3
    first = shell("replicate", "run", "--json").json()
    assert first["state"] == "succeeded"
    assert first["counts"]["written"] == first["counts"]["read"] > 0
    assert {part["part"]: part["ended"] for part in first["parts"]} == dict.fromkeys(
        ("campaigns", "segments", "snippets"), True
    )
    again = shell("replicate", "run", "--json").json()
    assert (again["state"], again["counts"]["written"]) == ("succeeded", 0)
    status = shell("replicate", "status", "--json").json()
    counted = {line["table"]: line["rows"] for line in status["tables"]}
    assert counted["campaigns"] == len(cio.state.campaigns)
    assert all(line["loaded_at"] and line["read_at"] for line in status["tables"])
    assert "wh.duckdb" in shell("replicate", "status").out


@pytest.mark.spec("R043")
def test_too_many_gone_at_once_wait_for_a_person(shell: Shell, place: Path) -> None:
    with workspace() as cio:
        cio.configure(place, "[snippets]")
        shell("replicate", "run")
        cio.state.snippets.clear()
        held = shell("replicate", "run", "--json")
        assert held.code == 1
        assert "snippets" in held.json()["error"]
        assert rows(place, "select count(*) from snippets where _deleted_at is not null") == [(0,)]
        agreed = shell("replicate", "run", "--accept-deletes", "--json")
        assert agreed.code == 0
        assert rows(place, "select count(*) from snippets where _deleted_at is null") == [(0,)]


@pytest.mark.spec("R050")
def test_the_state_is_shown_set_and_reset(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place)
    shell("replicate", "run")
    set_to = shell("replicate", "state", "set", "segments", "01/31/2025", "--json").json()
    assert set_to == {"table": "segments", "cursor": "2025-01-31T00:00:00.000Z"}
    kept = {row["key"]: row["value"] for row in shell("replicate", "state", "show", "--json").json()}
    assert json.loads(kept["copy/cio/segments/cursor"]) == 1738281600.0
    assert "E4433" in shell("replicate", "state", "set", "segments", "2999-01-01").err
    assert "E4431" in shell("replicate", "state", "set", "segmnts", "2025-01-01").err
    shell("replicate", "reset", "segments", "--keep-rows")
    assert rows(place, "select count(*) from segments")[0][0] > 0
    shell("replicate", "reset", "segments", "--yes")
    assert rows(place, "select count(*) from segments") == [(0,)]
    assert shell("replicate", "run", "--json").json()["counts"]["written"] > 0


@pytest.mark.spec("R050")
def test_a_span_of_time_is_read_again_without_moving_the_cursor(
    shell: Shell, place: Path, cio: Workspace
) -> None:
    cio.configure(place)
    shell("replicate", "run")
    before = shell("replicate", "state", "show", "--json").json()
    span = ("--from", "01/01/2025", "--to", "2026-01-01")
    said = shell("replicate", "backfill", "segments", *span, "--json").json()
    assert said["state"] == "succeeded"
    cursors = [row for row in before if row["key"].endswith("/cursor")]
    after = shell("replicate", "state", "show", "--json").json()
    assert [row for row in after if row["key"].endswith("/cursor")] == cursors
    assert (
        "E4433"
        in shell("replicate", "backfill", "segments", "--from", "2026-01-01", "--to", "2025-01-01").err
    )


@pytest.mark.spec("R050")
def test_everything_is_read_again_where_that_is_asked(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place, "[activities]")
    first, usual, full = (
        shell("replicate", "run", *words, "--json").json()["counts"] for words in ((), (), ("--full",))
    )
    assert usual["read"] < first["read"] == full["read"]
    assert (usual["written"], full["written"]) == (0, 0)


def test_another_tools_state_is_taken_over(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place, "[campaigns, segments]")
    state = {"bookmarks": {"campaigns": {"updated": "2025-03-01T00:00:00Z"}, "nothing": {"x": 1}}}
    (place / "state.json").write_text(json.dumps(state))
    tried = shell("replicate", "import-state", "state.json", "--dry-run", "--json").json()
    assert tried["cursors"] == [{"table": "campaigns", "cursor": "2025-03-01T00:00:00.000Z"}]
    assert shell("replicate", "state", "show", "--json").json() == []
    shell("replicate", "import-state", "-", stdin=json.dumps(state))
    kept = shell("replicate", "state", "show", "--json").json()
    assert [row["key"] for row in kept] == ["copy/cio/campaigns/cursor"]
    assert shell("replicate", "import-state", "state.yaml").code == 2


@pytest.mark.spec("R055")
def test_models_are_views_over_what_was_read(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place, "{messages: {start_date: 2026-10-01}, campaigns: {}, newsletters: {}}")
    assert "create or replace view" in shell("replicate", "models", "--sql").out.lower()
    shell("replicate", "run", "messages")
    made = {row["view"]: row["made"] for row in shell("replicate", "models", "--json").json()}
    assert made["deliveries"]
    delivered = rows(place, "select count(*) from deliveries")
    assert delivered == rows(place, "select count(*) from messages")


def test_what_is_meant_has_to_be_clear(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place)
    assert "E4431" in shell("replicate", "run", "nothing").err
    assert "E4431" in shell("replicate", "status", "--replication", "other").err
    file = cio.configure(place)
    file.write_text(file.read_text() + "  second: {from: cio, to: wh, tables: [topics]}\n")
    assert "E4432" in shell("replicate", "status").err
    file.write_text("version: 1\nstorage: ./data\n")
    assert "replications:" in shell("replicate", "run").err


@pytest.mark.spec("R001")
def test_a_key_that_is_refused_is_said_and_never_shown(shell: Shell, place: Path, cio: Workspace) -> None:
    cio.configure(place, key="a-wrong-key-0123456789")
    said = shell("replicate", "run", "--json")
    assert said.code == 1
    assert "401" in said.json()["error"]
    assert "a-wrong-key" not in said.out + said.err


@pytest.mark.spec("R044")
def test_killed_in_the_middle_it_goes_on_from_the_last_page(place: Path, tmp_path: Path) -> None:
    """The command itself is killed, its loading process with it; nothing is lost, nothing is twice."""
    with workspace(newsletters=900, people=10, messages=10) as cio:
        file = cio.configure(place, "[newsletters]")
        environment = {**os.environ, "TOWPATH_KEY_FILE": str(tmp_path / "key")}
        command = [sys.executable, "-m", "towpath", "replicate", "run", "--config", str(file), "--json"]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while cio.asked("/v1/newsletters") < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        said = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
        assert said.returncode == 0, said.stderr
        assert rows(place, "select count(*), count(distinct id) from newsletters") == [(900, 900)]
        again = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
        assert json.loads(again.stdout)["counts"]["written"] == 0


@pytest.mark.spec("R006", "R051")
def test_a_server_replicates_on_schedule_and_erases_everywhere(shell: Shell, place: Path) -> None:
    with workspace() as cio:
        text = CONFIG.format(
            key=DEFAULT.app_api_key,
            url=cio.url,
            tables="{customers: {every: 30m}, snippets: {}}",
            more=", every: 1h",
        )
        escaped = text.replace("{", "{{").replace("}", "}}")
        with served(place, escaped) as server:
            config = ("--config", str(server.file))
            line = next(
                row
                for row in shell("jobs", "list", "--json", *config).json()
                if row["job"] == "copy.replicate"
            )
            assert line["schedule"] == "every 1h"
            followed = shell("jobs", "run", "copy.replicate.customers", "--follow", *config)
            assert "succeeded" in followed.out, followed
            ids = "select coalesce(id, ''), cio_id from customers where id is not null order by id limit 1"
            (person, cio_id) = rows(server.file.parent, ids)[0]
            erased = shell("people", "erase", person, "--yes", "--json", *config).json()
            (where,) = erased["warehouses"].values()
            assert where["customers"] == 1
            left = rows(server.file.parent, f"select count(*) from customers where cio_id = '{cio_id}'")
            assert left == [(0,)]
