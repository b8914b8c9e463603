"""Kustomer meets the contract of every destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from towpath.destinations.kustomer import ROLES, Kustomer
from towpath.testing.destination import DestinationContract

from .kustomer_world import NOT_FOUND, answer, customer


class TestKustomer(DestinationContract):
    """A Kustomer that knows nobody and takes everything."""

    destination = Kustomer
    settings: ClassVar[Mapping[str, Any]] = {"api_key": "kustomer-secret-key", "set_identity_email": True}
    accepted = (
        ("GET", "/v1/auth/tokens/current", answer(200, {"data": {"attributes": {"roles": list(ROLES)}}})),
        ("GET", "/v1/customers/*", NOT_FOUND),
        ("POST", "/v1/customers", answer(201, customer())),
        ("POST", "/v1/tracking/identityEvent", answer(201, {"data": {"id": "I1"}})),
    )
