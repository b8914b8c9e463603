"""`towpath connectors install fcm`: from a key file to a campaign, without and with a server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from towpath.sandbox.fcm import ELSEWHERE, FcmSimulator
from towpath.sandbox.google import service_account
from towpath.sandbox.serve import serve
from towpath.secrets import stored

from ..app.support import HOOK
from .support import Shell, served

INSTALL = ("connectors", "install", "fcm")


class Vendor(Struct):
    """An FCM beside the test, and the key file of its project's account."""

    fcm: FcmSimulator
    url: str
    key: Path

    @property
    def words(self) -> tuple[str, ...]:
        return (*INSTALL, "--key", str(self.key), "--base-url", self.url)


@contextmanager
def running(fcm: FcmSimulator, directory: Path) -> Iterator[Vendor]:
    """Serve it from a thread of its own."""
    ready, urls = threading.Event(), list[str]()
    loops, stops = list[asyncio.AbstractEventLoop](), list[asyncio.Event]()

    async def run() -> None:
        async with serve(fcm) as url:
            urls.append(url)
            loops.append(asyncio.get_running_loop())
            stops.append(asyncio.Event())
            ready.set()
            await stops[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(30)
    key = directory / "key.json"
    key.write_text(fcm.account(urls[0]))
    try:
        yield Vendor(fcm, urls[0], key)
    finally:
        loops[0].call_soon_threadsafe(stops[0].set)
        thread.join(30)


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FCM_SERVICE_ACCOUNT", raising=False)


@pytest.fixture
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with running(FcmSimulator(), tmp_path_factory.mktemp("fcm")) as found:
        yield found


@pytest.mark.spec("P003", "P010", "P057", "D08")
def test_a_key_is_tried_and_kept_and_put_to_use(shell: Shell, vendor: Vendor, tmp_path: Path) -> None:
    said = shell(*vendor.words)
    assert said.code == 0, said.err
    assert f"in the project {vendor.fcm.project}: it may send" in said.out
    assert "Register Push" in said.out
    assert "30 to 45 days" in said.out
    assert (vendor.fcm.state.validated, vendor.fcm.state.accepted) == (1, [])
    text = Path("towpath.yaml").read_text()
    assert 'service_account: "${secret:app_service_account}"' in text
    assert "push:\n  account: app\n" in text
    private = json.loads(vendor.key.read_text())["private_key"]
    assert private.splitlines()[1] not in text + said.out + said.err
    assert stored(tmp_path / "data") == {"app_service_account": vendor.key.read_text()}
    assert shell("validate").code == 0


@pytest.mark.spec("P003", "P055", "E031")
def test_a_running_server_sends_with_it_at_once(shell: Shell, vendor: Vendor, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        said = shell(*vendor.words, "--json")
        assert said.code == 0, said.err
        told = said.json()
        assert told["in_force"] is True
        assert told["wrote"] == ["accounts.app", "push.account"]
        assert (told["project"], told["tested"]) == (vendor.fcm.project, True)
        assert server.running.app.config.push is not None
        assert shell("push", "status", "--json").json()["project"] == vendor.fcm.project
        line = {"deviceId": "d1", "fcmToken": "ok-1", "deviceType": "iOS"}
        assert shell("push", "devices", "import", "-", stdin=json.dumps(line)).code == 0
        sent = shell("push", "send", "first", "--title", "Hello", "--dry-run", "--json").json()
        assert [one["verdict"] for one in sent["verdicts"]] == ["accepted"]
        followed = shell("push", "send", "first", "--title", "Hello", "--follow")
        assert followed.code == 0, followed.err
        assert "done" in followed.out
        again = shell("push", "campaigns", "show", "1", "--follow", "--json")
        ended = json.loads(again.out.splitlines()[-1])
        assert (ended["state"], ended["accepted"], len(ended["runs"])) == ("done", 1, 1)


@pytest.mark.spec("P003", "P053")
def test_a_key_of_another_project_writes_nothing(shell: Shell, vendor: Vendor, tmp_path: Path) -> None:
    vendor.key.write_text(service_account(vendor.url, project=ELSEWHERE))
    said = shell(*vendor.words, "--project", vendor.fcm.project)
    assert (said.code, "E2412" in said.err) == (4, True)
    assert "role" in said.err
    assert "Nothing was written" in said.err
    assert not list(tmp_path.iterdir())


def test_where_nothing_answers_nothing_is_written_unless_asked(
    shell: Shell, vendor: Vendor, tmp_path: Path
) -> None:
    nowhere = (*INSTALL, "--key", str(vendor.key), "--base-url", "http://127.0.0.1:9")
    said = shell(*nowhere)
    assert (said.code, "E2413" in said.err) == (1, True)
    assert not list(tmp_path.iterdir())
    said = shell(*nowhere, "--no-test")
    assert said.code == 0, said.err
    assert "it may send" not in said.out


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", "E2408"), ("[]", "E2408"), ('{"client_email": "a@b", "private_key": "x"}', "E2408")],
)
def test_a_file_that_is_no_key_is_refused_before_anything_is_asked(
    shell: Shell, vendor: Vendor, tmp_path: Path, text: str, code: str
) -> None:
    vendor.key.write_text(text)
    said = shell(*vendor.words)
    assert (said.code, code in said.err) == (1, True)
    assert not vendor.fcm.requests
    assert not list(tmp_path.iterdir())


def test_a_key_without_a_project_needs_one(shell: Shell, vendor: Vendor) -> None:
    vendor.key.write_text(service_account(vendor.url, project=""))
    said = shell(*vendor.words)
    assert (said.code, "--project" in said.err) == (1, True)


def test_the_key_can_come_by_a_variable_or_a_line_and_is_missed_without(
    shell: Shell, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = (*INSTALL, "--base-url", vendor.url)
    said = shell(*bare)
    assert (said.code, "FCM_SERVICE_ACCOUNT" in said.err) == (2, True)
    assert shell(*bare, stdin=f"FCM_SERVICE_ACCOUNT={vendor.key}\n").code == 0
    monkeypatch.setenv("FCM_SERVICE_ACCOUNT", str(vendor.key))
    assert shell(*bare, "--replace").code == 0


@pytest.mark.spec("D23")
def test_what_stands_in_the_file_stays(shell: Shell, vendor: Vendor) -> None:
    before = (
        "# mine\nversion: 1\nsources:\n  app: {type: segment, write_keys: [wk]}\n"
        "push:\n  stale_after: 30d   # stricter\n  campaigns:\n    hello: {title: Hi}\n"
    )
    Path("towpath.yaml").write_text(before)
    assert shell(*vendor.words).code == 0
    text = Path("towpath.yaml").read_text()
    assert text.startswith(before.rstrip() + "\n  account: app\n")
    again = shell(*vendor.words, "--name", "other")
    assert (again.code, "push.account" in again.err, "E2403" in again.err) == (1, True, True)
    assert Path("towpath.yaml").read_text() == text
    changed = shell(*vendor.words, "--name", "other", "--replace")
    assert changed.code == 0, changed.err
    assert "account: other" in Path("towpath.yaml").read_text()
    assert "write key" not in changed.out
