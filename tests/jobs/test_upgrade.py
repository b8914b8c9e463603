"""A state.db of the version before jobs gets their tables, and keeps what it holds."""

from __future__ import annotations

from pathlib import Path

from towpath.state import FILE, Sealed, State
from towpath.state.engine import open_engine
from towpath.state.jobs import NewRun
from towpath.state.schema import revision, upgrade
from towpath.state.secrets import SealedSecrets
from towpath.state.tables import REVISION


def test_an_older_state_is_upgraded_with_what_it_holds(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / FILE)
    with engine.begin() as connection:
        upgrade(connection, "0001")
    secret = Sealed("key", "k1", b"sealed", 5.0)
    SealedSecrets(engine).replace([secret])
    engine.dispose()
    state = State.open(tmp_path)
    assert list(state.sealed_secrets.all()) == [secret]
    assert state.jobs.add(NewRun("job", "job", "{}", "hand", 1.0)) == 1
    state.close()
    engine = open_engine(tmp_path / FILE)
    with engine.connect() as connection:
        assert revision(connection) == REVISION
    engine.dispose()
