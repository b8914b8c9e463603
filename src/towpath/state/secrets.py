"""The table of sealed secrets; what seals and opens them is in `towpath.secrets`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct
from sqlalchemy import Engine, delete, insert, select

from .tables import secrets


class Sealed(Struct, frozen=True):
    """One secret as it is stored; `updated_at` is Unix seconds."""

    name: str
    key_id: str
    sealed: bytes
    updated_at: float


class SealedSecrets:
    """Reads and writes the rows; every write is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> Sequence[Sealed]:
        """Every row, by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(secrets).order_by(secrets.c.name))
            return [Sealed(row.name, row.key_id, row.sealed, row.updated_at) for row in rows]

    def replace(self, rows: Collection[Sealed]) -> None:
        """Write rows over those of the same names."""
        with self._engine.begin() as connection:
            for row in rows:
                connection.execute(delete(secrets).where(secrets.c.name == row.name))
                connection.execute(
                    insert(secrets).values(
                        name=row.name, key_id=row.key_id, sealed=row.sealed, updated_at=row.updated_at
                    )
                )

    def delete(self, name: str) -> bool:
        """Remove a row; whether there was one."""
        with self._engine.begin() as connection:
            return connection.execute(delete(secrets).where(secrets.c.name == name)).rowcount > 0
