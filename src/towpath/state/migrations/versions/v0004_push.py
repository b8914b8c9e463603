"""The device registry: devices, what is known of people for pushes, and what is to be told of both."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the three tables."""
    _devices()
    op.create_table(
        "push_people",
        sa.Column("person", sa.Text, primary_key=True),
        sa.Column("named", sa.Boolean, nullable=False),
        sa.Column("traits", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("consent", sa.Boolean),
        sa.Column("consent_at", sa.Float, nullable=False),
    )
    op.create_table(
        "push_outbox",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )


def _devices() -> None:
    op.create_table(
        "devices",
        sa.Column("project", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("person", sa.Text),
        sa.Column("provisional", sa.Boolean, nullable=False),
        sa.Column("history", sa.Boolean, nullable=False),
        sa.Column("claimed", sa.Boolean, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("address", sa.Text),
        sa.Column("platform", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("first_seen", sa.Float, nullable=False),
        sa.Column("registered_at", sa.Float, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("told_at", sa.Float, nullable=False),
        sa.Column("removed_at", sa.Float, nullable=False),
        sa.Column("app", sa.Text),
        sa.Column("app_version", sa.Text),
        sa.Column("locale", sa.Text),
        sa.Column("timezone", sa.Text),
    )
    op.create_index("devices_address", "devices", ["project", "kind", "address"], unique=True)
    op.create_index("devices_person", "devices", ["project", "person"])
    op.create_index("devices_report", "devices", ["project", "status", "registered_at"])
