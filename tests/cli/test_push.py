"""towpath push: devices in and out, campaigns from rehearsal to end, in the words of the shell."""

from __future__ import annotations

import csv
import json as jsonlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from towpath.sandbox.google import service_account

from .support import Server, Shell, served

YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
accounts:
  cio: {{type: customerio, app_api_key: app-key, base_url: "http://127.0.0.1:9"}}
  firebase: {{type: fcm, service_account: "${{file:key.json}}", fcm_url: "http://127.0.0.1:9"}}
push:
  account: firebase
  campaigns:
    hello: {{title: "Hi {{traits.name|you}}", body: there}}
    large: {{title: "Hi {{traits.name|you}}", body: "{long}", data: {{a: "{long}"}}}}
"""
NEXT_YEAR = f"{datetime.now(UTC).year + 1}-12-31T09:00"
LINES = [
    {"deviceId": "d1", "userId": "u1", "fcmToken": "t1", "deviceType": "iOS", "timezone": "Asia/Tokyo"},
    {"deviceId": "d2", "userId": "u1", "fid": "f2", "deviceType": "Android"},
    {"deviceId": "d3", "fcmToken": "t3", "deviceType": "Web", "lastSeen": "2026-01-01T00:00:00Z"},
]


@pytest.fixture
def server(tmp_path: Path, shell: Shell) -> Iterator[Server]:
    (tmp_path / "key.json").write_text(service_account("http://127.0.0.1:9", project="shop-1"))
    with served(tmp_path, YAML, long="x" * 2500) as running:
        yield running


def write(directory: Path, lines: list[dict[str, str]]) -> Path:
    file = directory / "devices.jsonl"
    file.write_text("".join(jsonlib.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.spec("P047", "P004", "P040")
def test_devices_go_in_and_out(server: Server, shell: Shell, tmp_path: Path) -> None:
    assert "no devices" in shell("push", "devices", "list").out
    taken = shell("push", "devices", "import", str(write(tmp_path, LINES)), "--json")
    assert (taken.code, taken.json()) == (0, {"taken": 3, "refused": []})
    rows = shell("push", "devices", "list", "--person", "u1", "--json").json()
    assert [(row["device_id"], row["address_kind"]) for row in rows] == [("d1", "token"), ("d2", "fid")]
    shown = shell("push", "devices", "show", "d3", "--json").json()
    assert (shown["user_id"], shown["provisional"], shown["device_type"]) == ("d3", True, "web")
    written = shell("push", "devices", "export", "-o", "out.csv", "--json")
    assert (written.code, written.json()) == (0, {"file": "out.csv", "devices": 3})
    with (tmp_path / "out.csv").open(newline="") as file:
        out = list(csv.DictReader(file))
    assert [(row["deviceId"], row["fcmToken"], row["fid"]) for row in out] == [
        ("d1", "t1", ""),
        ("d2", "", "f2"),
        ("d3", "t3", ""),
    ]
    again = shell("push", "devices", "import", "out.csv", "--json")
    assert again.json()["taken"] == 3
    lines = shell("push", "devices", "export").out.splitlines()
    assert [jsonlib.loads(line)["deviceId"] for line in lines] == ["d1", "d2", "d3"]


@pytest.mark.spec("P010", "P047")
def test_the_status_counts_and_names_the_project(server: Server, shell: Shell, tmp_path: Path) -> None:
    shell("push", "devices", "import", str(write(tmp_path, LINES)))
    found = shell("push", "status", "--json").json()
    assert found["project"] == "shop-1"
    assert found["devices"] == {"active": 3}
    assert found["active_by_type"] == {"ios": 1, "android": 1, "web": 1}
    assert (found["provisional"], found["not_refreshed"]) == (1, 1)
    assert found["not_refreshed_share"] == pytest.approx(0.3333)


@pytest.mark.spec("P011", "P047")
def test_pruning_counts_first_and_asks(server: Server, shell: Shell, tmp_path: Path) -> None:
    shell("push", "devices", "import", str(write(tmp_path, LINES)))
    assert shell("push", "devices", "prune", "--dry-run", "--json").json()["removed"] == 1
    asked = shell("push", "devices", "prune")
    assert asked.code == 2
    assert "nobody to ask" in asked.err
    assert shell("push", "devices", "prune", "--yes", "--json").json()["removed"] == 1
    assert shell("push", "devices", "show", "d3", "--json").json()["reason"] == "stale"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"deviceId": "d1", "fcmToken": "t", "deviceType": "Fridge"}, "deviceType"),
        ({"deviceId": "d1", "deviceType": "iOS"}, "one of fcmToken and fid"),
        ({"deviceId": "d1", "fcmToken": "t", "fid": "f", "deviceType": "iOS"}, "one of fcmToken and fid"),
        ({"fcmToken": "t", "deviceType": "iOS"}, "deviceId"),
        ({"deviceId": " ", "fcmToken": "t", "deviceType": "iOS"}, "deviceId"),
        ({"deviceId": "d1", "fcmToken": "t", "deviceType": "iOS", "lastSeen": "yesterday"}, "yesterday"),
        ({"deviceId": "d1", "fcmToken": "t", "deviceType": "iOS", "colour": "red"}, "colour"),
    ],
)
@pytest.mark.spec("P033", "P047")
def test_a_bad_line_is_named_and_the_others_are_taken(
    server: Server, shell: Shell, tmp_path: Path, line: dict[str, str], said: str
) -> None:
    found = shell("push", "devices", "import", str(write(tmp_path, [LINES[1], line, LINES[2]])), "--json")
    assert found.code == 3
    assert found.json()["taken"] == 2
    (refused,) = found.json()["refused"]
    assert refused["line"] == 2
    assert said in refused["reason"]


@pytest.mark.spec("P057", "P051")
def test_a_rehearsal_shows_whom_and_what(server: Server, shell: Shell, tmp_path: Path) -> None:
    shell("push", "devices", "import", str(write(tmp_path, LINES)))
    found = shell("push", "send", "hello", "--dry-run", "--platform", "ios")
    assert found.code == 0
    assert "1 devices of 1 persons" in found.out
    assert '"title": "Hi you"' in found.out
    assert "of 4096 bytes" in found.out
    assert shell("push", "campaigns", "list", "--json").json() == []
    wrong = shell("push", "send", "large", "--dry-run")
    assert wrong.code == 1
    assert "wrong:" in wrong.err


@pytest.mark.spec("P050", "P056")
def test_a_campaign_is_scheduled_paused_resumed_and_cancelled(server: Server, shell: Shell) -> None:
    made = shell("push", "send", "hello", "--at", NEXT_YEAR, "--local", "--to", "u1", "--json").json()
    number = str(made["campaign"])
    assert made["state"] == "scheduled"
    assert made["due_at"] == f"{NEXT_YEAR} (local)"
    assert made["settings"]["audience"]["persons"] == ["u1"]
    for act, state in [("pause", "paused"), ("resume", "scheduled")]:
        assert shell("push", "campaigns", act, number, "--json").json()["state"] == state
    assert shell("push", "campaigns", "cancel", number).code == 2
    assert shell("push", "campaigns", "cancel", number, "--yes", "--json").json()["state"] == "cancelled"
    again = shell("push", "campaigns", "resume", number)
    assert again.code == 1
    assert "cannot become" in again.err
    assert "cancelled" in shell("push", "campaigns", "list").out
    assert "hello" in shell("push", "campaigns", "show", number).out


@pytest.mark.spec("P050")
def test_a_campaign_goes_to_a_segment(server: Server, shell: Shell) -> None:
    made = shell("push", "send", "hello", "--at", NEXT_YEAR, "--segment", "cio:12", "--json").json()
    assert made["settings"]["audience"]["segment"] == {"account": "cio", "id": 12}
    failed = shell("push", "campaigns", "resume", str(made["campaign"]), "--retry-failed")
    assert failed.code == 1
    assert "nothing to try again" in failed.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "send", "nothing"), "there is no campaign 'nothing'"),
        (("push", "send", "large"), "large cannot be sent"),
        (("push", "send", "hello", "--at", "soon"), "is no time"),
        (("push", "send", "hello", "--filter", "traits.a =="), "filter"),
        (("push", "send", "hello", "--platform", "fridge"), "platforms"),
        (("push", "send", "hello", "--segment", "12"), "names no segment"),
        (("push", "send", "hello", "--segment", "cio:twelve"), "names no segment"),
        (("push", "send", "hello", "--segment", "firebase:12"), "no App API"),
        (("push", "send", "hello", "--segment", "cio:0"), "segment.id"),
        (("push", "campaigns", "resume", "99", "--retry-failed"), "there is no campaign 99"),
        (("push", "campaigns", "show", "99"), "there is no campaign 99"),
        (("push", "devices", "show", "nobody/else"), "no device"),
        (("push", "devices", "import", "missing.csv"), "cannot be read"),
    ],
)
@pytest.mark.spec("P051")
def test_mistakes_are_explained(server: Server, shell: Shell, words: tuple[str, ...], said: str) -> None:
    found = shell(*words)
    assert found.code in (1, 2)
    assert said in found.err
    assert shell(*words, "--json").code == found.code


def test_without_the_section_every_command_says_what_to_add(shell: Shell, tmp_path: Path) -> None:
    text = YAML.partition("accounts:")[0]
    with served(tmp_path, text):
        for words in (("status",), ("devices", "list"), ("send", "x", "--title", "y"), ("campaigns", "list")):
            found = shell("push", *words)
            assert found.code == 1
            assert "push is not configured" in found.err
