"""state.db: created at once, migrated when old, refused when newer or no database; readable by its owner."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from towpath.errors import TowpathError
from towpath.state import FILE, State, schema
from towpath.state.engine import WAL_SAFE, library, open_engine
from towpath.state.schema import MIGRATIONS, revision, upgrade
from towpath.state.tables import REVISION


def shape(path: Path) -> dict[str, object]:
    """Tables, columns, keys and indexes of a database."""
    engine = create_engine(f"sqlite:///{path}")
    seen = inspect(engine)
    found: dict[str, object] = {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in seen.get_columns(table)],
            seen.get_pk_constraint(table)["constrained_columns"],
            [(index["name"], index["column_names"]) for index in seen.get_indexes(table)],
        )
        for table in sorted(seen.get_table_names())
    }
    engine.dispose()
    return found


def migrated(path: Path) -> None:
    engine = open_engine(path)
    with engine.begin() as connection:
        upgrade(connection)
        assert revision(connection) == REVISION
    engine.dispose()


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    migrated(tmp_path / "old.db")
    State.open(tmp_path / "new").close()
    assert shape(tmp_path / "old.db") == shape(tmp_path / "new" / FILE)


def test_the_newest_migration_is_the_revision_of_the_tables() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    State.open(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as older:
        older.execute("UPDATE alembic_version SET version_num = '0000'")
    older.close()
    upgraded: list[str | None] = []
    monkeypatch.setattr(schema, "upgrade", lambda connection: upgraded.append(revision(connection)))
    State.open(tmp_path).close()
    assert upgraded == ["0000"]


def test_a_schema_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    State.open(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    newer.close()
    with pytest.raises(TowpathError, match="9999, newer than this version's"):
        State.open(tmp_path)


def test_what_is_no_database_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("this is no database, but long enough to have a header" * 20)
    with pytest.raises(TowpathError, match="cannot be used: file is not a database") as caught:
        State.open(tmp_path)
    assert caught.value.fix
    with pytest.raises(TowpathError, match="cannot be used"):
        State.open(tmp_path / FILE / "below")


@pytest.mark.spec("D08")
def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    State.open(tmp_path / "data").close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / FILE).stat().st_mode & 0o777 == 0o600


def test_write_ahead_logging_only_with_a_sqlite_that_has_the_fix(tmp_path: Path) -> None:
    class Old:
        sqlite_version_info = (3, 51, 2)

        def __getattr__(self, name: str) -> object:
            return getattr(sqlite3, name)

    for sqlite, expected in (
        (None, "wal" if library().sqlite_version_info >= WAL_SAFE else "truncate"),
        (Old(), "truncate"),
    ):
        engine = open_engine(tmp_path / f"{expected}{sqlite is None}.db", sqlite)  # type: ignore[arg-type]
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == expected
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
        engine.dispose()


def test_opening_imports_no_migration_code(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n"
        "from pathlib import Path\nfrom towpath.state import State\n"
        f"State.open(Path({str(tmp_path)!r})).close(); State.open(Path({str(tmp_path)!r})).close()\n"
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
