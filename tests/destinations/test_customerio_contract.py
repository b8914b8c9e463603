"""Customer.io meets the contract of every destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from towpath.destination import Scope
from towpath.destinations.customerio import CustomerIo
from towpath.outcome import Outcome, Paused, Retry
from towpath.testing.destination import STATUSES, DestinationContract
from towpath.testing.fakes import FakeTransport, Rule
from towpath.testing.samples import SAMPLES

from .customerio_world import KEYS, NOBODY, TAKES, WITH_APP

MOVED = {302: Retry, 307: Retry}
PAUSES = {300: Paused, 302: Paused, 307: Paused, 400: Paused, 405: Paused}


@pytest.mark.spec("D18")
class TestCustomerIo(DestinationContract):
    """A Customer.io that is asked for its region first; what that question meets costs no message."""

    destination = CustomerIo
    settings: ClassVar[Mapping[str, Any]] = {**KEYS, **WITH_APP}
    accepted = TAKES
    statuses: ClassVar[Mapping[int, type[Outcome]]] = {**STATUSES, **PAUSES}


class InAKnownRegion(DestinationContract):
    """The region was asked for before: every answer is one to a write."""

    destination = CustomerIo
    accepted = TAKES
    statuses: ClassVar[Mapping[int, type[Outcome]]] = {**STATUSES, **MOVED}

    def scope(self, *rules: Rule) -> tuple[Scope, FakeTransport]:
        scope, network = super().scope(*rules)
        made = self.make()
        assert isinstance(made, CustomerIo)
        scope.memory.keep(made._account._memory_key, "us", 60)
        return scope, network


class TestTrack(InAKnownRegion):
    """Writes through the Track API."""

    settings: ClassVar[Mapping[str, Any]] = {**KEYS}


class TestTrackWithConflicts(InAKnownRegion):
    """Writes through the Track API after a look-up."""

    settings: ClassVar[Mapping[str, Any]] = {**KEYS, **WITH_APP, "conflicts": "merge"}
    accepted = (*NOBODY, *TAKES)
    # Everybody is somebody else: behind one that failed, nothing of the same person has an outcome.
    samples = tuple(
        replace(sample, user_id=sample.user_id and f"user-{place}", anonymous_id=f"anonymous-{place}")
        for place, sample in enumerate(SAMPLES)
    )


class TestPipelines(InAKnownRegion):
    """Writes through the Pipelines API."""

    settings: ClassVar[Mapping[str, Any]] = {
        **KEYS,
        "api": "pipelines",
        "pipelines_write_key": "pipelines-secret",
    }
