"""Customer.io's own clients, unchanged, against the simulator: Python and Node, all three APIs, webhooks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import customerio  # type: ignore[import-untyped]
import pytest
import requests
from customerio.analytics.client import Client as PipelinesClient  # type: ignore[import-untyped]
from customerio.constants import EMAIL, ID  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter

from towpath.sandbox.customerio import DEFAULT, ELSEWHERE, Credentials, CustomerIoSimulator
from towpath.sandbox.serve import serve

from .npm import NODE

pytestmark = pytest.mark.spec("D12")

_DRIVER = Path(__file__).parent / "customerio.cjs"
Modules = Callable[[], Path]
Step = tuple[str, str, list[Any]]


class Served:
    """A simulator and where it is served."""

    def __init__(self, simulator: CustomerIoSimulator, url: str) -> None:
        self.simulator = simulator
        self.url = url

    async def node(
        self, modules: Modules, *steps: Step, credentials: Credentials = DEFAULT
    ) -> list[dict[str, Any]]:
        """Make calls of the Node client one after the other; what each gave, or its status and error."""
        calls = [{"client": client, "method": method, "args": args} for client, method, args in steps]
        keys = {name: getattr(credentials, name) for name in credentials.__struct_fields__}
        plan = {"url": self.url, "steps": calls, **keys}
        process = await asyncio.create_subprocess_exec(
            NODE,
            _DRIVER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NODE_PATH": str(modules())},
        )
        try:
            said, complaints = await asyncio.wait_for(process.communicate(json.dumps(plan).encode()), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, complaints.decode()
        results: list[dict[str, Any]] = json.loads(said)
        return results

    async def gave(self, modules: Modules, *steps: Step) -> list[Any]:
        """Make calls of the Node client that must all work."""
        results = await self.node(modules, *steps)
        assert [result for result in results if "gave" not in result] == []
        return [result["gave"] for result in results]


@pytest.fixture
async def vendor() -> AsyncIterator[Served]:
    simulator = CustomerIoSimulator(app_per_s=1000, export_delay_s=0)
    async with serve(simulator) as url:
        yield Served(simulator, url)


class Plain(HTTPAdapter):
    """Carries what the client sends to https over plain HTTP: it knows no other scheme."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = (request.url or "").replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


def track_client(url: str, credentials: Credentials = DEFAULT) -> customerio.CustomerIO:
    address = url.removeprefix("http://")
    host, _, port = address.rpartition(":")
    client = customerio.CustomerIO(
        credentials.site_id, credentials.api_key, host=host, port=int(port), retries=0
    )
    client.http.mount("https://", Plain())
    return client


# -- Python --------------------------------------------------------------------------------------------


@pytest.mark.spec("C060", "C061", "C062", "C063", "C111")
async def test_the_python_track_client(vendor: Served) -> None:
    def drive() -> None:
        with track_client(vendor.url) as client:
            client.identify(id=5, email="a+b@example.com", plan="pro")
            client.identify("u/2 é", plan="free")
            client.track(
                5, "Ordered", {"total": 19.5}, id="01BX5ZZKBKACTAV9WEVGEMMVRY", timestamp=1_700_000_000
            )
            client.track(
                5, "Ordered", {"total": 19.5}, id="01BX5ZZKBKACTAV9WEVGEMMVRY", timestamp=1_700_000_000
            )
            client.pageview(5, "https://example.com/cart", referrer="x")
            client.backfill(5, "Before", 1_600_000_000, how="import")
            client.track_anonymous("an1", "Looked", {"page": 1})
            client.identify(5, anonymous_id="an1")
            client.add_device(5, "tok/1", "ios", last_used=1_700_000_000)
            client.add_device(5, "tok2", "android")
            client.delete_device(5, "tok/1")
            client.suppress("u/2 é")
            client.merge_customers(ID, "5", EMAIL, "old@example.com")
            client.batch(
                [{"type": "person", "action": "identify", "identifiers": {"id": "7"}, "attributes": {"a": 1}}]
            )
            client.identify("gone")
            client.delete("gone")

    await asyncio.to_thread(drive)
    simulator = vendor.simulator
    expected = {"id": "5", "email": "a+b@example.com", "plan": "pro", "anonymous_id": "an1"}
    assert simulator.person(id="5") == expected
    names = [event.name for event in simulator.events(id="5")]
    assert sorted(names) == ["Before", "Looked", "Ordered", "https://example.com/cart"]
    person = simulator.find(id="5")
    assert person is not None
    assert list(person.devices) == ["tok2"]
    assert simulator.profiles.suppressed() == [("id", "u/2 é")]
    assert simulator.person(id="7") == {"id": "7", "a": 1}
    assert len(simulator.state.people) == 2
    assert {seen.status for seen in simulator.requests} == {200}


@pytest.mark.spec("C092", "C111")
@pytest.mark.parametrize(
    "credentials",
    [Credentials(api_key=DEFAULT.app_api_key), ELSEWHERE],
    ids=["app key", "other region"],
)
async def test_the_python_track_client_is_told_what_is_wrong(
    vendor: Served, credentials: Credentials
) -> None:
    vendor.simulator.foreign_url = vendor.url.replace("127.0.0.1", "localhost")

    def drive() -> None:
        with track_client(vendor.url, credentials) as client:
            client.identify("u1")

    with pytest.raises(customerio.CustomerIOException, match=r"^401: "):
        await asyncio.to_thread(drive)
    assert not vendor.simulator.state.people


@pytest.mark.spec("C112")
async def test_the_python_app_client(vendor: Served) -> None:
    vendor.simulator.state.transactional.append({"id": 44, "name": "receipt"})

    def drive() -> Any:
        with customerio.APIClient(DEFAULT.app_api_key, url=vendor.url) as client:
            email = customerio.SendEmailRequest(
                to="a@example.com",
                transactional_message_id=44,
                identifiers={"id": "u1"},
                message_data={"a": 1},
            )
            email.attach("bill.txt", "paid")
            push = customerio.SendPushRequest(transactional_message_id=44, identifiers={"id": "u1"})
            return client.send_email(email), client.send_push(push)

    sent = await asyncio.to_thread(drive)
    assert [each["delivery_id"] for each in sent] == [
        each["delivery_id"] for each in vendor.simulator.state.sent
    ]


@pytest.mark.spec("C086")
@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
async def test_the_python_pipelines_client(vendor: Served, gzip: bool) -> None:
    failures: list[str] = []

    def drive() -> None:
        client = PipelinesClient(
            DEFAULT.write_key,
            host=vendor.url,
            gzip=gzip,
            upload_interval=0.05,
            on_error=lambda error, items: failures.append(str(error)),
        )
        client.identify("u1", {"email": "a@example.com"}, anonymous_id="an1")
        client.track("u1", "Ordered", {"total": 5})
        client.page("u1", None, "Cart")
        client.screen("u1", None, "Settings")
        client.group("u1", "acme", {"name": "Acme"})
        client.flush()
        client.join()

    await asyncio.to_thread(drive)
    assert failures == []
    assert (vendor.simulator.person(id="u1") or {})["email"] == "a@example.com"
    assert [event.kind for event in vendor.simulator.events(id="u1")] == ["event", "page", "screen"]
    assert len(vendor.simulator.state.objects) == 1


# -- Node ----------------------------------------------------------------------------------------------


def track(method: str, *args: Any) -> Step:
    return "track", method, list(args)


def app(method: str, *args: Any) -> Step:
    return "app", method, list(args)


@pytest.mark.spec("C060", "C061", "C062", "C063", "C093", "C111")
async def test_the_node_track_client(vendor: Served, modules: Modules) -> None:
    item = {"type": "person", "action": "event", "identifiers": {"id": "5"}, "name": "Batched"}
    vendor.simulator.state.messages.append({"id": "d1", "customer_identifiers": {"cio_id": "a300000001"}})
    gave = await vendor.gave(
        modules,
        track("getAccountRegion"),
        track("identify", 5, {"email": "a+b@example.com"}),
        track("identify", "é/2", {"plan": "free"}),
        track("track", 5, {"name": "Ordered", "data": {"total": 5}}),
        track("trackPageView", 5, "https://example.com/cart"),
        track("trackAnonymous", "an1", {"name": "Looked"}),
        track("identify", 5, {"anonymous_id": "an1"}),
        track("addDevice", 5, "tok/1", "ios", {"last_used": 1_700_000_000, "app_version": "2"}),
        track("deleteDevice", 5, "nobody"),
        track("batch", [item]),
        track("entity", item),
        app("createSegment", {"name": "VIP"}),
        track("addCustomersToSegment", 1, [5, "é/2"]),
        track("removeCustomersFromSegment", 1, ["é/2"], "id"),
        track("trackPush", {"delivery_id": "d1", "event": "opened", "device_id": "t", "timestamp": 5}),
        track("reportMetric", {"delivery_id": "d1", "metric": "clicked", "timestamp": 6}),
        track("submitForm", "f1", {"email": "form@example.com"}),
        track("unsubscribe", "d1"),
        track("mergeCustomers", "id", 5, "email", "form@example.com"),
        track("suppress", "é/2"),
        track("unsuppress", "é/2"),
        track("destroy", "é/2"),
    )
    simulator = vendor.simulator
    assert gave[0]["region"] == "us"
    assert {json.dumps(each) for index, each in enumerate(gave) if index not in {0, 11}} == {"{}"}
    person = simulator.find(id="5")
    assert person is not None
    assert simulator.person(id="5") == {
        "id": "5",
        "email": "a+b@example.com",
        "anonymous_id": "an1",
        "unsubscribed": True,
    }
    names = sorted(event.name for event in person.events)
    assert names == ["Batched", "Batched", "Looked", "Ordered", "https://example.com/cart"]
    assert person.devices["tok/1"].attributes == {"app_version": "2"}
    assert simulator.state.segments[1].members == {person.cio_id}
    assert simulator.state.messages[0]["metrics"].keys() == {"opened", "clicked", "unsubscribed"}
    assert len(simulator.state.people) == 1


EVERYBODY = {"and": [{"attribute": {"field": "cio_id", "operator": "exists"}}]}


@pytest.mark.spec("C064", "C065", "C066", "C067", "C068", "C069", "C112")
async def test_the_node_app_client_reads(vendor: Served, modules: Modules) -> None:
    state = vendor.simulator.state
    state.campaigns.append({"id": 5, "name": "Welcome"})
    state.newsletters.append({"id": 3})
    state.broadcasts.append({"id": 4})
    state.messages.append({"id": "m1", "created": state.now(), "campaign_id": 5, "metrics": {"sent": 1}})
    await vendor.gave(
        modules,
        track("identify", "u1", {"email": "a+b@example.com", "plan": "pro"}),
        track("track", "u1", {"name": "Ordered"}),
        app("createSegment", {"name": "VIP"}),
        track("addCustomersToSegment", 1, ["u1"]),
    )
    names = [
        *(
            "listCampaigns",
            "listBroadcasts",
            "listNewsletters",
            "listSegments",
            "listActivities",
            "listExports",
        ),
        *("listObjectTypes", "listSubscriptionTopics", "listTransactionalMessages", "listWorkspaces"),
        *("listCollections", "getSnippets", "getSenderIdentities", "listReportingWebhooks", "getMessages"),
        "getIpAddresses",
    ]
    assert all(await vendor.gave(modules, *(app(name) for name in names)))
    found = await vendor.gave(
        modules,
        app("getCustomersByEmail", "a+b@example.com"),
        app("searchCustomers", EVERYBODY, {"limit": 10}),
        app("getAttributes", "a+b@example.com", "email"),
        app("getCustomersAttributes", ["u1"]),
        app("getCustomerActivities", "u1", {"type": "event"}),
        app("getCustomerSegments", "u1"),
        app("getSegmentMembership", 1),
        app("getSegmentCustomerCount", 1),
        app("getCampaign", 5),
        app("getCampaignMetrics", 5, {"version": 1, "period": "days", "steps": 2}),
        app("getCampaignMessages", 5),
    )
    assert found[0]["results"][0]["id"] == "u1"
    assert found[1]["ids"] == ["u1"]
    assert found[2]["customer"]["attributes"]["plan"] == "pro"
    assert found[3]["customers"][0]["id"] == "u1"
    assert found[4]["activities"][0]["name"] == "Ordered"
    assert found[5]["segments"][0]["name"] == "VIP"
    assert (found[6]["ids"], found[7]["count"]) == (["u1"], 1)
    assert found[8]["campaign"]["name"] == "Welcome"
    assert found[9]["metric"]["series"]["sent"] == [0, 0]
    assert found[10]["messages"][0]["id"] == "m1"


@pytest.mark.spec("C106", "C112")
async def test_the_node_app_client_writes(vendor: Served, modules: Modules) -> None:
    vendor.simulator.state.transactional.append({"id": 44, "name": "receipt"})
    email = {"to": "a@example.com", "transactional_message_id": 44, "identifiers": {"id": "u1"}}
    webhook = {"name": "hub", "endpoint": "https://example.com", "events": ["email_sent"]}
    gave = await vendor.gave(
        modules,
        app("sendEmail", email),
        app("createReportingWebhook", webhook),
        app("updateReportingWebhook", 1, {"disabled": True}),
        app("getReportingWebhook", 1),
        app("deleteReportingWebhook", 1),
        app("createCustomersExport", EVERYBODY),
        app("updateSnippet", {"name": "address", "value": "here"}),
        app("createCollection", {"name": "events", "data": [{"a": 1}]}),
        app("createSuppression", "bounces", "a@example.com"),
        app("getSuppressions", "bounces", {"limit": 5}),
    )
    assert gave[0]["delivery_id"] == vendor.simulator.state.sent[0]["delivery_id"]
    assert (gave[1]["id"], gave[3]["disabled"]) == (1, True)
    assert vendor.simulator.state.reporting_webhooks == []
    assert gave[9]["suppressions"][0]["email"] == "a@example.com"
    number = gave[5]["export"]["id"]
    (link,) = await vendor.gave(modules, app("downloadExport", number))
    assert link["url"].startswith(f"{vendor.url}/exports/")


@pytest.mark.spec("C086")
async def test_the_node_pipelines_client(vendor: Served, modules: Modules) -> None:
    def pipelines(method: str, payload: Any) -> Step:
        return "pipelines", method, [payload]

    results = await vendor.node(
        modules,
        pipelines("identify", {"userId": "u1", "anonymousId": "an1", "traits": {"plan": "pro"}}),
        pipelines("track", {"userId": "u1", "event": "Ordered"}),
        pipelines("page", {"userId": "u1", "name": "Cart"}),
        pipelines("screen", {"userId": "u1", "name": "Settings"}),
        pipelines("group", {"userId": "u1", "groupId": "acme"}),
        pipelines("batch", [{"type": "track", "userId": "u1", "event": "Batched"}]),
        pipelines("alias", {"userId": "u1", "previousId": "u0"}),
        pipelines("identify", {"userId": "u1", "traits": {"note": "x" * 1001}}),
    )
    assert [result.get("status", 200) for result in results] == [200] * 7 + [400]
    names = [event.name for event in vendor.simulator.events(id="u1")]
    assert names == ["Ordered", "Cart", "Settings", "Batched"]


@pytest.mark.spec("C092", "C093", "C111", "C112", "C123", "D18")
async def test_the_node_client_reads_every_refusal(vendor: Served, modules: Modules) -> None:
    vendor.simulator.state.transactional.append({"id": 44, "name": "receipt"})
    refused = await vendor.node(
        modules,
        track("identify", "u1", {"note": "x" * 1001}),
        track("entity", {"type": "person", "action": "dance"}),
        app("getSegment", 9),
        app("sendEmail", {"to": "", "transactional_message_id": 44, "identifiers": {"id": "u1"}}),
    )
    assert [result["status"] for result in refused] == [400, 400, 404, 400]
    texts = [result["error"] for result in refused]
    assert texts[0].endswith("value for attribute 'note' cannot be longer than 1000 bytes")
    assert texts[2] == "Unknown error", "it does not read the App API's own envelope"
    assert texts[3] == "to is required"
    swapped = Credentials(api_key=DEFAULT.app_api_key, app_api_key=DEFAULT.api_key, write_key="nobody")
    wrong = await vendor.node(
        modules,
        track("getAccountRegion"),
        app("listCampaigns"),
        ("pipelines", "track", [{"userId": "u1", "event": "a"}]),
        credentials=swapped,
    )
    assert [result["status"] for result in wrong] == [401] * 3
    vendor.simulator.foreign_url = vendor.url
    elsewhere = await vendor.node(
        modules,
        track("getAccountRegion"),
        track("identify", "u1", {}),
        app("listCampaigns"),
        credentials=ELSEWHERE,
    )
    assert elsewhere[0]["gave"]["region"] == "eu"
    assert [result["status"] for result in elsewhere[1:]] == [401, 401], (
        "it follows, but leaves its key behind"
    )
    assert not vendor.simulator.state.people


async def test_the_node_client_comes_again_after_a_fault(vendor: Served, modules: Modules) -> None:
    faults = vendor.simulator.faults
    faults.add("status", status=503, count=1)
    faults.add("status", status=429, headers={"retry-after": "0"}, count=1)
    faults.add("reset", count=1)
    await vendor.gave(modules, track("identify", "u1", {"plan": "pro"}))
    assert [seen.status for seen in vendor.simulator.requests] == [503, 429, 0, 200]


@pytest.mark.spec("C116")
async def test_the_node_client_verifies_our_webhooks(vendor: Served, modules: Modules) -> None:
    webhooks, posted = vendor.simulator.webhooks, []

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        posted.append((headers, body))
        return 200

    webhooks.post = post
    webhook = {"id": 1, "endpoint": "http://hub", "events": ["email_sent"]}
    vendor.simulator.state.reporting_webhooks.append(webhook)
    webhooks.emit("email", "sent", subject="é ☃")
    await webhooks.deliver()
    ((headers, body),) = posted
    given = {
        "signingSecret": webhooks.signing_key,
        "timestamp": headers["x-cio-timestamp"],
        "body": body.decode(),
        "signature": headers["x-cio-signature"],
    }
    verified = await vendor.gave(
        modules,
        ("webhooks", "verify", [given]),
        ("webhooks", "verify", [{**given, "body": given["body"] + " "}]),
    )
    assert verified == [True, False]
