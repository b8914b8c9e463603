"""Customer.io's client against a recording network: where each method goes, and with what."""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import pytest

from towpath.http import Http, Reply, Undelivered
from towpath.outcome import Rejected, Retry
from towpath.testing.fakes import FakeClock, FakeTransport
from towpath.vendors import customerio
from towpath.vendors.customerio import AppApi, PipelinesApi, TrackApi, pages

Row: TypeAlias = tuple[str, tuple[Any, ...], Mapping[str, Any], str]
BODY = {"a": 1}

# The endpoints as Customer.io's three OpenAPI documents name them: those that the product needs.
TRACK = """
GET /api/v1/accounts/region
PUT /api/v1/customers/{identifier}
DELETE /api/v1/customers/{identifier}
PUT /api/v1/customers/{identifier}/devices
DELETE /api/v1/customers/{identifier}/devices/{device_id}
POST /api/v1/customers/{identifier}/suppress
POST /api/v1/customers/{identifier}/unsuppress
POST /unsubscribe/{delivery_id}
POST /api/v1/customers/{identifier}/events
POST /api/v1/events
POST /api/v1/forms/{form_id}/submit
POST /api/v1/merge_customers
POST /api/v1/metrics
POST /api/v1/push/events
POST /api/v1/segments/{segment_id}/add_customers
POST /api/v1/segments/{segment_id}/remove_customers
POST /api/v2/entity
POST /api/v2/batch
"""
PIPELINES = """
POST /v1/identify
POST /v1/track
POST /v1/page
POST /v1/screen
POST /v1/group
POST /v1/alias
POST /v1/batch
"""
APP = """
GET /v1/campaigns
GET /v1/campaigns/{campaign_id}
GET /v1/campaigns/{campaign_id}/metrics
GET /v1/campaigns/{campaign_id}/metrics/links
GET /v1/campaigns/{campaign_id}/journey_metrics
GET /v1/campaigns/{campaign_id}/actions
GET /v1/campaigns/{campaign_id}/actions/{action_id}
GET /v1/campaigns/{campaign_id}/actions/{action_id}/metrics
GET /v1/campaigns/{campaign_id}/actions/{action_id}/metrics/links
GET /v1/campaigns/{campaign_id}/messages
GET /v1/broadcasts
GET /v1/broadcasts/{broadcast_id}
GET /v1/broadcasts/{broadcast_id}/metrics
GET /v1/broadcasts/{broadcast_id}/metrics/links
GET /v1/broadcasts/{broadcast_id}/actions
GET /v1/broadcasts/{broadcast_id}/actions/{action_id}
GET /v1/broadcasts/{broadcast_id}/actions/{action_id}/metrics
GET /v1/broadcasts/{broadcast_id}/actions/{action_id}/metrics/links
GET /v1/broadcasts/{broadcast_id}/messages
GET /v1/broadcasts/{broadcast_id}/triggers
GET /v1/campaigns/{broadcast_id}/triggers/{trigger_id}
GET /v1/campaigns/{broadcast_id}/triggers/{trigger_id}/errors
POST /v1/campaigns/{broadcast_id}/triggers
GET /v1/newsletters
GET /v1/newsletters/{newsletter_id}
GET /v1/newsletters/{newsletter_id}/metrics
GET /v1/newsletters/{newsletter_id}/metrics/links
GET /v1/newsletters/{newsletter_id}/contents
GET /v1/newsletters/{newsletter_id}/contents/{content_id}
GET /v1/newsletters/{newsletter_id}/contents/{content_id}/metrics
GET /v1/newsletters/{newsletter_id}/contents/{content_id}/metrics/links
GET /v1/newsletters/{newsletter_id}/test_groups
GET /v1/newsletters/{newsletter_id}/messages
GET /v1/transactional
GET /v1/transactional/{transactional_id}
GET /v1/transactional/{transactional_id}/contents
GET /v1/transactional/{transactional_id}/metrics
GET /v1/transactional/{transactional_id}/metrics/links
GET /v1/transactional/{transactional_id}/messages
GET /v1/customers
POST /v1/customers
POST /v1/customers/attributes
GET /v1/customers/{customer_id}/attributes
GET /v1/customers/{customer_id}/segments
GET /v1/customers/{customer_id}/messages
GET /v1/customers/{customer_id}/activities
GET /v1/customers/{customer_id}/relationships
GET /v1/customers/{customer_id}/subscription_preferences
GET /v1/activities
GET /v1/messages
GET /v1/messages/{message_id}
GET /v1/messages/{message_id}/archived_message
GET /v1/segments
GET /v1/segments/{segment_id}
POST /v1/segments
DELETE /v1/segments/{segment_id}
GET /v1/segments/{segment_id}/customer_count
GET /v1/segments/{segment_id}/membership
GET /v1/segments/{segment_id}/used_by
GET /v1/object_types
POST /v1/objects
GET /v1/objects/{object_type_id}/{object_id}/attributes
GET /v1/objects/{object_type_id}/{object_id}/relationships
GET /v1/exports
GET /v1/exports/{export_id}
GET /v1/exports/{export_id}/download
POST /v1/exports/customers
POST /v1/exports/deliveries
GET /v1/workspaces
GET /v1/info/ip_addresses
GET /v1/subscription_topics
GET /v1/sender_identities
GET /v1/sender_identities/{sender_id}
GET /v1/sender_identities/{sender_id}/used_by
GET /v1/snippets
PUT /v1/snippets
DELETE /v1/snippets/{snippet_name}
GET /v1/collections
GET /v1/collections/{collection_id}
GET /v1/collections/{collection_id}/content
POST /v1/collections
PUT /v1/collections/{collection_id}
PUT /v1/collections/{collection_id}/content
DELETE /v1/collections/{collection_id}
GET /v1/reporting_webhooks
GET /v1/reporting_webhooks/{webhook_id}
POST /v1/reporting_webhooks
PUT /v1/reporting_webhooks/{webhook_id}
DELETE /v1/reporting_webhooks/{webhook_id}
GET /v1/esp/suppression/{suppression_type}
GET /v1/esp/search_suppression/{email_address}
POST /v1/esp/suppression/{suppression_type}/{email_address}
DELETE /v1/esp/suppression/{suppression_type}/{email_address}
POST /v1/send/email
POST /v1/send/push
POST /v1/send/sms
POST /v1/send/in_app
POST /v1/send/inbox_message
"""

TRACK_CALLS: list[Row] = [
    ("region", (), {}, "GET /api/v1/accounts/region"),
    ("identify", ("a/b c", BODY), {}, "PUT /api/v1/customers/a%2Fb%20c"),
    ("delete_customer", ("j+1@x.com",), {}, "DELETE /api/v1/customers/j%2B1%40x.com"),
    ("add_device", ("u1", BODY), {}, "PUT /api/v1/customers/u1/devices"),
    ("delete_device", ("u1", "to:k/e=n"), {}, "DELETE /api/v1/customers/u1/devices/to%3Ak%2Fe%3Dn"),
    ("suppress", ("ü",), {}, "POST /api/v1/customers/%C3%BC/suppress"),
    ("unsuppress", ("u1",), {}, "POST /api/v1/customers/u1/unsuppress"),
    ("unsubscribe", ("d=",), {}, "POST /unsubscribe/d%3D"),
    ("track", ("u?1#", BODY), {}, "POST /api/v1/customers/u%3F1%23/events"),
    ("track_anonymous", (BODY,), {}, "POST /api/v1/events"),
    ("submit_form", ("f1", BODY), {}, "POST /api/v1/forms/f1/submit"),
    ("merge", (BODY,), {}, "POST /api/v1/merge_customers"),
    ("report_metric", (BODY,), {}, "POST /api/v1/metrics"),
    ("report_push", (BODY,), {}, "POST /api/v1/push/events"),
    ("add_to_segment", (7, BODY), {}, "POST /api/v1/segments/7/add_customers?id_type=id"),
    (
        "remove_from_segment",
        (7, BODY),
        {"id_type": "email"},
        "POST /api/v1/segments/7/remove_customers?id_type=email",
    ),
    ("entity", (BODY,), {}, "POST /api/v2/entity"),
    ("batch", (BODY,), {}, "POST /api/v2/batch"),
]
PIPELINES_CALLS: list[Row] = [
    (name, (BODY,), {}, f"POST /v1/{name}")
    for name in ("identify", "track", "page", "screen", "group", "alias", "batch")
]
APP_CALLS: list[Row] = [
    ("campaigns", (), {}, "GET /v1/campaigns"),
    ("campaign", (5,), {}, "GET /v1/campaigns/5"),
    (
        "campaign_metrics",
        (5,),
        {"version": "2", "res": "days", "tz": "Europe/Berlin", "start": 1, "end": 2},
        "GET /v1/campaigns/5/metrics?version=2&res=days&tz=Europe%2FBerlin&start=1&end=2",
    ),
    ("campaign_link_metrics", (5,), {"unique": True}, "GET /v1/campaigns/5/metrics/links?unique=true"),
    (
        "campaign_journey_metrics",
        (5,),
        {"start": 1, "end": 2, "res": "days"},
        "GET /v1/campaigns/5/journey_metrics?start=1&end=2&res=days",
    ),
    ("campaign_actions", (5,), {"start": "MTo1"}, "GET /v1/campaigns/5/actions?start=MTo1"),
    ("campaign_action", (5, "96"), {}, "GET /v1/campaigns/5/actions/96"),
    (
        "campaign_action_metrics",
        (5, 96),
        {"version": "1", "period": "days", "steps": 2},
        "GET /v1/campaigns/5/actions/96/metrics?version=1&period=days&steps=2",
    ),
    (
        "campaign_action_link_metrics",
        (5, 96),
        {"type": "email"},
        "GET /v1/campaigns/5/actions/96/metrics/links?type=email",
    ),
    ("campaign_messages", (5,), {"limit": 9}, "GET /v1/campaigns/5/messages?limit=9"),
    ("broadcasts", (), {}, "GET /v1/broadcasts"),
    ("broadcast", (2,), {}, "GET /v1/broadcasts/2"),
    ("broadcast_metrics", (2,), {"steps": 0}, "GET /v1/broadcasts/2/metrics?steps=0"),
    ("broadcast_link_metrics", (2,), {}, "GET /v1/broadcasts/2/metrics/links"),
    ("broadcast_actions", (2,), {}, "GET /v1/broadcasts/2/actions"),
    ("broadcast_action", (2, 3), {}, "GET /v1/broadcasts/2/actions/3"),
    ("broadcast_action_metrics", (2, 3), {}, "GET /v1/broadcasts/2/actions/3/metrics"),
    ("broadcast_action_link_metrics", (2, 3), {}, "GET /v1/broadcasts/2/actions/3/metrics/links"),
    ("broadcast_messages", (2,), {"state": "sent"}, "GET /v1/broadcasts/2/messages?state=sent"),
    ("broadcast_triggers", (2,), {}, "GET /v1/broadcasts/2/triggers"),
    ("broadcast_trigger", (2, 3), {}, "GET /v1/campaigns/2/triggers/3"),
    ("broadcast_trigger_errors", (2, 3), {"start": "x"}, "GET /v1/campaigns/2/triggers/3/errors?start=x"),
    ("trigger_broadcast", (2, BODY), {}, "POST /v1/campaigns/2/triggers"),
    ("newsletters", (), {"limit": 100, "sort": "asc"}, "GET /v1/newsletters?sort=asc&limit=100"),
    ("newsletter", (1,), {}, "GET /v1/newsletters/1"),
    ("newsletter_metrics", (1,), {}, "GET /v1/newsletters/1/metrics"),
    ("newsletter_link_metrics", (1,), {}, "GET /v1/newsletters/1/metrics/links"),
    ("newsletter_contents", (1,), {}, "GET /v1/newsletters/1/contents"),
    ("newsletter_content_metrics", (1, 2), {}, "GET /v1/newsletters/1/contents/2/metrics"),
    ("newsletter_content", (1, 2), {}, "GET /v1/newsletters/1/contents/2"),
    (
        "newsletter_content_link_metrics",
        (1, 2),
        {"steps": 3},
        "GET /v1/newsletters/1/contents/2/metrics/links?steps=3",
    ),
    ("newsletter_test_groups", (1,), {}, "GET /v1/newsletters/1/test_groups"),
    ("newsletter_messages", (1,), {}, "GET /v1/newsletters/1/messages"),
    ("transactional_messages", (), {}, "GET /v1/transactional"),
    ("transactional_message", (4,), {}, "GET /v1/transactional/4"),
    ("transactional_contents", (4,), {}, "GET /v1/transactional/4/contents"),
    ("transactional_metrics", (4,), {}, "GET /v1/transactional/4/metrics"),
    ("transactional_link_metrics", (4,), {}, "GET /v1/transactional/4/metrics/links"),
    ("transactional_deliveries", (4,), {}, "GET /v1/transactional/4/messages"),
    ("customers_by_email", ("a+b@x.com",), {}, "GET /v1/customers?email=a%2Bb%40x.com"),
    (
        "search_customers",
        (BODY,),
        {"start": "MDo1==", "limit": 1000},
        "POST /v1/customers?start=MDo1%3D%3D&limit=1000",
    ),
    ("customers_attributes", (BODY,), {"id_type": "cio_id"}, "POST /v1/customers/attributes?id_type=cio_id"),
    ("customer_attributes", ("cio_0d02",), {}, "GET /v1/customers/cio_0d02/attributes"),
    (
        "customer_segments",
        ("a@b.c",),
        {"id_type": "email"},
        "GET /v1/customers/a%40b.c/segments?id_type=email",
    ),
    ("customer_messages", ("u1",), {"start_ts": 1}, "GET /v1/customers/u1/messages?start_ts=1"),
    (
        "customer_activities",
        ("u1",),
        {"type": "failed_attribute_change"},
        "GET /v1/customers/u1/activities?type=failed_attribute_change",
    ),
    ("customer_relationships", ("u1",), {}, "GET /v1/customers/u1/relationships"),
    (
        "customer_subscription_preferences",
        ("u1",),
        {"language": "fr"},
        "GET /v1/customers/u1/subscription_preferences?language=fr",
    ),
    ("activities", (), {"deleted": True, "limit": 100}, "GET /v1/activities?deleted=true&limit=100"),
    ("messages", (), {"drafts": False, "start_ts": 1}, "GET /v1/messages?drafts=false&start_ts=1"),
    ("message", ("dgOq6Q==",), {}, "GET /v1/messages/dgOq6Q%3D%3D"),
    ("archived_message", ("m",), {}, "GET /v1/messages/m/archived_message"),
    ("segments", (), {}, "GET /v1/segments"),
    ("segment", (7,), {}, "GET /v1/segments/7"),
    ("create_segment", (BODY,), {}, "POST /v1/segments"),
    ("delete_segment", (7,), {}, "DELETE /v1/segments/7"),
    ("segment_count", (7,), {}, "GET /v1/segments/7/customer_count"),
    ("segment_members", (7,), {"limit": 30000}, "GET /v1/segments/7/membership?limit=30000"),
    ("segment_usage", (7,), {}, "GET /v1/segments/7/used_by"),
    ("object_types", (), {}, "GET /v1/object_types"),
    ("search_objects", (BODY,), {}, "POST /v1/objects"),
    (
        "object_attributes",
        ("1", "a/c"),
        {"id_type": "object_id"},
        "GET /v1/objects/1/a%2Fc/attributes?id_type=object_id",
    ),
    ("object_relationships", (1, "ac"), {"limit": 5}, "GET /v1/objects/1/ac/relationships?limit=5"),
    ("exports", (), {}, "GET /v1/exports"),
    ("export", (1,), {}, "GET /v1/exports/1"),
    ("export_link", (1,), {}, "GET /v1/exports/1/download"),
    ("export_customers", (BODY,), {}, "POST /v1/exports/customers"),
    ("export_deliveries", (BODY,), {}, "POST /v1/exports/deliveries"),
    ("workspaces", (), {}, "GET /v1/workspaces"),
    ("ip_addresses", (), {}, "GET /v1/info/ip_addresses"),
    ("subscription_topics", (), {}, "GET /v1/subscription_topics"),
    ("sender_identities", (), {"hidden": True}, "GET /v1/sender_identities?hidden=true"),
    ("sender_identity", (1,), {}, "GET /v1/sender_identities/1"),
    ("sender_identity_usage", (1,), {}, "GET /v1/sender_identities/1/used_by"),
    ("snippets", (), {}, "GET /v1/snippets"),
    ("put_snippet", (BODY,), {}, "PUT /v1/snippets"),
    ("delete_snippet", ("my address",), {}, "DELETE /v1/snippets/my%20address"),
    ("collections", (), {}, "GET /v1/collections"),
    ("collection", (1,), {}, "GET /v1/collections/1"),
    ("collection_content", (1,), {}, "GET /v1/collections/1/content"),
    ("create_collection", (BODY,), {}, "POST /v1/collections"),
    ("update_collection", (1, BODY), {}, "PUT /v1/collections/1"),
    ("put_collection_content", (1, BODY), {}, "PUT /v1/collections/1/content"),
    ("delete_collection", (1,), {}, "DELETE /v1/collections/1"),
    ("reporting_webhooks", (), {}, "GET /v1/reporting_webhooks"),
    ("reporting_webhook", (4,), {}, "GET /v1/reporting_webhooks/4"),
    ("create_reporting_webhook", (BODY,), {}, "POST /v1/reporting_webhooks"),
    ("update_reporting_webhook", (4, BODY), {}, "PUT /v1/reporting_webhooks/4"),
    ("delete_reporting_webhook", (4,), {}, "DELETE /v1/reporting_webhooks/4"),
    (
        "suppressions",
        ("blocks",),
        {"limit": 9, "offset": 0},
        "GET /v1/esp/suppression/blocks?limit=9&offset=0",
    ),
    ("find_suppression", ("a+b@c.d",), {}, "GET /v1/esp/search_suppression/a%2Bb%40c.d"),
    ("add_suppression", ("bounces", "a@b.c"), {}, "POST /v1/esp/suppression/bounces/a%40b.c"),
    ("lift_suppression", ("bounces", "a@b.c"), {}, "DELETE /v1/esp/suppression/bounces/a%40b.c"),
    ("send_email", (BODY,), {}, "POST /v1/send/email"),
    ("send_push", (BODY,), {}, "POST /v1/send/push"),
    ("send_sms", (BODY,), {}, "POST /v1/send/sms"),
    ("send_in_app", (BODY,), {}, "POST /v1/send/in_app"),
    ("send_inbox_message", (BODY,), {}, "POST /v1/send/inbox_message"),
]
APIS = (
    (TrackApi, TRACK_CALLS, TRACK),
    (PipelinesApi, PIPELINES_CALLS, PIPELINES),
    (AppApi, APP_CALLS, APP),
)
NOT_ENDPOINTS = {"call", "url", "read", "post", "put", "remove"}


class Counting:
    """An allowance that counts who takes from it."""

    blocked_s = 0.0

    def __init__(self) -> None:
        self.taken = 0

    async def acquire(self) -> None:
        self.taken += 1

    def learn(self, status: int, headers: Mapping[str, str]) -> None: ...

    def lift(self) -> None: ...


def door(*answers: Reply) -> tuple[FakeTransport, Http]:
    """Make a network that gives these answers in turn, the last one again and again."""
    left = list(answers or [Reply(200, body=b"{}")])
    network = FakeTransport(("*", "*", lambda _: left.pop(0) if len(left) > 1 else left[0]))
    throttles = {name: Counting() for name in ("track", "app", "pipelines")}
    return network, Http(network, FakeClock(), throttles=throttles)


def page(**fields: Any) -> Reply:
    return Reply(200, body=msgspec.json.encode(fields))


@pytest.mark.spec(
    "C007", "C060", "C061", "C062", "C063", "C064", "C065", "C066", "C067", "C068", "C069", "D11"
)
@pytest.mark.parametrize(
    ("api", "row"), [(api, row) for api, rows, _ in APIS for row in rows], ids=lambda value: str(value)[:60]
)
async def test_one_method_is_one_request_in_its_bucket(api: Any, row: Row) -> None:
    name, args, query, expected = row
    network, http = door()
    args = (*args, BODY) if name == "unsubscribe" else args
    await getattr(api(http, "http://cio.test/", {"Authorization": "Basic abc"}), name)(*args, **query)
    [sent] = network.requests
    assert f"{sent.method} {sent.url}" == expected.replace(" ", " http://cio.test", 1)
    assert sent.headers["authorization"] == "Basic abc"
    assert (sent.body, sent.headers.get("content-type")) == (
        (b'{"a":1}', "application/json") if BODY in args else (b"", None)
    )
    taken = {bucket: throttle.taken for bucket, throttle in http.throttles.items()}  # type: ignore[attr-defined]
    assert taken == {**dict.fromkeys(taken, 0), api.bucket: 1}


@pytest.mark.spec("C007", "C060", "C061", "C062", "C063", "C064", "C065", "C066", "C067", "C068", "C069")
@pytest.mark.parametrize(("api", "rows", "listed"), APIS)
def test_every_endpoint_of_the_list_has_its_method(api: type, rows: list[Row], listed: str) -> None:
    wanted = listed.split("\n")[1:-1]
    called = [next(line for line in reversed(wanted) if _is(line, row[3])) for row in rows]
    assert sorted(called) == sorted(wanted)
    methods = {name for name, _ in inspect.getmembers(api, inspect.iscoroutinefunction) if name[0] != "_"}
    assert methods - NOT_ENDPOINTS == {row[0] for row in rows}


def _is(template: str, request: str) -> bool:
    """Whether a request is one of a template; a word of the template is no id."""
    exact = {line for _, _, text in APIS for line in text.split("\n") if "{" not in line}
    asked = request.partition("?")[0]
    if asked in exact:
        return asked == template
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), asked) is not None


@pytest.mark.spec("C063", "C089")
async def test_a_body_that_is_encoded_already_is_sent_as_it_is() -> None:
    network, http = door()
    await TrackApi(http, "http://cio.test", {}).batch(b'{"batch": []}')
    assert network.requests[0].body == b'{"batch": []}'
    assert network.requests[0].headers["content-type"] == "application/json"


@pytest.mark.spec("C120")
async def test_the_verdicts_on_a_full_batch_are_read_whole() -> None:
    errors = [{"batch_index": index, "message": "x" * 200} for index in range(1000)]
    network, http = door(Reply(207, body=msgspec.json.encode({"errors": errors})))
    reply = await TrackApi(http, "http://cio.test", {}).batch(b"{}")
    assert reply.status == 207
    assert network.requests[0].limit_bytes > len(reply.body) > 64 * 1024


@pytest.mark.spec("C007")
async def test_the_pipelines_api_is_always_strict() -> None:
    network, http = door()
    await PipelinesApi(http, "http://cio.test", customerio.pipelines_credentials("wk")).track(BODY)
    assert network.requests[0].headers["x-strict-mode"] == "1"
    assert network.requests[0].headers["authorization"] == f"Basic {base64.b64encode(b'wk:').decode()}"


@pytest.mark.spec("C008", "C111", "C112")
def test_each_api_has_credentials_of_its_own() -> None:
    pair = base64.b64encode(b"site:key").decode()
    assert customerio.track_credentials("site", "key") == {"authorization": f"Basic {pair}"}
    assert customerio.app_credentials("app-key") == {"authorization": "Bearer app-key"}


@pytest.mark.spec("C009", "C113", "C114")
def test_each_region_has_hosts_of_its_own_and_all_speak_https() -> None:
    tables = (customerio.TRACK_URLS, customerio.APP_URLS, customerio.PIPELINES_URLS)
    assert all(set(table) == set(customerio.REGIONS) for table in tables)
    assert all(
        url.startswith("https://") and url.endswith(".customer.io") for t in tables for url in t.values()
    )
    assert all(("-eu." in url) == (region == "eu") for table in tables for region, url in table.items())


@pytest.mark.spec("D11")
@pytest.mark.parametrize("identifier", ["", ".", ".."])
async def test_an_id_that_would_name_another_url_is_not_sent(identifier: str) -> None:
    network, http = door()
    with pytest.raises(Undelivered) as raised:
        await TrackApi(http, "http://cio.test", {}).delete_customer(identifier)
    assert isinstance(raised.value.outcome, Rejected)
    assert not network.requests


@pytest.mark.spec("C068")
async def test_a_person_that_is_not_there_is_an_answer() -> None:
    _, http = door(Reply(404, body=b'{"errors":[{"detail":"not found","status":"404"}]}'))
    app = AppApi(http, "http://cio.test", {})
    assert (await app.customer_attributes("u1")).status == 404
    with pytest.raises(Undelivered):
        await app.campaign(5)


@pytest.mark.spec("C067", "R047")
async def test_pages_go_on_past_empty_ones_until_next_is_empty() -> None:
    network, http = door(
        page(identifiers=[{"id": "1"}], next="MDox"),
        page(identifiers=None, ids=None, next="MDoy=="),
        page(identifiers=[{"id": "2"}], next=""),
    )
    app = AppApi(http, "http://cio.test", {})
    found = [one["identifiers"] async for one in pages(app.segment_members, 7, limit=1)]
    assert found == [[{"id": "1"}], None, [{"id": "2"}]]
    assert [request.url.partition("?")[2] for request in network.requests] == [
        "limit=1",
        "limit=1&start=MDox",
        "limit=1&start=MDoy%3D%3D",
    ]


@pytest.mark.spec("R019")
async def test_pages_begin_at_a_token_and_take_one_that_is_a_number() -> None:
    network, http = door(page(activities=[], next=17), page(activities=[]))
    app = AppApi(http, "http://cio.test", {})
    assert len([one async for one in pages(app.activities, start="9")]) == 2
    assert [request.url.partition("?")[2] for request in network.requests] == ["start=9", "start=17"]


@pytest.mark.spec("C067")
@pytest.mark.parametrize("answer", [page(next="same"), Reply(200, body=b"[]"), Reply(200, body=b"<html>")])
async def test_pages_end_where_they_would_turn_in_circles_or_are_none(answer: Reply) -> None:
    _, http = door(answer)
    app = AppApi(http, "http://cio.test", {})
    with pytest.raises(Undelivered) as raised:
        [one async for one in pages(app.segment_members, 7)]
    assert isinstance(raised.value.outcome, Retry)


@pytest.mark.spec("C067")
async def test_an_answer_that_is_cut_is_no_page() -> None:
    _, http = door(Reply(200, body=b'{"ids":[]}', cut=True))
    with pytest.raises(Undelivered):
        [one async for one in pages(AppApi(http, "http://cio.test", {}).segment_members, 7)]


@pytest.mark.spec("D08")
async def test_credentials_stay_out_of_what_is_kept() -> None:
    _, http = door(Reply(401, body=b'{"meta":{"error":"Unauthorized request for key-of-mine"}}'))
    with pytest.raises(Undelivered) as raised:
        await AppApi(http, "http://cio.test", customerio.app_credentials("key-of-mine")).workspaces()
    assert "key-of-mine" not in repr(raised.value.exchange) + repr(raised.value.outcome)


def test_the_addresses_that_preview_shows_are_those_that_are_called() -> None:
    base = "http://cio.test"
    shown = [
        f"GET {customerio.region_url(base)}",
        f"PUT {customerio.customer_url(base, 'a/b c')}",
        f"POST {customerio.customer_events_url(base, 'u?1#')}",
        f"POST {customerio.anonymous_events_url(base)}",
        f"POST {customerio.merge_url(base)}",
        f"POST {customerio.entity_url(base)}",
        f"POST {customerio.batch_url(base)}",
    ]
    assert set(shown) <= {row[3].replace(" ", f" {base}", 1) for row in TRACK_CALLS}
    assert customerio.pipelines_url(base, "batch") == f"{base}/v1/batch"
