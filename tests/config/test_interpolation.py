"""Placeholders: where values come from, and that no error ever shows one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from towpath.config import ConfigError, parse
from towpath.errors import TowpathError

from .conftest import Read, Refuse

CANARY = "canary-5up3r-s3cret"


def tool(**settings: str) -> str:
    written = "".join(f"    {key}: {value}\n" for key, value in settings.items())
    return f"version: 1\ndestinations:\n  tool:\n    type: parcel\n{written}"


def test_placeholders_are_filled_in(read: Read, tmp_path: Path) -> None:
    (tmp_path / "region").write_text("eu\n")
    text = tool(
        api_key='"${A}-${B:-b}$${C}"', region='"${file:region}"', base_url='"http://${secret:host}/${NO:-}"'
    )
    settings = read(text, {"host": "h"}, A="a").destinations["tool"].settings
    assert settings.api_key.get_secret_value() == "a-b${C}"
    assert (settings.region, settings.base_url) == ("eu", "http://h/")


def test_a_placeholder_may_stand_for_a_number_or_a_switch(read: Read) -> None:
    text = 'version: 1\nserver: {limits: {depth: "${DEPTH}"}}\nprivacy: {log_pii: "${PII:-true}"}'
    config = read(text, DEPTH="7")
    assert (config.server.limits.depth, config.privacy.log_pii) == (7, True)


def test_placeholders_in_comments_and_keys_are_left_alone(read: Read) -> None:
    assert read("version: 1 # ${NOPE}\n").sources == {}


@pytest.mark.spec("D08")
@pytest.mark.parametrize(
    "value", ['"${CANARY}"', CANARY, f'"${{X:-{CANARY}}}"', '"ftp://${CANARY}:${CANARY}"']
)
@pytest.mark.parametrize("key", ["region", "base_url", "nested", "type"])
def test_no_error_shows_an_interpolated_value(refused: Refuse, key: str, value: str) -> None:
    if CANARY in value and "$" not in value:
        key = "api_key: {nested: 1}\n    secret_token"
    text = tool(api_key="abc", **{key: value}).replace(
        "    type: parcel\n    api_key: abc\n    type:", "    type:"
    )
    error = refused(text, CANARY=CANARY)
    shown = error.render() + repr(error) + str(error.json()) + "".join(error.lines())
    assert CANARY not in shown.replace(f"${{X:-{CANARY}}}", "")


@pytest.mark.spec("D08")
def test_a_literal_secret_is_masked_in_every_excerpt(refused: Refuse) -> None:
    text = (
        f"version: 1\naccounts: {{a: {{type: parcel, api_key: {CANARY}, typo: 1}}}}\n"
        f"admin: {{token: '{CANARY}', sockett: x}}\n"
        f"destinations:\n  t:\n    type: parcel\n    apiKey: |\n      {CANARY}\n      {CANARY}\n    typo: 2\n"
        f"sources: {{w: {{type: drum, write_keys: [{CANARY}], oops: 3}}}}\n"
    )
    error = refused(text)
    assert len(error.problems) == 4
    assert CANARY not in error.render()


@pytest.mark.spec("D08")
def test_a_syntax_error_beside_a_secret_shows_no_value(refused: Refuse) -> None:
    assert CANARY not in refused(f"version: 1\ntool: {{api_key: {CANARY}, x: [}}\n").render()
    assert CANARY not in refused(f"version: 1\napi_key: '{CANARY}\n").render()


@pytest.mark.spec("D08")
def test_the_configuration_does_not_print_what_it_holds(read: Read) -> None:
    text = (
        tool(account="main")
        + f"accounts: {{main: {{type: parcel, api_key: {CANARY}}}}}\nadmin: {{token: {CANARY}}}"
    )
    config = read(text + f"\nsources: {{w: {{type: drum, write_keys: [{CANARY}]}}}}")
    assert CANARY not in repr(config) + str(config)
    assert config.accounts["main"].fields["api_key"] == CANARY


def test_secrets_are_asked_for_once_and_only_when_named(kinds: None, tmp_path: Path) -> None:
    asked: list[Path] = []

    def secrets(storage: Path) -> Mapping[str, str]:
        asked.append(storage)
        return {"a": "1", "b": "2"}

    parse("version: 1\nstorage: there\n", tmp_path / "f.yaml", {}, secrets)
    assert asked == []
    text = "storage: there\n" + tool(api_key='"${secret:a}${secret:b}"')
    parse(text, tmp_path / "f.yaml", {}, secrets)
    assert asked == [tmp_path / "there"]


def test_a_store_that_cannot_be_opened_is_a_problem_at_the_line(kinds: None, tmp_path: Path) -> None:
    def locked(storage: Path) -> Mapping[str, str]:
        raise TowpathError("the key is lost", fix="bring it back")

    with pytest.raises(ConfigError) as caught:
        parse(tool(api_key='"${secret:a}"'), tmp_path / "f.yaml", {}, locked)
    problem = caught.value.problems[0]
    assert (problem.code, problem.line, problem.hint) == ("E2103", 5, "bring it back")
    assert "the key is lost" in problem.title


def test_the_storage_directory_cannot_hang_on_a_secret_it_holds(refused: Refuse) -> None:
    assert [problem.code for problem in refused('version: 1\nstorage: "${secret:x}"\n', None).problems] == [
        "E2103"
    ]
