"""What a right file becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.config import ConfigError, ConnectionEntry, load
from towpath.config.model import RequestLimits
from towpath.ingest import IngestLimits
from towpath.retry import SCHEDULE_S

from .conftest import Read, Refuse

HEAD = "version: 1\nsources: {web: {type: drum, write_keys: [wk_demo]}, app: {type: drum, write_keys: [k]}}\n"
TOOL = HEAD + "destinations: {tool: {type: parcel, api_key: abc}, far: {type: parcel, api_key: abc}}\n"
SMALLEST = """\
version: 1
server: {listen: "127.0.0.1:8080"}
storage: ./data
sources:
  web: {type: segment, write_keys: [wk_demo]}
destinations:
  kustomer: {type: kustomer, api_key: "${KUSTOMER_KEY}", base_url: "http://127.0.0.1:9001"}
connections:
  - {from: web, to: [kustomer]}
"""


def test_the_smallest_file_loads_as_printed(tmp_path: Path) -> None:
    file = tmp_path / "towpath.yaml"
    file.write_text(SMALLEST)
    config = load(file, {"KUSTOMER_KEY": "kust_1"})
    assert config.storage == tmp_path / "data"
    assert config.destinations["kustomer"].settings.api_key.get_secret_value() == "kust_1"
    assert [key.get_secret_value() for key in config.sources["web"].settings.write_keys] == ["wk_demo"]
    assert config.connections == [ConnectionEntry("kustomer", frozenset({"web"}), "kustomer")]


@pytest.mark.spec("K001")
def test_a_vendor_spelling_of_a_key_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "towpath.yaml"
    file.write_text(SMALLEST.replace("api_key:", "apiKey:").replace("base_url:", "baseEndpoint:"))
    settings = load(file, {"KUSTOMER_KEY": "kust_1"}).destinations["kustomer"].settings
    assert settings.api_key.get_secret_value() == "kust_1"
    assert settings.base_url == "http://127.0.0.1:9001"


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file") as caught:
        load(tmp_path / "towpath.yaml", {})
    assert "towpath init" in caught.value.render()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "towpath.yaml").write_bytes(b"version: \xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "towpath.yaml", {})


@pytest.mark.spec("D06", "D07", "D19")
def test_retry_and_retention_have_the_promised_defaults(read: Read) -> None:
    config = read(TOOL)
    assert config.retry.schedule_s == SCHEDULE_S
    assert sum(config.retry.schedule_s) == pytest.approx(76.71 * 3600, rel=0.001)
    assert config.retry.timeout_s == 30
    assert config.retention.dead_letters.total_seconds() == 30 * 86400
    assert config.retention.log.total_seconds() == config.retention.dedup.total_seconds() == 7 * 86400


@pytest.mark.spec("D08")
def test_personal_data_is_not_logged_unless_asked_for(read: Read) -> None:
    assert read(TOOL).privacy.log_pii is False
    assert read(TOOL + "privacy: {log_pii: true}").privacy.log_pii is True


@pytest.mark.spec("D13")
def test_a_source_is_trusted_only_when_the_file_says_so(read: Read, refused: Refuse) -> None:
    assert read(TOOL).sources["web"].settings.trust == "client"
    assert read(TOOL.replace("app: {", "app: {trust: server, ")).sources["app"].settings.trust == "server"
    wrong = refused(TOOL.replace("app: {", "app: {trust: servr, ")).problems
    assert [problem.hint for problem in wrong] == ['did you mean "server"?']


@pytest.mark.spec("D16")
def test_the_admin_plane_is_a_socket_in_the_storage_directory(read: Read, tmp_path: Path) -> None:
    config = read(TOOL)
    assert config.socket == tmp_path / "data" / "admin.sock"
    assert config.admin.listen is None
    assert config.server.listen == "127.0.0.1:8080"


@pytest.mark.spec("D16")
def test_certificates_are_found_from_the_file_and_must_exist(
    read: Read, refused: Refuse, tmp_path: Path
) -> None:
    text = TOOL + "server: {tls: {certificate: chain.pem, key: key.pem}, trusted_proxies: 10.0.0.0/8}"
    assert [problem.title for problem in refused(text).problems] == [
        "server.tls.certificate names no file",
        "server.tls.key names no file",
    ]
    (tmp_path / "chain.pem").touch()
    (tmp_path / "key.pem").touch()
    server = read(text).server
    assert server.tls is not None
    assert server.tls.certificate == str(tmp_path / "chain.pem")
    assert server.trusted_proxies == ("10.0.0.0/8",)


def test_a_socket_path_the_system_cannot_take_is_refused(refused: Refuse) -> None:
    error = refused(TOOL + f"admin: {{socket: /{'x' * 120}}}\n")
    assert "admin.socket" in error.problems[0].hint


@pytest.mark.spec("D06")
def test_a_destination_changes_only_what_it_names_of_retry(read: Read) -> None:
    text = TOOL.replace("far: {type: parcel", "far: {retry: {schedule: [1s, 2m]}, type: parcel")
    config = read(text + "retry: {timeout: 5s}\n")
    far, tool = config.destinations["far"].retry, config.destinations["tool"].retry
    assert (far.schedule_s, far.timeout_s) == ((1, 120), 5)
    assert (tool.schedule_s, tool.timeout_s) == (SCHEDULE_S, 5)


def test_every_destination_of_a_list_is_a_connection_of_its_own(read: Read) -> None:
    text = TOOL + (
        "connections:\n"
        "  - {from: [web, app], to: [tool, far], only: [track],\n"
        "     events: [Sale], max_age: {Sale: 2h, '*': 1d}}\n"
        "  - {name: all, from: web, to: tool, start: earliest, max_age: 90s, enabled: false}\n"
        "  - {name: each, from: web, to: [tool, far]}\n"
    )
    found = {entry.name: entry for entry in read(text).connections}
    assert list(found) == ["tool", "far", "all", "each-tool", "each-far"]
    first, second = found["far"], found["all"]
    assert first == ConnectionEntry(
        "far",
        frozenset({"web", "app"}),
        "far",
        only=frozenset({"track"}),
        events=frozenset({"Sale"}),
        max_age_s={"Sale": 7200.0, "*": 86400.0},
    )
    assert (second.start, second.max_age_s, second.enabled) == ("earliest", {"*": 90.0}, False)


@pytest.mark.spec("D19")
def test_another_source_does_not_rename_a_connection(read: Read) -> None:
    """Under a new name it would begin at the end of the log, and the old one's queue would be stranded."""
    names = [
        read(TOOL + f"connections: [{{from: {order}, to: tool}}]").connections[0].name
        for order in ("web", "[web, app]", "[app, web]")
    ]
    assert names == ["tool"] * 3


@pytest.mark.spec("D16")
def test_a_second_connection_to_a_destination_needs_a_name(read: Read, refused: Refuse) -> None:
    text = TOOL + "connections:\n  - {from: web, to: tool}\n  - {from: app, to: [far, tool]}\n"
    (problem,) = refused(text).problems
    assert problem.title == 'a second connection to "tool" needs a name (connections[0] is the first)'
    assert (problem.code, problem.line, problem.hint) == ("E2112", 6, "add  name: …  to one of the two")
    named = read(text.replace("- {from: app", "- {name: apps, from: app"))
    assert [entry.name for entry in named.connections] == ["tool", "apps-far", "apps-tool"]


@pytest.mark.spec("D07")
def test_dead_letters_are_kept_as_retention_says_and_nowhere_else(refused: Refuse) -> None:
    text = TOOL.replace("far: {", "far: {retry: {dead_letter_keep: 7d}, ")
    problems = refused(text + "retry: {dead_letter_keep: 7d}\n").problems
    assert [problem.title for problem in problems] == ['unknown key "dead_letter_keep"'] * 2


def test_the_limits_of_the_file_are_those_that_the_server_keeps() -> None:
    file, server = RequestLimits(), IngestLimits()
    assert (file.event, file.request, file.depth) == (server.event_bytes, server.request_bytes, server.depth)
    for mine, its in (("event", "event_bytes"), ("request", "request_bytes"), ("depth", "depth")):
        said = str(IngestLimits.model_fields[its].description).removesuffix(".").removesuffix(" is refused")
        assert str(RequestLimits.model_fields[mine].description).startswith(said)


def test_anchors_and_merge_keys_work(read: Read) -> None:
    text = HEAD + "destinations:\n  one: &one {type: parcel, api_key: abc}\n  two: {<<: *one, region: eu}\n"
    settings = read(text).destinations["two"].settings
    assert (settings.api_key.get_secret_value(), settings.region) == ("abc", "eu")


def test_numbers_and_words_of_yaml_1_2_are_read(read: Read) -> None:
    config = read(
        "version: 0x1\nserver: {limits: {event: 2048, request: 1.5MB, depth: 1_0}}\ndurability: relaxed"
    )
    assert (config.server.limits.event, config.server.limits.request, config.server.limits.depth) == (
        2048,
        1572864,
        10,
    )
    assert config.durability == "relaxed"


@pytest.mark.parametrize("section", ["connectors", "alerts"])
def test_sections_of_later_versions_may_be_there_but_empty(read: Read, refused: Refuse, section: str) -> None:
    assert read(TOOL + f"{section}:\n").sources
    assert [problem.code for problem in refused(TOOL + f"{section}: {{a: b}}").problems] == ["E2111"]


def test_an_alias_that_refers_to_itself_is_refused(refused: Refuse) -> None:
    assert "itself" in refused("version: &v [*v]\n").title
    assert "itself" in refused("sources: &s {<<: *s}\n").title


def test_aliases_that_multiply_are_refused(refused: Refuse) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert refused("\n".join(lines)).code == "E2004"


def test_an_error_is_one_for_programs_too(refused: Refuse) -> None:
    error = refused("version: 1\nretenton: {}\n")
    assert error.json() == [
        {
            "code": "E2104",
            "title": 'unknown key "retenton"',
            "fix": 'did you mean "retention"?',
            "file": error.file,
            "line": 2,
            "column": 1,
        }
    ]
    assert error.lines()[-1] == "1 problem. Nothing was changed."


@pytest.mark.spec("E030")
def test_two_sources_may_not_share_a_write_key(refused: Refuse) -> None:
    sources = "sources:\n  a: {type: drum, write_keys: [wk_same]}\n  b: {type: drum, write_keys: [wk_same]}\n"
    error = refused("version: 1\n" + sources)
    assert [problem.title for problem in error.problems] == ["sources a and b share a write key"]
    assert "wk_same" not in error.render()


def test_a_device_is_no_file_to_read_a_value_from(refused: Refuse) -> None:
    error = refused('version: 1\nserver: {public_url: "${file:/dev/zero}"}\n')
    assert "cannot be read" in error.problems[0].title


def test_a_path_with_a_nul_is_refused(refused: Refuse) -> None:
    assert "NUL" in refused('version: 1\nstorage: "a\\0b"\n').problems[0].title
