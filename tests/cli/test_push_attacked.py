"""towpath push under hostile files, empty options and requests that say a little less than they mean."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from towpath.cli.client import Client
from towpath.errors import TowpathError
from towpath.sandbox.google import service_account

from .support import Server, Shell, served

YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
accounts:
  firebase: {{type: fcm, service_account: "${{file:key.json}}", fcm_url: "http://127.0.0.1:9"}}
push:
  account: firebase
  campaigns:
    hello: {{title: Hi, body: there}}
"""
DEVICE = {"deviceId": "d1", "fcmToken": "t1", "deviceType": "iOS"}


@pytest.fixture
def server(tmp_path: Path, shell: Shell) -> Iterator[Server]:
    (tmp_path / "key.json").write_text(service_account("http://127.0.0.1:9", project="shop-1"))
    with served(tmp_path, YAML) as running:
        yield running


@pytest.mark.spec("P047")
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_export_with_odd_letters_is_an_import(
    server: Server, shell: Shell, tmp_path: Path, suffix: str
) -> None:
    odd = [
        {**DEVICE, "deviceId": name, "fcmToken": f"t{at}"} for at, name in enumerate(("a\u2028b", '"q\nr"'))
    ]
    lines, file = tmp_path / "in.jsonl", tmp_path / f"out.{suffix}"
    lines.write_text("\n\n" + "".join(jsonlib.dumps(one, ensure_ascii=False) + "\n" for one in odd))
    assert shell("push", "devices", "import", str(lines), "--json").json() == {"taken": 2, "refused": []}
    shell("push", "devices", "export", "-o", str(file))
    assert shell("push", "devices", "import", str(file), "--json").json() == {"taken": 2, "refused": []}
    assert len(shell("push", "devices", "list", "--json").json()) == 2


@pytest.mark.spec("P040", "P047")
def test_an_import_is_read_as_an_event_is(server: Server, shell: Shell, tmp_path: Path) -> None:
    rows = [
        {**DEVICE, "deviceId": " d1 ", "fcmToken": "dLd_X5aVQFmpXn1z0vSgTB", "userId": " ann "},
        {**DEVICE, "deviceId": "d2", "fcmToken": " t2 ", "deviceType": " IOS ", "lastSeen": "2999-01-01"},
        {**DEVICE, "deviceId": "d3", "lastSeen": "0001-01-01T00:00:00+14:00"},
    ]
    answer = Client(tmp_path / "towpath.yaml").post("/push/import", {"devices": rows})
    assert (answer["taken"], [one["index"] for one in answer["refused"]]) == (2, [2])
    first, second = shell("push", "devices", "list", "--json").json()
    assert (first["address_kind"], first["user_id"], first["provisional"]) == ("fid", "ann", False)
    assert (second["address"], second["user_id"], second["provisional"]) == ("t2", "d2", True)
    assert not second["registered_at"].startswith("2999")


@pytest.mark.spec("P047")
def test_a_refused_line_is_named_by_its_place_in_the_file(
    server: Server, shell: Shell, tmp_path: Path
) -> None:
    table, lines = tmp_path / "in.csv", tmp_path / "in.jsonl"
    table.write_text('deviceId,fcmToken,deviceType\n"a\nb",t1,iOS\nc,t2,toaster\n')
    lines.write_text(f"\n{jsonlib.dumps(DEVICE)}\n\n{jsonlib.dumps({**DEVICE, 'deviceType': 'x'})}\n")
    for file in (table, lines):
        refused = shell("push", "devices", "import", str(file), "--json").json()["refused"]
        assert [one["line"] for one in refused] == [4]


@pytest.mark.spec("P047")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("huge.csv", "deviceId,fcmToken,deviceType\nh," + "x" * 200_000 + ",iOS\n"),
        ("deep.jsonl", '{"deviceId":' * 5000),
        ("half.jsonl", '{"deviceId":"\\ud800"}'),
    ],
)
def test_a_file_that_cannot_be_read_is_the_files_mistake(
    server: Server, shell: Shell, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    said = shell("push", "devices", "import", str(tmp_path / name))
    assert said.code == 2
    assert f"{name}, line" in said.err


@pytest.mark.spec("P050")
def test_a_filter_that_a_script_left_empty_does_not_reach_everybody(server: Server, shell: Shell) -> None:
    said = shell("push", "send", "hello", "--filter", "")
    assert said.code != 0
    assert shell("push", "campaigns", "list", "--json").json() == []


@pytest.mark.spec("P050")
@pytest.mark.parametrize(
    ("where", "asked"),
    [
        ("/push/send", {"code": "hello", "dryRun": True}),
        ("/push/send", {"code": "hello", "dry_run": "false"}),
        ("/push/prune", {"dry_run": "true"}),
        ("/push/prune", {"dryRun": True}),
    ],
)
def test_a_rehearsal_that_is_spelt_wrongly_is_not_the_real_thing(
    server: Server, shell: Shell, tmp_path: Path, where: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(TowpathError, match="cannot be done"):
        Client(tmp_path / "towpath.yaml").post(where, asked)
    assert shell("push", "campaigns", "list", "--json").json() == []


@pytest.mark.spec("P040")
@pytest.mark.parametrize(
    "device",
    [
        {**DEVICE, "deviceId": "d" * 256},
        {**DEVICE, "fcmToken": "t" * 5000},
        {**DEVICE, "userId": "u" * 1001},
        {**DEVICE, "timezone": "z" * 101},
    ],
)
def test_an_import_has_the_bounds_of_an_event(server: Server, tmp_path: Path, device: dict[str, str]) -> None:
    answer = Client(tmp_path / "towpath.yaml").post("/push/import", {"devices": [device]})
    assert answer["taken"] == 0
    assert "length" in answer["refused"][0]["reason"]
