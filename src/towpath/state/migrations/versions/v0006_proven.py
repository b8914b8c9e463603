"""Whether it is proven that somebody is a person, and no device: of those known already it is taken so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    column = sa.Column("proven", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("push_people", column)
    op.execute("UPDATE push_people SET proven = named")
