"""`towpath import firebase-extension`: the params of the extension to a configuration that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import Shell

ENV = """\
LOCATION=us-central1
SITE_ID=site
API_KEY=projects/123456/secrets/ext-sync-customerio-API_KEY/versions/latest
REGION=eu
USERS_COLLECTION=users
"""
COMMAND = ("import", "firebase-extension", "sync.env", "--project", "demo-p")


@pytest.fixture(autouse=True)
def params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("CUSTOMERIO_TRACK_API_KEY", "FIREBASE_PROJECT", "FIREBASE_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "sync.env"
    file.write_text(ENV)
    return file


@pytest.mark.spec("D23", "F002", "F003", "F004", "F005", "F006")
def test_what_is_left_is_named_and_then_the_file_loads(shell: Shell) -> None:
    said = shell(*COMMAND)
    assert said.code == 3, said.err
    assert "towpath secrets set customerio_track_api_key" in said.out
    for word in ("LOCATION", "ignored", "REGION", "changed", "to set"):
        assert word in said.out
    assert "customerio_track_api_key" in shell("validate").err
    assert shell("secrets", "set", "customerio_track_api_key", stdin="key").code == 0
    shown = shell("validate", "--json").json()
    assert (shown["sources"], shown["destinations"]) == (["firebase"], ["customerio"])
    assert "region: eu" in Path("towpath.yaml").read_text()


@pytest.mark.spec("D23", "D08")
def test_with_the_key_nothing_is_left(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMERIO_TRACK_API_KEY", "a-key-of-mine")
    said = shell(*COMMAND, "--json")
    assert said.code == 0, said.out
    told = said.json()
    assert (told["unset"], {row["param"] for row in told["params"]}) == (
        [],
        {"LOCATION", "SITE_ID", "API_KEY", "REGION", "USERS_COLLECTION"},
    )
    assert shell("validate").code == 0
    assert "a-key-of-mine" not in said.out + Path("towpath.yaml").read_text()
    # The forwarder's key is made, kept, and told this once.
    key = "\n".join(told["notes"]).partition("TOWPATH_SIGNING_KEY  ")[2].split()[0]
    assert told["secrets"] == ["firebase_push_token", "firebase_signing_key", "customerio_track_api_key"]
    assert (len(key), key in Path("towpath.yaml").read_text()) == (64, False)


@pytest.mark.spec("D23")
def test_a_file_that_works_never_comes_to_name_a_secret_that_is_not_there(shell: Shell) -> None:
    before = "version: 1\n# mine\n"
    Path("towpath.yaml").write_text(before)
    said = shell(*COMMAND)
    assert (said.code, "E5051" in said.err) == (1, True)
    assert Path("towpath.yaml").read_text() == before
    assert shell("secrets", "set", "customerio_track_api_key", stdin="key").code == 0
    done = shell(*COMMAND)
    assert done.code == 0, done.err
    assert Path("towpath.yaml").read_text().startswith(before)
    assert shell("validate").code == 0


def test_what_cannot_be_read_is_said(shell: Shell, params: Path) -> None:
    params.write_bytes(b"\xff\xfe")
    assert "E5052" in shell(*COMMAND).err
    params.write_text("LOCATION=us-central1\n")
    assert "E2410" in shell(*COMMAND).err
    assert shell("import", "firebase-extension", "none.env").code == 2
    params.write_text(ENV)
    assert "--project" in shell("import", "firebase-extension", "sync.env").err
    assert not Path("towpath.yaml").exists()
