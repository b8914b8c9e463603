"""The tables of state.db, as one schema for every engine."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

REVISION = "0003"  # the newest file of migrations/versions; a test keeps them in step

metadata = MetaData()

version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("updated_at", Float, nullable=False),
)

memory = Table(
    "memory",
    metadata,
    Column("connection", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("memory_expiry", "expires_at"),
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job", Text, nullable=False),
    Column("live_key", Text, unique=True),  # NULL once the run has ended: one live run per key
    Column("arguments", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("checkpoint", Text),
    Column("progress", Text, nullable=False),
    Column("error", Text, nullable=False),
    Index("job_runs_state", "state", "due_at"),
    Index("job_runs_job", "job", "id"),
    sqlite_autoincrement=True,  # a number is never given twice, also after old runs were deleted
)

job_lines = Table(
    "job_lines",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("level", Text, nullable=False),
    Column("text", Text, nullable=False),
    Index("job_lines_run", "run", "id"),
    sqlite_autoincrement=True,
)

job_schedules = Table(
    "job_schedules",
    metadata,
    Column("job", Text, primary_key=True),
    Column("spec", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("planned_at", Float, nullable=False),
    Column("next_at", Float, nullable=False),
)

known = Table(
    "known",
    metadata,
    Column("source", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("expires_at", Float),  # NULL: for good
    Index("known_expiry", "expires_at"),
)
