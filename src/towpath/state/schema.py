"""Brings state.db to the schema of this version; Alembic is imported only when there is something to do."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select

from towpath.errors import TowpathError

from .tables import REVISION, metadata, version

MIGRATIONS = Path(__file__).parent / "migrations"


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(version.c.version_num)).scalar()


def migrate(connection: Connection) -> None:
    """Create, or bring up to date, in the caller's transaction. Raises `TowpathError` for a newer schema."""
    found = revision(connection)
    if found == REVISION:
        return
    if found is None:
        metadata.create_all(connection)
        connection.execute(insert(version).values(version_num=REVISION))
        return
    if found > REVISION:
        raise TowpathError(
            f"state.db has the schema {found}, newer than this version's {REVISION}",
            code="E5102",
            fix="run the version of towpath that wrote it, or a newer one",
            data="Nothing was changed.",
        )
    upgrade(connection)


def upgrade(connection: Connection, to: str = REVISION) -> None:
    """Run the migrations up to a revision."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
