"""`towpath connectors install`: from credentials to a tested destination, without and with a server."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from towpath.cli.asking import Asking
from towpath.errors import TowpathError
from towpath.sandbox.customerio import CustomerIoSimulator
from towpath.sandbox.serve import serve
from towpath.secrets import stored

from ..app.support import HOOK
from ..install.account import ACCOUNT, PRIVATE_KEY
from .support import Said, Shell, served

KEYS = {
    "CUSTOMERIO_SITE_ID": "sandbox-site",
    "CUSTOMERIO_TRACK_API_KEY": "sandbox-track-key",
    "CUSTOMERIO_APP_API_KEY": "sandbox-app-key",
    "CUSTOMERIO_SIGNING_KEY": "sandbox-signing-key",
}
PIPED = "".join(f"{name}={value}\n" for name, value in KEYS.items())
SECRETS = [value for name, value in KEYS.items() if name != "CUSTOMERIO_SITE_ID"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("PROJECT", "SERVICE_ACCOUNT", "PUSH_TOKEN", "SIGNING_KEY")
    for name in (*KEYS, "CUSTOMERIO_REGION", *(f"FIREBASE_{other}" for other in others)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.spec("C106")
def test_customerio_is_told_to_report_and_switched_on_with_its_key(shell: Shell, tmp_path: Path) -> None:
    text = HOOK.replace("server: {{", 'server: {{public_url: "https://events.example.com/", ')
    with served(tmp_path, text) as server:
        webhooks = server.box.customerio.state.reporting_webhooks
        command = ("connectors", "install", "customerio", "--report", "--base-url", server.box.customerio_url)
        unsigned = PIPED.replace("CUSTOMERIO_SIGNING_KEY", "NOTHING")
        said = shell(*command, stdin=unsigned)
        assert (said.code, "copy its signing key" in said.out) == (0, True), said.err
        assert [(each["endpoint"], each["disabled"]) for each in webhooks] == [
            ("https://events.example.com/webhooks/customerio_webhooks", True)
        ]
        assert shell(*command, "--replace", stdin=PIPED).code == 0
        assert [each["disabled"] for each in webhooks] == [False]
        assert "customerio_webhooks" in server.running.app.config.sources


@pytest.mark.spec("C106")
def test_reporting_needs_an_app_key_and_an_address(shell: Shell) -> None:
    command = ("connectors", "install", "customerio", "--report")
    with vendor() as url:
        said = shell(*command, "--base-url", url, stdin=PIPED.replace("CUSTOMERIO_APP_API_KEY", "NOTHING"))
        assert (said.code, "E5053" in said.err) == (2, True)
        assert not Path("towpath.yaml").exists()
        said = shell(*command, "--base-url", url, stdin=PIPED)
        assert (said.code, "set  server.public_url" in said.out) == (0, True)


@contextmanager
def vendor() -> Iterator[str]:
    """Run a Customer.io beside the test; its URL."""
    ready, found, stop = threading.Event(), list[str](), list[asyncio.Event]()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        async with serve(CustomerIoSimulator(region="eu")) as url:
            stop.append(asyncio.Event())
            loops.append(asyncio.get_running_loop())
            found.append(url)
            ready.set()
            await stop[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait(30)
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join(30)


def nothing_secret(said: Said, directory: Path) -> None:
    """What was said and written in YAML holds no key."""
    texts = [said.out, said.err, *(file.read_text() for file in directory.glob("*.yaml*"))]
    assert not [secret for secret in SECRETS if secret in "\n".join(texts)]


@pytest.mark.spec(
    "C028", "C029", "C030", "C031", "C034", "C071", "C099", "C100", "C101", "C102", "C103", "C115", "D18"
)
def test_customerio_from_nothing_to_green_lines(shell: Shell, tmp_path: Path) -> None:
    with vendor() as url:
        said = shell("connectors", "install", "customerio", "--base-url", url, stdin=PIPED)
        assert said.code == 0, said.err
        assert "region: eu" in said.out
        for line in (
            "✓ Track API connection successful",
            "✓ App API connection successful",
            "✓ People accessible",
            "✓ Campaigns readable",
            "✓ Segments listable",
        ):
            assert line in said.out
        assert "/webhooks/customerio_webhooks" in said.out
        nothing_secret(said, tmp_path)
        assert shell("validate").code == 0
        assert shell("connectors", "test", "customerio").code == 0
    text = Path("towpath.yaml").read_text()
    assert 'api_key: "${secret:customerio_track_api_key}"' in text
    assert "region: eu" in text
    assert [row["name"] for row in shell("secrets", "list", "--json").json()] == [
        "customerio_app_api_key",
        "customerio_signing_key",
        "customerio_track_api_key",
    ]
    assert not list(tmp_path.glob("*.bak"))


@pytest.mark.spec("C028", "C071", "E031")
def test_a_running_server_takes_it_up_at_once(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        url = server.box.customerio_url
        arguments = ("--base-url", url, "--from", "web", "--name", "cio", "--json")
        said = shell("connectors", "connect", "customerio", *arguments, stdin=PIPED)
        assert said.code == 0, said.err
        told = said.json()
        assert told["in_force"] is True
        assert told["wrote"] == ["destinations.cio", "sources.cio_webhooks"]
        assert all(check["ok"] for check in told["checks"])
        assert Path(told["backup"]).read_text().startswith("version: 1\n")
        nothing_secret(said, tmp_path)
        assert "cio" in [row["name"] for row in shell("connections", "list", "--json").json()]
        again = shell("connectors", "install", "customerio", *arguments, stdin=PIPED)
        assert (again.code, again.json()["code"]) == (1, "E2403")
        replaced = shell("connectors", "install", "customerio", *arguments, "--replace", stdin=PIPED)
        assert replaced.json()["in_force"] is True
        assert len(server.running.app.config.connections) == 2


def written(path: str, attributes: dict[str, str]) -> bytes:
    """A Firestore event as Eventarc pushes it, with JSON in it."""
    fields = {name: {"stringValue": value} for name, value in attributes.items()}
    value = {
        "name": f"projects/demo-p/databases/(default)/documents/{path}",
        "fields": {"attributes": {"mapValue": {"fields": fields}}},
        "createTime": "2026-11-01T10:00:00.000001Z",
        "updateTime": "2026-11-01T10:00:00.000001Z",
    }
    event = {
        "specversion": "1.0",
        "id": "e-1",
        "type": "google.cloud.firestore.document.v1.written",
        "source": "//firestore.googleapis.com/projects/demo-p/databases/(default)",
        "subject": f"documents/{path}",
        "time": "2026-11-01T10:00:00Z",
        "datacontenttype": "application/json",
        "project": "demo-p",
        "database": "(default)",
        "document": path,
        "data": {"value": value},
    }
    return json.dumps(event).encode()


@pytest.mark.spec("F001", "F007", "C028")
def test_two_commands_take_a_document_to_customerio(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        cio = ("--base-url", server.box.customerio_url, "--json")
        assert shell("connectors", "install", "customerio", *cio, stdin=PIPED).code == 0
        firebase = ("--project", "demo-p", "--collection", "users", "--push-token", "token-of-a-test-0123")
        said = shell("connectors", "install", "firebase", *firebase)
        assert (said.code, "in force" in said.out) == (0, True), said.out + said.err
        connection = http.client.HTTPConnection(server.running.address, timeout=30)
        headers = {"content-type": "application/cloudevents+json"}
        where = "/webhooks/firebase?token=token-of-a-test-0123"
        connection.request("POST", where, written("users/db01", {"first_name": "Ada"}), headers)
        assert connection.getresponse().status == 200
        connection.close()
        deadline = time.monotonic() + 30
        while server.box.customerio.profiles.find("id", "db01") is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        person = server.box.customerio.profiles.find("id", "db01")
        assert person is not None
        assert person.attributes["first_name"] == "Ada"


@pytest.mark.spec("C090", "C092")
def test_wrong_keys_are_named_and_nothing_is_written(shell: Shell, tmp_path: Path) -> None:
    with vendor() as url:
        swapped = PIPED.replace("sandbox-track-key", "sandbox-app-key")
        said = shell("connectors", "install", "customerio", "--base-url", url, stdin=swapped)
    assert said.code == 4
    assert "does not know this Site ID with this Track API key" in said.err
    assert "is a key of the App API" in said.err
    assert "Nothing was written" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.spec("C093", "D18")
def test_the_wrong_region_is_an_error(shell: Shell, tmp_path: Path) -> None:
    with vendor() as url:
        arguments = ("--base-url", url, "--region", "us")
        said = shell("connectors", "install", "customerio", *arguments, stdin=PIPED)
    assert said.code == 1
    assert "in the region eu, not us" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.spec("C099", "C100")
def test_a_failing_line_ends_with_one_and_what_was_written_stays(shell: Shell) -> None:
    with vendor() as url:
        wrong = PIPED.replace("sandbox-app-key", "no-such-key")
        said = shell("connectors", "install", "customerio", "--base-url", url, stdin=wrong)
        assert said.code == 1
        lines = said.out.splitlines()
        assert "✓ Track API connection successful" in said.out
        assert [line for line in lines if line.startswith("✗")]
        as_json = shell(
            "connectors", "install", "customerio", "--base-url", url, "--replace", "--json", stdin=wrong
        )
        assert as_json.code == 1
        assert not all(check["ok"] for check in as_json.json()["checks"])
    assert Path("towpath.yaml").exists()


@pytest.mark.spec("D08", "C030")
def test_a_key_on_the_command_line_is_warned_of_and_one_in_a_variable_is_not(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("connectors", "install", "customerio", "--no-test", "--site-id", "s")
    said = shell(*command, "--track-api-key", "a-key-of-mine")
    assert said.code == 0
    assert "--track-api-key stays in the shell's history" in said.err
    assert "a-key-of-mine" not in said.out + said.err
    monkeypatch.setenv("CUSTOMERIO_TRACK_API_KEY", "a-key-of-mine")
    again = shell(*command, "--replace")
    assert (again.code, again.err) == (0, "")
    assert "region: auto" in Path("towpath.yaml").read_text()
    assert "nothing goes there yet" in again.out


@pytest.mark.spec("D08")
def test_a_secret_that_cannot_be_kept_leaves_the_file_as_it_was(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = "version: 1\n# mine\n"
    Path("towpath.yaml").write_text(before)

    def full(*_: object, **__: object) -> None:
        raise TowpathError("the disk is full", code="E5018")

    monkeypatch.setattr("towpath.cli.installing.Client.call", full)
    said = shell("connectors", "install", "customerio", "--no-test", stdin=PIPED)
    assert (said.code, "the disk is full" in said.err) == (1, True)
    assert Path("towpath.yaml").read_text() == before
    assert [path.name for path in Path().iterdir()] == ["towpath.yaml"]


def test_a_key_that_nobody_gives_is_asked_for_by_name(shell: Shell, tmp_path: Path) -> None:
    said = shell("connectors", "install", "customerio", "--site-id", "s")
    assert said.code == 2
    assert "CUSTOMERIO_TRACK_API_KEY" in said.err
    assert shell("connectors", "install", "customerio", stdin=b"\xff\xfe").code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.spec("D08")
def test_at_a_terminal_keys_are_asked_without_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def prompt(label: str, *, hide_input: bool, **_: object) -> str:
        asked.append((label, hide_input))
        return " typed "

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("towpath.cli.asking.typer.prompt", prompt)
    asking = Asking()
    assert asking.need("X_KEY", "Track API key", "", hidden=True) == "typed"
    assert asking.want("X_OTHER", "App API key", "", hidden=True) == "typed"
    assert asking.need("X_KEY", "Track API key", "given", hidden=True) == "given"
    assert asked == [("Track API key", True), ("App API key (empty: none)", True)]


@pytest.mark.spec("F002", "F006", "F007", "D08")
def test_firebase_with_a_service_account(shell: Shell, tmp_path: Path) -> None:
    Path("key.json").write_text(ACCOUNT)
    customerio = ("connectors", "install", "customerio", "--no-test", "--site-id", "s")
    assert shell(*customerio, stdin="CUSTOMERIO_TRACK_API_KEY=k\n").code == 0
    command = ("--service-account", "key.json", "--collection", "users", "--collection", "t/{t}/m")
    said = shell("connectors", "install", "firebase", *command, "--no-test")
    assert said.code == 0, said.err
    assert "towpath firebase backfill --source firebase" in said.out
    assert PRIVATE_KEY.split("\n")[1] not in said.out + Path("towpath.yaml").read_text()
    assert "listen: true" in Path("towpath.yaml").read_text()
    quiet = shell("connectors", "install", "firebase", *command, "--no-test", "--no-listen", "--replace")
    assert (quiet.code, "daily comparison" in quiet.out) == (0, True)
    assert "listen: true" not in Path("towpath.yaml").read_text()
    shown = shell("validate", "--json").json()
    assert (shown["sources"], shown["connections"]) == (["firebase"], ["customerio"])


def test_firebase_without_one_gets_a_token_that_is_shown_once(shell: Shell) -> None:
    said = shell("connectors", "install", "firebase", "--project", "demo-p", "--no-test", "--json")
    assert said.code == 0, said.err
    notes = "\n".join(said.json()["notes"])
    token = notes.partition("/webhooks/firebase?token=")[2].split()[0]
    assert len(token) == 64
    assert "nobody hears of it yet" in notes
    key = notes.partition("TOWPATH_SIGNING_KEY  ")[2].split()[0]
    assert len(key) == 64
    text = Path("towpath.yaml").read_text()
    assert token not in text
    assert key not in text
    assert 'signing_key: "${secret:firebase_signing_key}"' in text
    names = [row["name"] for row in shell("secrets", "list", "--json").json()]
    assert names == ["firebase_push_token", "firebase_signing_key"]
    assert told_once(shell, token, key)


def told_once(shell: Shell, token: str, key: str) -> bool:
    """Whether installing again keeps both, and shows neither."""
    again = ("connectors", "install", "firebase", "--project", "demo-p", "--no-test", "--replace", "--json")
    said = shell(*again)
    notes = "\n".join(said.json()["notes"])
    held = stored(Path("data"))
    kept = (held["firebase_push_token"], held["firebase_signing_key"]) == (token, key)
    return kept and token not in notes and key not in notes and "TOWPATH_SIGNING_KEY  …" in notes


@pytest.mark.spec("F005", "D08")
def test_a_key_of_ones_own_for_the_forwarder_is_kept_and_not_shown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIREBASE_SIGNING_KEY", "a-key-of-my-own-0123")
    said = shell("connectors", "install", "firebase", "--project", "demo-p", "--no-test")
    assert said.code == 0, said.err
    assert "a-key-of-my-own" not in said.out
    assert stored(Path("data"))["firebase_signing_key"] == "a-key-of-my-own-0123"


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("--from", "nobody"), 2, 'there is no source "nobody"'),
        (("--name", "web"), 1, "E2403"),
        (("--name", "a b"), 2, "a b"),
    ],
)
def test_what_can_be_checked_here_is_checked_before_customerio_is_asked(
    shell: Shell, words: tuple[str, str], code: int, named: str
) -> None:
    before = "version: 1\nsources:\n  web: {type: segment, write_keys: [k]}\n"
    Path("towpath.yaml").write_text(before)
    nobody = ("--base-url", "http://127.0.0.1:9")  # asking there would be the error
    said = shell("connectors", "install", "customerio", *nobody, *words, stdin=PIPED)
    assert (said.code, named in said.err) == (code, True), said.err
    assert Path("towpath.yaml").read_text() == before


def test_firebase_is_asked_for_by_name_and_taken_from_a_pipe(shell: Shell) -> None:
    said = shell("connectors", "install", "firebase", "--no-test")
    assert (said.code, "FIREBASE_PROJECT" in said.err) == (2, True)
    piped = "FIREBASE_PROJECT=demo-p\nFIREBASE_COLLECTION=users, t/{t}/m\n"
    assert shell("connectors", "install", "firebase", "--no-test", stdin=piped).code == 0
    text = Path("towpath.yaml").read_text()
    assert '      - users\n      - "t/{t}/m"\n' in text


def test_firebase_is_tested_and_backfilled_where_that_is_said(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        "towpath.cli.jobs.run_job", lambda name, *_, follow, json: runs.append((name, follow))
    )
    command = ("--project", "demo-p", "--push-token", "0123456789abcdef0", "--name", "fb")
    said = shell("connectors", "install", "firebase", *command)
    assert said.code == 0, said.out + said.err
    assert "✓" in said.out
    assert "token=…" in said.out
    unable = shell("connectors", "install", "firebase", *command, "--backfill", "--replace")
    assert (unable.code, "--service-account" in unable.err) == (2, True)
    Path("key.json").write_text(ACCOUNT)
    account = ("--service-account", "key.json", "--no-test", "--replace")
    assert shell("connectors", "install", "firebase", *command, *account, "--backfill").code == 0
    assert runs == [("fb.backfill", True)]


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [(b"{", 1, "E2408"), (b"{}", 1, "E2408"), (b"\xef\xbb\xbf[]", 1, "E2408"), (b"\xff\xfe", 2, "E5052")],
)
def test_a_key_file_that_is_none_is_refused(shell: Shell, content: bytes, code: int, named: str) -> None:
    Path("key.json").write_bytes(content)
    said = shell("connectors", "install", "firebase", "--service-account", "key.json")
    assert (said.code, named in said.err) == (code, True)
    assert not Path("towpath.yaml").exists()
