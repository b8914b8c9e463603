"""Secrets: sealed on disk, bound to their names, useless without a key that lies elsewhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.config import load
from towpath.errors import TowpathError
from towpath.secrets import KeyRing, Secrets, stored
from towpath.state import FILE, Sealed, State

CANARY = "canary-5up3r-s3cret"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TOWPATH_KEY", raising=False)
    monkeypatch.setenv("TOWPATH_KEY_FILE", str(tmp_path / "keys" / "key"))
    return tmp_path / "keys" / "key"


@pytest.fixture
def state(data: Path) -> Iterator[State]:
    opened = State.open(data)
    yield opened
    opened.close()


@pytest.fixture
def secrets(state: State, key: Path) -> Secrets:
    return Secrets.open(state)


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.mark.spec("D08", "P9")
def test_a_secret_is_nowhere_in_the_data_directory(
    secrets: Secrets, state: State, data: Path, key: Path
) -> None:
    secrets.set("kustomer", CANARY)
    secrets.set("gone", CANARY + "-2")
    secrets.delete("gone")
    state.close()
    everything = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert b"kustomer" in everything
    for form in (CANARY.encode(), base64.b64encode(CANARY.encode())[:20], key.read_bytes().strip()):
        assert form not in everything


@pytest.mark.spec("D08")
def test_values_are_write_only_but_for_the_configuration(secrets: Secrets) -> None:
    secrets.set("kustomer", CANARY)
    assert CANARY not in repr(secrets) + str(secrets.names())
    assert [each.name for each in secrets.names()] == ["kustomer"]
    assert secrets.names()[0].updated_at > 1_700_000_000
    assert secrets.values() == {"kustomer": CANARY}


@pytest.mark.spec("D08")
def test_the_configuration_reads_the_store_of_its_own_directory(
    secrets: Secrets, data: Path, tmp_path: Path
) -> None:
    secrets.set("kustomer", CANARY)
    file = tmp_path / "towpath.yaml"
    file.write_text('version: 1\ndestinations: {k: {type: kustomer, api_key: "${secret:kustomer}"}}\n')
    settings = load(file, {}, stored).destinations["k"].settings
    assert settings.api_key.get_secret_value() == CANARY


def test_a_directory_without_a_store_has_no_secrets_and_gets_none(tmp_path: Path) -> None:
    assert stored(tmp_path / "nowhere") == {}
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.spec("D08")
def test_the_key_is_made_on_first_use_for_its_owner_alone(secrets: Secrets, key: Path) -> None:
    assert not key.exists()
    secrets.set("a", "1")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in key.parent.iterdir()} == {"key", "key.lock"}


@pytest.mark.spec("D08")
def test_a_lost_key_is_named_and_never_replaced(secrets: Secrets, state: State, key: Path) -> None:
    secrets.set("a", "1")
    key.unlink()
    with pytest.raises(TowpathError, match="the key of the stored secrets is lost") as caught:
        Secrets.open(state)
    assert str(key) in caught.value.title
    assert not key.exists()


@pytest.mark.spec("D08")
def test_a_wrong_key_is_told_apart(secrets: Secrets, state: State, key: Path) -> None:
    secrets.set("a", "1")
    key.write_text(new_key())
    with pytest.raises(TowpathError, match="is not the key of the stored secrets") as caught:
        Secrets.open(state)
    assert caught.value.code == "E2202"


@pytest.mark.spec("D08")
@pytest.mark.parametrize("text", ["", "not base64!", base64.b64encode(b"short").decode(), "\xff\xfe"])
def test_a_file_that_holds_no_key_is_refused(state: State, key: Path, text: str) -> None:
    key.parent.mkdir()
    key.write_bytes(text.encode("latin-1"))
    key.chmod(0o600)
    with pytest.raises(TowpathError, match="holds no key" if text else "is empty"):
        Secrets.open(state)


@pytest.mark.spec("D08")
def test_a_key_inside_the_data_directory_is_refused(state: State, data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    for place in (data / "key", data / "deep" / "key", tmp_path / "link" / "key"):
        with pytest.raises(TowpathError, match="inside the data directory"):
            Secrets.open(state, place)


@pytest.mark.spec("D08")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_touch_is_refused(secrets: Secrets, state: State, key: Path, mode: int) -> None:
    secrets.set("a", "1")
    key.chmod(mode)
    with pytest.raises(TowpathError, match="others may read") as caught:
        Secrets.open(state)
    assert caught.value.fix == f"chmod 600 {key}"


@pytest.mark.spec("D08")
def test_a_key_that_cannot_be_written_is_an_error_with_a_fix(state: State, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TowpathError, match="cannot be"):
        Secrets.open(state, tmp_path / "file" / "key").set("a", "1")


@pytest.mark.spec("D08")
def test_a_sealed_value_cannot_be_changed_or_moved(secrets: Secrets, state: State) -> None:
    secrets.set("admin", "strong")
    secrets.set("guest", "weak")
    admin, guest = state.sealed_secrets.all()
    state.sealed_secrets.replace([Sealed("admin", guest.key_id, guest.sealed, guest.updated_at)])
    with pytest.raises(TowpathError, match='the secret "admin" was damaged or changed'):
        secrets.values()
    flipped = bytes([*admin.sealed[:-1], admin.sealed[-1] ^ 1])
    state.sealed_secrets.replace([Sealed("admin", admin.key_id, flipped, admin.updated_at)])
    with pytest.raises(TowpathError, match="was damaged or changed"):
        secrets.values()


@pytest.mark.spec("D08")
def test_the_same_value_is_sealed_differently_each_time(secrets: Secrets, state: State) -> None:
    secrets.set("a", "same")
    secrets.set("b", "same")
    first, second = state.sealed_secrets.all()
    assert first.sealed[12:] != second.sealed[12:]


@pytest.mark.spec("D08")
def test_rekey_seals_everything_anew_and_may_drop_the_old_key(
    secrets: Secrets, state: State, key: Path
) -> None:
    secrets.set("a", "1")
    secrets.set("b", "2")
    before, times = key.read_text(), secrets.names()
    secrets.rekey(drop_old=True)
    assert key.read_text() != before
    assert len(key.read_text().split()) == 1
    assert Secrets.open(state).values() == {"a": "1", "b": "2"}
    assert secrets.names() == times
    key.write_text(before)
    with pytest.raises(TowpathError, match="is not the key"):
        Secrets.open(state)


@pytest.mark.spec("D08")
def test_a_crash_while_rekeying_loses_nothing(
    secrets: Secrets, state: State, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.set("a", "1")

    def crash(rows: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(secrets._rows, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        secrets.rekey()
    monkeypatch.undo()
    again = Secrets.open(state, key)
    assert again.values() == {"a": "1"}
    again.rekey(drop_old=True)
    assert Secrets.open(state, key).values() == {"a": "1"}
    assert len(key.read_text().split()) == 1


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[State]:
    """Another data directory of the same user, hence with the same key file."""
    opened = State.open(tmp_path / "other")
    yield opened
    opened.close()


@pytest.mark.spec("D08")
@pytest.mark.usefixtures("key")
def test_rekey_leaves_other_data_directories_their_key(secrets: Secrets, neighbour: State) -> None:
    secrets.set("a", "1")
    Secrets.open(neighbour).set("b", "2")
    secrets.rekey()
    assert secrets.values() == {"a": "1"}
    assert Secrets.open(neighbour).values() == {"b": "2"}


@pytest.mark.spec("D08")
@pytest.mark.usefixtures("key")
def test_two_data_directories_begin_with_one_key(secrets: Secrets, state: State, neighbour: State) -> None:
    other = Secrets.open(neighbour)  # neither has found a key file
    secrets.set("a", "1")
    other.set("b", "2")
    assert Secrets.open(state).values() == {"a": "1"}
    assert Secrets.open(neighbour).values() == {"b": "2"}


@pytest.mark.spec("D08")
@pytest.mark.usefixtures("key")
def test_keys_added_meanwhile_outlive_a_rekey(secrets: Secrets, state: State, neighbour: State) -> None:
    secrets.set("a", "1")
    other = Secrets.open(neighbour)
    other.set("b", "2")
    secrets.rekey()
    other.rekey(drop_old=True)
    assert Secrets.open(state).values() == {"a": "1"}
    assert Secrets.open(neighbour).values() == {"b": "2"}


@pytest.mark.spec("D08")
def test_keys_from_the_environment_rotate_by_order(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = new_key(), new_key().replace("+", "-").replace("/", "_")
    monkeypatch.setenv("TOWPATH_KEY", old)
    Secrets.open(state).set("a", "1")
    monkeypatch.setenv("TOWPATH_KEY", f"{new},{old}")
    Secrets.open(state).rekey()
    monkeypatch.setenv("TOWPATH_KEY", new)
    assert Secrets.open(state).values() == {"a": "1"}
    ring = KeyRing.read(state.directory)
    assert new not in repr(ring.keys) + repr(ring)
    with pytest.raises(TowpathError, match="cannot be changed from here"):
        ring.renew()


def test_names_and_absent_secrets_are_checked(secrets: Secrets) -> None:
    for name in ("", "a b", "../x", "-x", "x" * 200):
        with pytest.raises(TowpathError, match="cannot be a name"):
            secrets.set(name, "1")
    with pytest.raises(TowpathError, match='no secret "a"'):
        secrets.delete("a")


def test_without_a_home_directory_the_key_file_must_be_named(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(TowpathError, match="no home directory"):
        KeyRing.read(state.directory, env={})


def test_a_value_set_again_replaces_the_older_one(secrets: Secrets, data: Path) -> None:
    secrets.set("a", "1")
    secrets.set("a", "2 ünïcode")
    assert secrets.values() == {"a": "2 ünïcode"}
    assert (data / FILE).exists()
