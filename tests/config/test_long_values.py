"""Values that are far too long: refused like others, in a message that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.config import ConfigError, load, parse

LONG = "x" * 100_000


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("towpath.yaml"), {}, lambda storage: {})
    return caught.value.render()


@pytest.mark.spec("D19")
@pytest.mark.parametrize(
    "line",
    [
        f"durability: {LONG}",
        f"{LONG}: 1",
        f"sources: {{web: {{type: {LONG}}}}}",
        f"connections: [{{from: web, to: {LONG}}}]",
        f"server: {{tls: {{certificate: {LONG}, key: {LONG}}}}}",
        f"server: {{listen: {LONG}, limits: {{depth: none}}}}",
    ],
    ids=["value", "key", "type", "name", "file", "before and after"],
)
def test_an_error_shows_as_much_of_a_line_as_can_be_read(line: str) -> None:
    said = refused(f"version: 1\n{line}\n")
    assert "error E" in said
    assert max(map(len, said.splitlines())) < 700
    assert "^" in said


def test_the_marked_place_stays_under_its_text() -> None:
    said = refused(f'version: 1\nserver: {{public_url: "{"y" * 500}", listen: nowhere}}\n').splitlines()
    (shown,) = (line for line in said if "nowhere" in line)
    (marks,) = (line for line in said if "^" in line)
    assert shown.index("nowhere") == marks.index("^")
    assert marks.count("^") == len("nowhere")


def test_of_very_many_problems_the_first_are_shown() -> None:
    links = "".join("  - {from: x, to: y}\n" for _ in range(200))
    said = refused(f"version: 1\nconnections:\n{links}")
    assert said.count("error E") == 100
    assert said.endswith("problems, of which these are the first 100. Nothing was changed.")


def test_a_file_that_is_no_configuration_by_its_size_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "towpath.yaml"
    with file.open("wb") as huge:
        huge.truncate(1 << 33)
    with pytest.raises(ConfigError) as caught:
        load(file, env={})
    assert "is larger than 1 MiB" in caught.value.render()
