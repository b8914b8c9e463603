"""Every endpoint that our own client can call is one the simulated Customer.io has."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from towpath.http import Reply
from towpath.sandbox.customerio import CustomerIoSimulator
from towpath.vendors.customerio import AppApi, PipelinesApi, TrackApi

PLUMBING = frozenset({"VendorApi", "Reading"})
OF_WORDS = {"res": "days", "suppression": "bounces"}


class Door:
    """Notes where a call goes and answers that it worked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def request(self, method: str, url: str, **_: Any) -> Reply:
        self.asked.append((method, urlsplit(url).path))
        return Reply(200, {}, b"{}")


def calls() -> Iterator[tuple[type, str]]:
    for api in (TrackApi, AppApi, PipelinesApi):
        for name, member in inspect.getmembers(api, inspect.iscoroutinefunction):
            if not name.startswith("_") and member.__qualname__.partition(".")[0] not in PLUMBING:
                yield api, name


def arguments(signature: inspect.Signature) -> dict[str, Any]:
    """A value for each argument that has none by itself."""
    found: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        required = (
            parameter.default is inspect.Parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        )
        if required and name != "self":
            found[name] = {} if parameter.annotation == "Body" else OF_WORDS.get(name, "1")
    return found


@pytest.mark.spec(*(f"C0{n}" for n in range(60, 70)), "D12")
@pytest.mark.parametrize(("api", "name"), list(calls()))
async def test_the_simulator_has_what_the_client_calls(api: Any, name: str) -> None:
    door = Door()
    method = getattr(api(door, "http://box", {}), name)
    await method(**arguments(inspect.signature(method)))
    assert [CustomerIoSimulator().knows(*asked) for asked in door.asked] == [True], door.asked


def test_all_three_apis_are_covered() -> None:
    counts = {api: [found for found, _ in calls()].count(api) for api in (TrackApi, AppApi, PipelinesApi)}
    assert (counts[TrackApi], counts[PipelinesApi]) == (18, 7)
    assert counts[AppApi] >= 80
