"""Every command, against a running server and without one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from towpath import __version__
from towpath.cli.client import Client

from ..app.support import HOOK, RATE, SECRET, YAML, offline
from .support import Server, Shell, served

VALUES = {"SECRET": SECRET, "URL": "https://hooks.example.com/in"}


def settle(server: Server) -> None:
    """Wait until nothing waits."""
    deadline = time.monotonic() + 30
    while any(row["waiting"] for row in Client(server.file).get("/balance")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_version_and_schema(shell: Shell) -> None:
    assert shell("version").out == f"towpath {__version__}\n"
    assert shell("version", "--json").json()["version"] == __version__
    assert shell("schema").json()["properties"]["sources"]


def test_init_writes_what_validates(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shell("init", "hub", "--template", "webhook", "--json")
    assert [Path(name).name for name in said.json()] == [
        "towpath.yaml",
        "towpath.schema.json",
        ".env.example",
        "example.yaml",
    ]
    for line in Path("hub/.env.example").read_text().splitlines():
        name, given, _ = line.partition("=")
        if given and not line.startswith("#"):
            monkeypatch.setenv(name, VALUES.get(name.rpartition("_")[2], "value-of-a-test"))
    assert shell("validate", "--config", "hub/towpath.yaml").code == 0
    assert shell("validate", "--config", "hub/towpath.yaml", "--json").json()["valid"] is True
    again = shell("init", "hub")
    assert (again.code, "Nothing was written." in again.err) == (1, True)


@pytest.mark.spec("D05", "D06")
def test_a_day_at_the_console(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        status = shell("status", "--json").json()
        assert (status["running"], status["connections"]["hook"]["state"]) == (True, "delivering")
        sent = shell("send", "track", "--user-id", "u1", "--event", "He[red]llo", "--properties", '{"a": 1}')
        assert (sent.code, sent.out) == (0, "1 of 1 accepted, on disk\n")
        lines = '{"type":"track","userId":"u2","event":"A","messageId":"m-2"}\n\n{"type":"track"}\n'
        part = shell("send", "-", stdin=lines)
        assert (part.code, part.out) == (3, "1 of 2 accepted, on disk\n")
        assert part.err.startswith("  [1] ")
        assert shell("send", "-", "--json", stdin=lines).json()["refused"][0]["index"] == 1
        assert shell("send", "--json", stdin=lines).json()["refused"][0]["index"] == 1
        settle(server)
        listed = shell("events", "list")
        assert "He[red]llo" in listed.out
        assert [row["event"] for row in shell("events", "list", "--json", "-n", "1").json()] == ["A"]
        assert shell("events", "list", "--source", "nope").code == 1
        shown = shell("events", "show", "m-2", "--json").json()
        assert shown[0]["message"]["event"] == "A"
        assert "delivered" in shell("events", "trace", "m-2").out
        assert "delivered" in shell("deliveries", "show", "1").out
        assert len(shell("deliveries", "list", "--json").json()["ended"]) == 2
        assert shell("dlq", "list").out == "no dead letters\n"
        assert "no_id" in shell("dlq", "list", "--refused").out
        assert shell("audit", "balance", "--recount", "--json").json()[0]["delivered"] == 2
        assert shell("trigger").out.startswith("signup")
        assert "hot_person" in shell("trigger", "--json").json()
        assert shell("trigger", "signup").out.endswith("accepted, on disk\n")
        assert shell("reload").out == "towpath.yaml is in force\n"


@pytest.mark.spec("P5", "D06")
def test_dead_letters_are_shown_replayed_and_dropped(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        server.box.webhook.faults.add("status", status=400)
        shell("trigger", "purchase")
        settle(server)
        rows = shell("dlq", "list", "--json").json()
        assert len(rows) == 9
        one = shell("dlq", "show", str(rows[0]["id"]), "--json").json()
        assert (one["code"], one["exchange"]["status"]) == (400, 400)
        assert shell("dlq", "list", "--code", "500").out == "no dead letters\n"
        server.box.webhook.faults.clear()
        assert shell("dlq", "replay", str(rows[0]["id"])).out == "1 dead letters go again\n"
        assert shell("dlq", "replay", "--code", "400", "--json").json() == {"hook": 8}
        settle(server)
        assert len(server.box.webhook.received) == 9
        server.box.webhook.faults.add("status", status=400)
        shell("trigger", "purchase", "--seed", "1")
        settle(server)
        refused = shell("dlq", "drop", "--all")
        assert (refused.code, "--yes" in refused.err) == (2, True)
        assert shell("dlq", "drop", "--all", "--yes").out == "9 dead letters deleted\n"
        assert shell("dlq", "drop", "--all", "--yes", "--json").json() == {"dropped": 0}


@pytest.mark.spec("P5", "E035")
def test_a_refused_item_is_shown_and_dropped_by_a_name_of_its_own(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path):
        shell("send", "-", stdin='{"type":"track","event":"nobody"}\n{"type":"identify"}')
        assert "r2" in shell("dlq", "list", "--refused").out
        shown = shell("dlq", "show", "r1", "--json").json()
        assert (shown["code"], shown["item"]["event"]) == ("no_id", "nobody")
        confused = shell("dlq", "show", "1")
        assert (confused.code, "dlq show r1" in confused.err) == (1, True)
        never = shell("dlq", "replay", "r1")
        assert (never.code, "cannot be replayed" in never.err) == (2, True)
        asked = shell("dlq", "drop", "r1")
        assert (asked.code, "--yes" in asked.err) == (2, True)
        assert shell("dlq", "drop", "r1", "r9", "--yes").code == 1  # nothing goes where a name is unknown
        assert shell("dlq", "drop", "r1", "--yes").out == "1 letters and refused items deleted\n"
        assert [row["name"] for row in shell("dlq", "list", "--refused", "--json").json()] == ["r2"]


@pytest.mark.spec("P5")
@pytest.mark.parametrize("words", [["replay", "7"], ["drop", "7", "--yes"], ["show", "7"], ["show", "r7"]])
def test_an_unknown_number_of_a_dead_letter_is_an_error(
    shell: Shell, tmp_path: Path, words: list[str]
) -> None:
    offline(tmp_path)
    said = shell("dlq", *words)
    assert (said.code, said.out) == (1, "")
    assert "7" in said.err
    assert "Nothing was changed." in said.err
    told = shell("dlq", *words, "--json")
    assert (told.code, told.json()["code"]) == (1, "E4402")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("events", "list", "--source", "zzz"), 1, "known: web"),
        (("deliveries", "show", "99"), 1, "nothing is known of the position 99"),
        (("dlq", "list", "--refused", "--code", "400"), 2, "--refused takes no other filter"),
        (("test", "none.yaml"), 2, "there is no file none.yaml"),
        (("firebase", "backfill", "--source", "zzz"), 2, "there is no firebase source 'zzz'"),
        (("secrets", "set", "key"), 1, "pipe it in"),
        (("listen", "--connection", "zzz"), 5, "no server"),
        (("people", "erase", "u1"), 2, "--yes"),
        (("send", "zzz"), 2, "identify, track"),
        (("events", "show"), 2, "name"),
        (("events", "list", "-n", "x"), 2, "integer"),
        (("no-such-command",), 2, "no-such-command"),
        (("dlq", "no-such-command"), 2, "no-such-command"),
    ],
)
def test_what_is_wrong_is_said_to_people_and_to_programs(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    offline(tmp_path)
    people = shell(*words)
    assert (people.code, said in people.err) == (code, True), people
    programs = shell(*words, "--json")
    assert (programs.code, programs.err) == (code, "")
    told = programs.json()
    assert said in told["title"] + told["fix"]
    assert told["code"]


def test_nobody_listens_to_a_connection_that_is_not_there(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path):
        said = shell("listen", "--connection", "zzz")
        assert (said.code, "known: kustomer" in said.err) == (1, True)


@pytest.mark.parametrize("name", ["x", "r", "-1", "r7x", "9" * 50, "٣"])
def test_what_is_no_number_is_said_to_be_none(shell: Shell, tmp_path: Path, name: str) -> None:
    offline(tmp_path)
    for words in (["show"], ["replay"], ["drop", "--yes"]):
        assert shell("dlq", *words, "--", name).code == 2


@pytest.mark.spec("D03", "P6")
def test_destinations_are_tested_paused_and_resumed(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert shell("destinations", "test", "kustomer").code == 0
        assert shell("connectors", "test", "kustomer", "--json").json()[0]["ok"] is True
        assert shell("connectors", "test", "web").code == 0
        assert [row["role"] for row in shell("connectors", "list", "--json").json()] == [
            "source",
            "destination",
        ]
        assert shell("connectors", "show", "kustomer", "--json").json()["settings"]["api_key"]
        assert shell("destinations", "pause", "kustomer", "--reason", "moving", "--json").json()
        assert "moving" in shell("destinations", "list").out
        shell("send", "track", "--user-id", "u1", "--event", "One")
        assert "moving" in shell("status").out
        assert shell("audit", "balance", "--json").json()[0]["waiting"] == 1
        assert shell("destinations", "resume", "kustomer").code == 0
        settle(server)
        server.box.kustomer.faults.add("status", status=503)
        failed = shell("destinations", "test", "kustomer")
        assert (failed.code, failed.out[0]) == (1, "✗")
        shell("send", "track", "--user-id", "u1", "--event", "Two")
        deadline = time.monotonic() + 30
        while not shell("deliveries", "list", "--json").json()["waiting"]:
            assert time.monotonic() < deadline
        server.box.kustomer.faults.clear()
        assert shell("deliveries", "retry", "--connection", "kustomer").out == "1 deliveries are due now\n"
        settle(server)


@pytest.mark.spec("D10", "D15", "E027")
def test_people_are_shown_suppressed_and_erased(shell: Shell, tmp_path: Path) -> None:
    hostile = ['[red]u/../1"', "ü 2", "%2e%2e", "erase"]
    with served(tmp_path, HOOK) as server:
        for who in hostile:
            shell("send", "track", "--user-id", who, "--event", "Hello")
        settle(server)
        for who in hostile:
            assert shell("people", "show", who, "--json").json()["id"] == who
        assert shell("people", "suppress", hostile[0], "--json").json() == {"suppressed": [hostile[0]]}
        assert shell("people", "show", hostile[0], "--json").json()["suppressed"] is True
        assert shell("people", "unsuppress", hostile[0]).code == 0
        asked = shell("people", "erase", *hostile)
        assert asked.code == 2
        assert [line.split()[-3:] for line in asked.out.splitlines() if hostile[0] in line] == [
            ["1", "0", "0"]
        ]
        assert shell("people", "erase", *hostile, "--yes", "--json").json()["records"] == 4
        assert shell("events", "list", "--json").json() == []


@pytest.mark.spec("D08", "E031")
def test_secrets_go_in_and_never_come_out(shell: Shell, tmp_path: Path) -> None:
    text = YAML.replace("{api_key}", '"${{secret:kustomer}}"')
    (tmp_path / "towpath.yaml").write_text(text.format(key="k", rate=RATE, kustomer="http://127.0.0.1:9"))
    missing = shell("validate")
    assert (missing.code, "towpath secrets set kustomer" in missing.err) == (2, True)
    # The configuration is invalid without the secret; setting it works all the same.
    said = shell("secrets", "set", "kustomer", "--json", stdin="a-secret-value\n")
    assert said.json()["saved"] is True
    assert shell("validate").code == 0
    assert shell("secrets", "rekey").out == "rekeyed  1\n"
    assert shell("validate").code == 0
    assert shell("secrets", "set", "empty", stdin="").code == 1
    assert shell("secrets", "set", "binary", stdin=b"\xff\xfe").code == 2
    assert [row["name"] for row in shell("secrets", "list", "--json").json()] == ["kustomer"]
    assert shell("secrets", "delete", "nope").code == 1
    for words in (
        ("secrets", "list"),
        ("status",),
        ("connectors", "show", "kustomer"),
        ("destinations", "list"),
    ):
        shown = shell(*words)
        assert "a-secret-value" not in shown.out + shown.err
    assert shell("secrets", "delete", "kustomer").code == 0
    assert b"a-secret-value" not in b"".join(
        file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()
    )


def test_a_secret_that_cannot_be_applied_is_partly_done(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        server.file.write_text(server.file.read_text() + "nonsense: 1\n")
        said = shell("secrets", "set", "any", stdin="value")
        assert (said.code, "nonsense" in said.out) == (3, True)


def test_without_a_server_commands_work_on_the_data(shell: Shell, tmp_path: Path) -> None:
    offline(tmp_path)
    assert shell("status", "--json").json()["running"] is False
    for words in (
        ("events", "list"),
        ("deliveries", "list"),
        ("dlq", "list"),
        ("destinations", "list"),
        ("connectors", "list"),
        ("secrets", "list"),
        ("audit", "balance"),
        ("people", "show", "u1"),
        ("people", "suppress", "u1"),
        ("destinations", "pause", "hook"),
        ("destinations", "resume", "hook"),
        ("deliveries", "retry"),
        ("dlq", "replay", "--all"),
    ):
        assert shell(*words, "--json").code == 0
        assert shell(*words).code == 0
    needy = ("send track --user-id u --event E", "listen", "reload", "trigger signup")
    for line in needy:
        said = shell(*line.split())
        assert (said.code, "towpath run" in said.err) == (5, True)


@pytest.mark.spec("D19")
def test_a_connection_taken_out_is_named_and_dropped(shell: Shell, tmp_path: Path) -> None:
    file = offline(tmp_path)
    assert shell("connections", "list", "--json").json()[0]["configured"] is True
    refused = shell("connections", "drop", "hook", "--yes")
    assert (refused.code, "E4407" in refused.err) == (1, True)
    file.write_text(file.read_text().replace("start: earliest}", "start: earliest, name: other}"))
    rows = shell("connections", "list", "--json").json()
    assert [(row["name"], row["configured"]) for row in rows] == [("hook", False), ("other", True)]
    assert shell("connections", "drop", "hook", "--yes", "--json").json() == {"dropped": "hook"}
    assert "E4408" in shell("connections", "drop", "hook", "--yes").err
    assert [row["name"] for row in shell("connections", "list", "--json").json()] == ["other"]


def test_a_server_is_found_although_this_shell_lacks_its_variables(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUSTOMER_KEY_OF_A_TEST", "value-of-a-test")
    with served(tmp_path, YAML.replace("{api_key}", '"${{KUSTOMER_KEY_OF_A_TEST}}"')) as server:
        monkeypatch.delenv("KUSTOMER_KEY_OF_A_TEST")
        assert shell("status", "--json").json()["running"] is True
        assert shell("send", "track", "--user-id", "u", "--event", "Event").code == 0
        assert shell("connectors", "list").code == 0
        monkeypatch.setenv("TOWPATH_CONFIG", str(server.file))
        monkeypatch.chdir("/")
        assert shell("status", "--json").json()["running"] is True


def test_many_messages_go_in_batches(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK):
        lines = [
            json.dumps({"type": "track", "userId": f"u{n % 7}", "event": "E", "n": n}) for n in range(1200)
        ]
        said = shell("send", "-", stdin="\n".join(lines))
        assert said.out == "1200 of 1200 accepted, on disk\n"
        broken = shell("send", "-", stdin="\n".join([*lines[:600], "no json"]))
        assert broken.code == 2
        assert "line 601 is not JSON" in broken.err
        assert "500 messages before it were accepted" in broken.err


@pytest.mark.spec("D15")
def test_a_join_that_was_refused_is_shown_with_its_message(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK + "identity: {{junk: [kiosk], links: 1}}\n") as server:
        for name, anonymous in (("first", "a1"), ("second", "a2"), ("shared", "KIOSK")):
            call = {"type": "identify", "userId": "u1", "anonymousId": anonymous, "messageId": name}
            assert shell("send", "-", stdin=json.dumps(call) + "\n").code == 0
        settle(server)
        shown = {
            name: shell("events", "show", name, "--json").json()[0] for name in ("first", "second", "shared")
        }
        assert {name: event["person"] for name, event in shown.items()} == dict.fromkeys(shown, "u:u1")
        assert shown["first"]["not_joined"] == ""
        assert "already has 1 linked ids" in shown["second"]["not_joined"]
        assert "'KIOSK' is not an id of one person" in shown["shared"]["not_joined"]
