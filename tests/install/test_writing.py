"""A plan into a file: checked before anything is written, replaced in one step, the former one kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from towpath.config import ConfigError
from towpath.errors import TowpathError
from towpath.install import Draft, Entry, Plan, connection, draft, named
from towpath.testing.fakes import FakeClock

HOOK = {"type": "webhook", "url": "https://hooks.example.com/in", "secret": "${secret:hook_secret}"}
PLAN = Plan(
    [Entry("destinations", "hook", HOOK)],
    [connection("web", "hook")],
    {"hook_secret": "whsec_c2VjcmV0LW9mLWEtdGVzdC1zZWNyZXQtb2YtYS10ZXN0"},
)
FILE = "version: 1\nsources:\n  web: {type: segment, write_keys: [wk]}   # the shop\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "towpath.yaml"
    path.write_text(FILE)
    return path


def drafted(file: Path, plan: Plan = PLAN, *, replace: bool = False) -> Draft:
    return draft(file, plan, stored=lambda _: {}, replace=replace, env={})


@pytest.mark.spec("C032", "D08", "D23")
def test_a_file_is_extended_and_the_former_one_is_kept_beside_it(file: Path) -> None:
    file.chmod(0o640)
    made = drafted(file)
    assert file.read_text() == FILE
    assert made.config.destinations["hook"].type == "webhook"
    clock = FakeClock()
    kept = made.save(clock)
    assert kept is not None
    assert (kept.parent, kept.read_text()) == (file.parent, FILE)
    assert kept.name.startswith("towpath.yaml.20251009T085320")
    text = file.read_text()
    assert text.startswith(FILE)
    assert "whsec_" not in text + kept.read_text()
    assert "- from: web\n    to:\n      - hook\n" in text
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert sorted(path.name for path in file.parent.iterdir()) == ["towpath.yaml", kept.name]


def test_a_new_file_can_be_loaded_before_and_after(tmp_path: Path) -> None:
    file = tmp_path / "hub" / "towpath.yaml"
    plan = Plan([Entry("destinations", "hook", HOOK)], (), PLAN.secrets)
    made = drafted(file, plan)
    assert not file.parent.exists()
    made.begin()
    draft(file, Plan(), stored=lambda _: {}, env={})
    assert made.save(FakeClock()) is None
    assert list(draft(file, Plan(), stored=lambda _: PLAN.secrets, env={}).config.destinations) == ["hook"]


def test_a_symlink_stays_one(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    drafted(link).save(FakeClock())
    assert link.is_symlink()
    assert "hook" in file.read_text()


def test_a_byte_order_mark_and_windows_line_breaks_stay(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    drafted(file).save(FakeClock())
    raw = file.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfversion")
    assert raw.count(b"\xef\xbb\xbf") == 1
    assert raw.count(b"\n") == raw.count(b"\r\n") > 8


@pytest.mark.parametrize(
    ("section", "name", "replace"),
    [("destinations", "web", True), ("destinations", "web", False), ("sources", "web", False)],
)
def test_a_name_that_is_taken_is_refused(file: Path, section: str, name: str, replace: bool) -> None:
    entry = Entry(section, name, {"type": "segment", "write_keys": ["other"]})  # type: ignore[arg-type]
    with pytest.raises(TowpathError) as refused:
        drafted(file, Plan([entry]), replace=replace)
    assert refused.value.code == "E2403"
    assert ("--replace" in refused.value.fix) == (section == "sources")
    assert file.read_text() == FILE


def test_an_entry_is_replaced_when_that_is_said(file: Path) -> None:
    entry = Entry("sources", "web", {"type": "segment", "write_keys": ["other"]})
    made = drafted(file, Plan([entry]), replace=True)
    assert made.config.sources["web"].settings.write_keys[0].get_secret_value() == "other"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**HOOK, "type": "nothing"}, "there is no destination"),
        ({**HOOK, "colour": "red"}, "unknown key"),
        ({**HOOK, "secret": "${secret:other}"}, "not in the store"),
    ],
)
def test_what_would_not_load_is_not_written(file: Path, fields: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        drafted(file, Plan([Entry("destinations", "hook", fields)], secrets=PLAN.secrets))
    assert said in refused.value.render()
    assert file.read_text() == FILE


def test_a_secret_that_only_the_user_has_is_named(file: Path) -> None:
    entry = Entry("sources", "app", {"type": "segment", "write_keys": ["${secret:app_key}"]})
    plan = Plan([entry], missing=["app_key"])
    assert draft(file, plan, stored=lambda _: {}, env={}).unset == ["app_key"]
    assert draft(file, plan, stored=lambda _: {"app_key": "wk2"}, env={}).unset == []


def test_a_file_that_was_changed_meanwhile_is_left_alone(file: Path) -> None:
    made = drafted(file)
    file.write_text(FILE + "# another hand\n")
    with pytest.raises(TowpathError) as refused:
        made.save(FakeClock())
    assert "changed meanwhile" in refused.value.title
    assert file.read_text() == FILE + "# another hand\n"


def test_a_connection_is_made_once_and_a_second_one_has_a_name(file: Path) -> None:
    drafted(file).save(FakeClock())
    once = file.read_text()
    again = drafted(file, replace=True)
    assert again.after == once
    app = Entry("sources", "app", {"type": "segment", "write_keys": ["wk2"]})
    made = draft(file, Plan([app], [connection("app", "hook")]), stored=lambda _: PLAN.secrets, env={})
    assert [line.name for line in made.config.connections] == ["hook", "app-hook"]


def test_the_entries_of_a_type_are_found(file: Path, tmp_path: Path) -> None:
    assert named(file, "sources", "segment") == ["web"]
    assert named(file, "destinations", "webhook") == []
    assert named(tmp_path / "none.yaml", "sources", "segment") == []


@pytest.mark.parametrize("content", [b"\xff\xfe", b"version: [\n"])
def test_a_file_that_cannot_be_read_is_said(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(TowpathError) as refused:
        drafted(file)
    assert refused.value.data
    assert file.read_bytes() == content
