"""The tables of state.db, as one schema for every engine."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

REVISION = "0007"  # the newest file of migrations/versions; a test keeps them in step

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

devices = Table(
    "devices",
    metadata,
    Column("project", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("person", Text),  # NULL: nobody's
    Column("provisional", Boolean, nullable=False),
    Column("history", Boolean, nullable=False),
    Column("claimed", Boolean, nullable=False),
    Column("kind", Text),  # of the address; NULL when its token went to another device
    Column("address", Text),
    Column("platform", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("registered_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("cause", Text, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("told_at", Float, nullable=False),
    Column("removed_at", Float, nullable=False),
    Column("app", Text),
    Column("app_version", Text),
    Column("locale", Text),
    Column("timezone", Text),
    Column("proven", Boolean, nullable=False),
    Index("devices_address", "project", "kind", "address", unique=True),
    Index("devices_person", "project", "person"),
    Index("devices_report", "project", "status", "registered_at"),
)

push_people = Table(
    "push_people",
    metadata,
    Column("person", Text, primary_key=True),
    Column("named", Boolean, nullable=False),
    Column("traits", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
    Column("consent", Boolean),  # NULL: not said
    Column("consent_at", Float, nullable=False),
    Column("proven", Boolean, nullable=False),
)

push_outbox = Table(
    "push_outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

push_campaigns = Table(
    "push_campaigns",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("code", Text, nullable=False),
    Column("settings", Text, nullable=False),  # JSON: what is sent and to whom, as it stood at the launch
    Column("local_at", Text, nullable=False),  # a wall clock's time, empty where `due_at` is one moment
    Column("due_at", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("cursor", Text),  # the last device enlisted; NULL before the first
    Column("enlisted", Integer, nullable=False),
    Column("repeated", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False),
    Column("enlisted_at", Float, nullable=False),
    Column("members", Integer),  # of its segment; NULL before they were all read, or without one
    sqlite_autoincrement=True,
)

push_members = Table(
    "push_members",
    metadata,
    Column("campaign", Integer, primary_key=True),
    Column("person", Text, primary_key=True),
    sqlite_with_rowid=False,
)

push_sends = Table(
    "push_sends",
    metadata,
    Column("campaign", Integer, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("person", Text),
    Column("platform", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("first_due_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("changed_at", Float, nullable=False),
    Index("push_sends_due", "campaign", "state", "due_at"),
    sqlite_with_rowid=False,
)

push_singles = Table(
    "push_singles",
    metadata,
    Column("key", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("changed_at", Float, nullable=False),
    Index("push_singles_age", "changed_at"),
    sqlite_with_rowid=False,
)
