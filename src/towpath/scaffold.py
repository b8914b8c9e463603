"""`towpath init`: a commented towpath.yaml to start from, its schema for the editor, and an .env.example."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from .config import schema
from .errors import TowpathError

_TEMPLATES = files("towpath") / "templates"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")
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
    }
    for name in contents:
        if (directory / name).exists():
            raise TowpathError(
                f"{directory / name} exists already",
                code="E2302",
                fix="name another directory, or remove the file",
                data="Nothing was written.",
            )
    return [_write(directory / name, content) for name, content in contents.items()]


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
