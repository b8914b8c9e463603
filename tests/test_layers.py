"""Imports of the package: no cycles, arrows one way, extensions on public ground; and the check itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tools import layers

Write = Callable[[Mapping[str, str]], layers.Graph]


def test_no_import_cycle() -> None:
    looped = layers.cycle(layers.graph())
    assert not looped, " → ".join(looped)


def test_every_module_has_its_layer() -> None:
    missing = layers.unplaced(layers.graph())
    assert not missing, f"give each its place in LAYERS of tools/layers.py: {missing}"


def test_arrows_point_one_way() -> None:
    found = layers.upward(layers.graph())
    assert not found, "\n".join(found)


def test_nothing_imports_the_sandbox_and_extensions_keep_to_public_ground() -> None:
    found = layers.astray(layers.graph(everything=True))
    assert not found, "\n".join(found)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a package named towpath and return its import graph, in-function imports included."""

    def written(files: Mapping[str, str]) -> layers.Graph:
        for name, text in files.items():
            path = tmp_path / "towpath" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return layers.graph(tmp_path / "towpath", everything=True)

    return written


def test_a_cycle_is_found(write: Write) -> None:
    arrows = write(
        {"__init__.py": "", "a.py": "from . import b", "b.py": "import towpath.c", "c.py": "from .a import x"}
    )
    assert set(layers.cycle(arrows)) == {"a", "b", "c"}


def test_imports_that_do_not_run_at_load_are_left_out(write: Write, tmp_path: Path) -> None:
    write(
        {
            "__init__.py": "",
            "a.py": "if TYPE_CHECKING:\n    from .b import x\nelse:\n    from .c import x\n",
            "b.py": "def f():\n    from .a import x\n",
            "c.py": "try:\n    from .d import x\nexcept ImportError:\n    from .b import x\n",
            "d.py": "",
        }
    )
    arrows = layers.graph(tmp_path / "towpath")
    assert arrows == {"": set(), "a": {"c"}, "b": set(), "c": {"b", "d"}, "d": set()}


def test_packages_and_relative_levels_resolve(write: Write) -> None:
    arrows = write(
        {
            "__init__.py": "from .log import Log\n",
            "log/__init__.py": "from ..message import Record\n",
            "log/sqlite.py": "from . import Log\nfrom .. import message\n",
            "message.py": "import msgspec\n",
        }
    )
    assert arrows == {"": {"log"}, "log": {"message"}, "log.sqlite": {"log", "message"}, "message": set()}


def test_an_arrow_upward_is_found(write: Write) -> None:
    arrows = write(
        {"message.py": "from .app import App", "app.py": "from .log.sqlite import x", "log/sqlite.py": ""}
    )
    assert layers.upward(arrows) == ["towpath.message imports towpath.app"]


def test_a_module_of_no_layer_is_found(write: Write) -> None:
    arrows = write({"helpers.py": "", "log/anything.py": "", "sandbox/kustomer.py": ""})
    assert layers.unplaced(arrows) == ["helpers"]


@pytest.mark.parametrize(
    ("module", "text", "breach"),
    [
        ("deliver.py", "def f():\n    from .sandbox import x", "towpath.deliver imports towpath.sandbox"),
        ("destinations/mine.py", "from ..log import Log", "towpath.destinations.mine imports towpath.log"),
        ("cli/dev.py", "from ..sandbox import x", None),
        ("destinations/mine.py", "from ..message import Message", None),
    ],
)
def test_looking_aside_and_extensions(write: Write, module: str, text: str, breach: str | None) -> None:
    arrows = write({module: text, "sandbox/__init__.py": "", "log/__init__.py": "", "message.py": ""})
    found = layers.astray(arrows)
    assert [line.startswith(breach or "-") for line in found] == ([True] if breach else [])
