"""What `towpath init` and `towpath new destination` write: files to start from."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from .config import schema
from .errors import TowpathError
from .registry import FOLDER, destinations

_TEMPLATES = files("towpath") / "templates"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TEST_IMPORTS = (
    "from towpath.destination import Payload",
    "from towpath.message import Message",
    "from towpath.testing import DestinationContract",
)
_BATCH_IMPORTS = ("from towpath.http import Reply, Request",)
_ENV_HEAD = """\
# Copy to .env, fill in, and load it before starting:  set -a; . ./.env; set +a
"""


def templates() -> Sequence[str]:
    """The names `init` takes."""
    return sorted(Path(each.name).stem for each in _TEMPLATES.iterdir() if each.name.endswith(".yaml"))


def init(directory: Path, template: str) -> Sequence[Path]:
    """Write the files of a template and name them; nothing is overwritten. Raises `TowpathError`."""
    if template not in templates():
        known = ", ".join(templates())
        raise TowpathError(f'there is no template "{template}"', code="E2301", fix=f"choose one of: {known}")
    text = (_TEMPLATES / f"{template}.yaml").read_text("utf-8")
    contents = {
        "towpath.yaml": text,
        "towpath.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        ".env.example": _env(text),
        "tests/example.yaml": (_TEMPLATES / "fixtures" / f"{template}.yaml").read_text("utf-8"),
    }
    _none_exists(directory / name for name in contents)
    return [_write(directory / name, content) for name, content in contents.items()]


class Written(NamedTuple):
    """A destination that was begun: its file, its tests, and the type that towpath.yaml names."""

    file: Path
    tests: Path
    type: str


def destination(directory: Path, name: str, *, batch: bool = False) -> Written:
    """Write a destination that works and its tests; nothing is overwritten. Raises `TowpathError`.

    With `batch` it sends many items to a call. In a checkout of towpath they go where the built-in ones are,
    elsewhere into the folder `destinations`.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        title = f'"{name}" cannot be the type of a destination'
        raise TowpathError(
            title, code="E2304", fix="a letter, then lower-case letters, digits and _, like help_desk"
        )
    package = directory / "src" / "towpath" / "destinations"
    inside = package.is_dir()
    if name in destinations():
        title = f'there is a destination of the type "{name}" already'
        raise TowpathError(title, code="E2304", fix="choose another name", data="Nothing was written.")
    file = (package if inside else directory / FOLDER) / f"{name}.py"
    tests = (directory / "tests" / "destinations" if inside else directory / FOLDER) / f"test_{name}.py"
    texts = {
        file: _filled(f"destination{'_batch' * batch}.py.txt", name, inside),
        tests: _filled(f"test_destination{'_batch' * batch}.py.txt", name, inside, _BATCH_IMPORTS * batch),
    }
    _none_exists(texts)
    for path, text in texts.items():
        _write(path, text)
    return Written(file, tests, name)


def _filled(template: str, name: str, inside: bool, more: Sequence[str] = ()) -> str:  # noqa: FBT001
    words = name.split("_")
    text = (_TEMPLATES / template).read_text("utf-8")
    text = text.replace("__NAME__", name).replace("__TITLE__", " ".join(words).capitalize())
    text = text.replace("__CLASS__", "".join(word.capitalize() for word in words))
    module = f"towpath.destinations.{name}" if inside else name
    imports = [f"from {module} import {''.join(word.capitalize() for word in words)}", *_TEST_IMPORTS, *more]
    return text.replace("__IMPORTS__", "\n".join(sorted(imports)))


def _none_exists(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            raise TowpathError(
                f"{path} exists already",
                code="E2302",
                fix="name another directory, or remove the file",
                data="Nothing was written.",
            )


def _env(text: str) -> str:
    """One line per variable of the template."""
    return _ENV_HEAD + "".join(f"{name}=\n" for name in dict.fromkeys(_VARIABLE.findall(text)))


def _write(path: Path, content: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        title = f"{path} cannot be written: {error.strerror}"
        raise TowpathError(title, code="E2303", fix="check the directory and its permissions") from None
    return path
