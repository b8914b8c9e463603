"""A state.db of before segments: campaigns under way and devices are what they were."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from towpath.state import FILE, State
from towpath.state.campaigns import Campaigns
from towpath.state.devices import Devices
from towpath.state.engine import open_engine
from towpath.state.schema import upgrade

CAMPAIGN = (
    "INSERT INTO push_campaigns (code, settings, local_at, due_at, state, reason, cursor, enlisted, "
    "repeated, created_at, started_at, ended_at) "
    "VALUES ('hello', '{}', '', 1, 'sending', '', 'd1', 1, 0, 1, 1, 0)"
)
DEVICE = (
    "INSERT INTO devices (project, id, person, provisional, history, claimed, status, reason, first_seen, "
    "registered_at, changed_at, received_at, cause, seen_at, told_at, removed_at) "
    "VALUES ('shop', 'd1', 'ann', 0, 0, 1, 'active', '', 1, 1, 1, 1, 'm1', 1, 1, 0)"
)


def test_an_older_state_is_upgraded_with_its_campaigns_and_devices(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / FILE)
    with engine.begin() as connection:
        upgrade(connection, "0006")
        connection.execute(text(CAMPAIGN))
        connection.execute(text(DEVICE))
    engine.dispose()
    state = State.open(tmp_path)
    found = Campaigns(state.engine).find(1)
    assert found is not None
    assert (found.cursor, found.enlisted, found.enlisted_at, found.members) == ("d1", 1, 0.0, None)
    with state.engine.connect() as connection:
        (device,) = Devices(state.engine, "shop").by_id(connection, ["d1"])
    assert (device.person, device.claimed, device.proven) == ("ann", True, False)
    state.campaigns.keep_members(1, ["ann"])
    assert state.campaigns.end_members(1) == 1
    state.close()
