"""Golden renderings: `wrong/<name>.yaml` must be refused exactly as `wrong/<name>.txt` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.config import ConfigError, parse

WRONG = Path(__file__).parent / "wrong"
ENV = {"EMPTY": "", "OTHER": "x"}
NAMES = sorted(path.stem for path in WRONG.glob("*.yaml"))


def rendered(name: str) -> str:
    text = (WRONG / f"{name}.yaml").read_text("utf-8")
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("towpath.yaml"), ENV, lambda storage: {})
    return caught.value.render() + "\n"


@pytest.mark.usefixtures("kinds")
@pytest.mark.spec("D16", "D19")
@pytest.mark.parametrize("name", NAMES)
def test_wrong_file_is_refused_with_every_problem_at_its_line(name: str) -> None:
    assert rendered(name) == (WRONG / f"{name}.txt").read_text("utf-8")


@pytest.mark.usefixtures("kinds")
@pytest.mark.spec("D08")
@pytest.mark.parametrize("name", ["secrets_nearby", "syntax_secret"])
def test_no_secret_of_the_line_is_shown(name: str) -> None:
    assert "supersecret" in (WRONG / f"{name}.yaml").read_text("utf-8")
    assert "supersecret" not in rendered(name)
