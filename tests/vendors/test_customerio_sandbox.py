"""Customer.io's client and the simulated workspace: written with one API, read page by page with another."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from towpath.http import Http, Reply, Request
from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.customerio_state import Switches
from towpath.sandbox.exchange import Incoming
from towpath.testing.fakes import FakeClock, FakeTransport
from towpath.vendors.customerio import (
    AppApi,
    PipelinesApi,
    TrackApi,
    app_credentials,
    pages,
    pipelines_credentials,
    track_credentials,
)

BASE = "http://cio.test"
EVERYBODY = {"filter": {"and": [{"attribute": {"field": "cio_id", "operator": "exists"}}]}}


class Workspace:
    """A simulated workspace and the three APIs opened with its keys."""

    def __init__(self, *, empty_pages: bool = False) -> None:
        clock = FakeClock()
        self.vendor = CustomerIoSimulator(
            clock=clock, switches=Switches(empty_pages=empty_pages), app_per_s=1000
        )
        http = Http(FakeTransport(("*", "*", self._answer)), clock)
        self.track = TrackApi(http, BASE, track_credentials(DEFAULT.site_id, DEFAULT.api_key))
        self.app = AppApi(http, BASE, app_credentials(DEFAULT.app_api_key))
        self.pipelines = PipelinesApi(http, BASE, pipelines_credentials(DEFAULT.write_key))

    def _answer(self, request: Request) -> Reply:
        url = urlsplit(request.url)
        headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        incoming = Incoming(request.method, url.path, url.query, headers, request.body, len(request.body))
        answer = self.vendor.answer(incoming)
        return Reply(answer.status, {}, answer.body)


@pytest.mark.spec("C060", "C067", "C068", "R013", "R047", "D11")
@pytest.mark.parametrize("empty_pages", [False, True])
async def test_everybody_is_found_page_by_page(empty_pages: bool) -> None:
    workspace = Workspace(empty_pages=empty_pages)
    ids = ["u1", "a/b c", "ü+1", "100%", "j+1@example.com"]
    for identifier in ids:
        await workspace.track.identify(identifier, {"plan": "pro"})
    found = [page async for page in pages(workspace.app.search_customers, EVERYBODY, limit=2)]
    assert len(found) >= 3
    people = [person for page in found for person in page["identifiers"] or ()]
    assert sorted(person["id"] or person["email"] for person in people) == sorted(ids)
    [by_email] = (await workspace.app.customers_by_email("j+1@example.com")).json()["results"]
    assert by_email["email"] == "j+1@example.com"
    for identifier in ids[:4]:
        attributes = (await workspace.app.customer_attributes(identifier)).json()["customer"]["attributes"]
        assert attributes["plan"] == "pro"


@pytest.mark.spec("C061", "C062", "C063", "C069")
async def test_events_of_all_three_apis_are_read_back() -> None:
    workspace = Workspace()
    await workspace.track.track("u1", {"name": "one"})
    await workspace.track.entity(
        {"type": "person", "action": "event", "identifiers": {"id": "u1"}, "name": "two"}
    )
    await workspace.pipelines.track({"userId": "u1", "event": "three", "messageId": "m"})
    kinds = [
        activity
        async for page in pages(workspace.app.customer_activities, "u1", type="event", limit=1)
        for activity in page["activities"]
    ]
    assert sorted(activity["name"] for activity in kinds) == ["one", "three", "two"]
    assert (await workspace.app.customer_activities("nobody")).status == 404
