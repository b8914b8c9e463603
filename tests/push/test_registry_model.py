"""The registry against a model of a page: whatever happens in whatever order, and however often."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct
from sqlalchemy import event

from towpath.device import Deleted, Device, DeviceEvent, Joined, Noted, Registered, Unregistered
from towpath.push.registry import Dead

from .registry_stage import START, Stage, registered, unregistered

DEVICES, USERS, TOKENS = ["d1", "d2", "d3", "d4"], ["ann", "bob", "cat"], ["t1", "t2", "t3"]
devices, tokens = st.sampled_from(DEVICES), st.sampled_from(TOKENS)
users, times = st.sampled_from(USERS), st.integers(0, 12)
kinds = st.sampled_from(["sign in", "sign in", "sign out", "unregister"])


class Known(Struct):
    """What is known of a device."""

    person: str | None = None
    token: str | None = None
    registered_at: float = 0.0
    active: bool = True


class Told(Struct):
    """What the model keeps of a device: since when it is known so, and by which message."""

    known: Known
    order: tuple[float, float]
    message: str


class Model:
    """One owner for a device, one device for an address, the last word by time; event by event."""

    def __init__(self) -> None:
        self.known: dict[str, Told] = {}

    def apply(self, told: DeviceEvent, noted: Noted) -> None:
        match told:
            case Registered(device=device, person=person, address=address, at=at):
                self._register(device, person, address.value, (at, noted.received_at), noted.message_id)
            case Unregistered(device=device, at=at):
                self._unregister(device, (at, noted.received_at), noted.message_id)
            case Joined(old=old, new=new):
                for one in self.known.values():
                    one.known.person = new if one.known.person == old else one.known.person
            case Deleted(person=person):
                self.known = {name: one for name, one in self.known.items() if one.known.person != person}

    def _register(
        self, device: str, person: str, token: str, order: tuple[float, float], message: str
    ) -> None:
        mine = self.known.get(device)
        late = mine is not None and mine.order > order
        if mine is not None and not late and mine.message == message:
            return
        others = [one for name, one in self.known.items() if name != device and one.known.token == token]
        for one in others:
            if one.order < order or (one.order == order and not late):
                one.known.token = None
        if not late:
            free = all(one.known.token is None for one in others)
            self.known[device] = Told(Known(person, token if free else None, order[0]), order, message)

    def _unregister(self, device: str, order: tuple[float, float], message: str) -> None:
        mine = self.known.setdefault(device, Told(Known(active=False), order, message))
        if mine.order <= order and mine.message != message:
            mine.order, mine.message, mine.known.active = order, message, False

    def remove(self, dead: Dead) -> None:
        one = self.known[dead.device].known if dead.device in self.known else Known(active=False)
        if one.active and (one.token, one.registered_at) == (dead.address.value, dead.registered_at):
            one.active = False


class Registering(RuleBasedStateMachine):
    """Feeds both the same, and compares what they know; and what was told with what holds."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.stage = Stage(self.path)
        event.listen(self.stage.engine, "connect", _fast)
        self.stage.engine.dispose()  # what is open is durable, which a model need not wait for
        self.model = Model()
        self.mirror: dict[str, str] = {}
        self.aliases: Counter[str] = Counter()
        self.last: list[Noted] = []
        self.seen: list[Device] = []
        self.numbers = itertools.count(1)

    def teardown(self) -> None:
        self.stage.close()
        shutil.rmtree(self.path)

    @rule(told=st.lists(st.tuples(kinds, devices, users, tokens, times), min_size=1, max_size=5))
    def messages(self, told: list[tuple[str, str, str, str, int]]) -> None:
        self._apply([_event(*one) for one in told])

    @rule(old=users, new=users)
    def joins(self, old: str, new: str) -> None:
        if old != new:
            self._apply([Joined(old=old, new=new, at=START)])

    @rule(person=users, device=devices, token=tokens, at=times)
    def deletes(self, person: str, device: str, token: str, at: int) -> None:
        for name, one in self.model.known.items():
            if one.known.person == person:
                del self.aliases[name]
        self._apply([Deleted(person=person, at=START), registered(device, "ann", token, START + at)])

    @rule()
    def delivers_again(self) -> None:
        """A crash between the commit and the settlement: the same batch comes once more."""
        self._feed(self.last)

    @rule()
    def looks(self) -> None:
        """Somebody reads whom to send to; the answers come later."""
        self.seen = [row.device for row in self.stage.registry._rows.page("", 100, audience=True)]

    @rule(choice=st.integers(0, 10))
    def hears_of_a_dead_address(self, choice: int) -> None:
        if not self.seen:
            return
        device = self.seen[choice % len(self.seen)]
        assert device.address is not None
        dead = Dead(device.id, device.address, device.registered_at, "UNREGISTERED")
        self.model.remove(dead)
        self.stage.registry._withdraw_dead([dead])

    def _apply(self, events: list[DeviceEvent]) -> None:
        self.stage.clock._elapsed += 1
        now = self.stage.clock.now()
        self._feed([Noted(f"m{next(self.numbers)}", (one,), now) for one in events])

    def _feed(self, batch: list[Noted]) -> None:
        for noted in batch:
            for one in noted.events:
                self.model.apply(one, noted)
                if isinstance(one, Deleted):
                    self.mirror = {token: who for token, who in self.mirror.items() if who != one.person}
        self.stage.registry._apply(batch)
        self.last = batch

    @invariant()
    def they_know_the_same(self) -> None:
        rows = [row.device for row in self.stage.registry._rows.page("", 100, audience=False)]
        found = {
            row.id: Known(row.person, _token(row), row.registered_at, row.status == "active") for row in rows
        }
        assert found == {name: one.known for name, one in self.model.known.items()}
        places = [row.address for row in rows if row.address is not None]
        assert len(places) == len(set(places)), "an address has one device"
        for message in self.stage.told():
            self._hear(message)
        reached = {
            row.address.value: row.person
            for row in rows
            if row.address and row.status == "active" and row.person and not row.provisional
        }
        assert self.mirror == reached, "what was told is what holds"
        assert all(count == 1 for count in self.aliases.values()), "a device is merged once"

    def _hear(self, message: dict[str, Any]) -> None:
        """What a tool that follows the messages knows: whose a token is."""
        if message["type"] == "alias":
            device = message["previousId"]
            self.aliases[device] += 1
            return
        if "context" not in message:
            return
        token = message["context"]["device"]["token"]
        if message["event"] == "Device Created or Updated":
            self.mirror[token] = message["userId"]
        else:
            assert self.mirror.pop(token) == message["userId"]


def _event(kind: str, device: str, person: str, token: str, at: float) -> DeviceEvent:
    if kind == "unregister":
        return unregistered(device, START + at)
    return registered(device, device if kind == "sign out" else person, token, START + at)


def _token(device: Device) -> str | None:
    return None if device.address is None else device.address.value


def _fast(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()


Registering.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRegistering = pytest.mark.spec("P005", "P012", "P025", "P040", "P041", "P042", "P044", "P046")(
    Registering.TestCase
)
