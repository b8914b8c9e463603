"""Members of the segments that campaigns go to, when enlisting ended, and whose owners were proven."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns and the table. Of owners known already it is taken that a client named them."""
    proven = sa.Column("proven", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("devices", proven)
    op.add_column(
        "push_campaigns", sa.Column("enlisted_at", sa.Float, nullable=False, server_default=sa.text("0.0"))
    )
    op.add_column("push_campaigns", sa.Column("members", sa.Integer))
    op.create_table(
        "push_members",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("person", sa.Text, primary_key=True),
        sqlite_with_rowid=False,
    )
