"""Push campaigns, what was sent to which device, and the pushes that events sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "push_campaigns",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("local_at", sa.Text, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text),
        sa.Column("enlisted", sa.Integer, nullable=False),
        sa.Column("repeated", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "push_sends",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("person", sa.Text),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("first_due_at", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("push_sends_due", "push_sends", ["campaign", "state", "due_at"])
    op.create_table(
        "push_singles",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("push_singles_age", "push_singles", ["changed_at"])
