"""identify at delivery: look-ups in order, the cache, clashes, companies, and who may be whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from towpath.destination import Payload
from towpath.http import Reply, Request, TransportError, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Paused, Rejected, Retry

from .kustomer_world import (
    CUSTOMERS,
    NOT_FOUND,
    World,
    answer,
    customer,
    identify,
    json_of,
    kustomer,
    prepared,
    track,
)

EMAIL = {"email": "a@b.io"}
HOME = [{"type": "home", "email": "a@b.io"}]
BY_EMAIL, BY_USER, BY_ANONYMOUS = (
    "GET /v1/customers/email=a%40b.io",
    "GET /v1/customers/externalId=u1",
    "GET /v1/customers/externalId=an1",
)
POST, PUT = "POST /v1/customers", "PUT /v1/customers/C1?replace=false"
TAKEN = answer(409, {"errors": [{"status": 409, "title": "duplicate", "source": {"parameter": "emails"}}]})


def found(path: str, **shown: Any) -> tuple[str, str, Reply]:
    return ("GET", f"/v1/customers/{path}", answer(200, customer(**shown)))


def world(*rules: Any, **settings: Any) -> World:
    """A Kustomer that knows nobody but the rules, and takes every write."""
    return World(
        *rules,
        ("GET", "/v1/customers/*", NOT_FOUND),
        ("POST", "/v1/customers", answer(201, customer("NEW"))),
        ("PUT", "/v1/customers/*?replace=false", answer(200, {})),
        **settings,
    )


# Look-ups.


@pytest.mark.spec("K061", "K065", "K011")
async def test_nobody_found_creates() -> None:
    there = world()
    assert await there.deliver(identify(EMAIL, anonymousId="an1")) == Delivered()
    assert there.bodies("POST") == [{"externalId": "u1", "emails": HOME}]
    assert there.calls() == [BY_EMAIL, BY_USER, BY_ANONYMOUS, POST]


@pytest.mark.spec("K061", "K065")
@pytest.mark.parametrize(
    ("path", "calls"),
    [
        ("email=a%40b.io", [BY_EMAIL, PUT]),
        ("externalId=u1", [BY_EMAIL, BY_USER, PUT]),
        ("externalId=an1", [BY_EMAIL, BY_USER, BY_ANONYMOUS, PUT]),
    ],
)
async def test_the_first_hit_is_updated(path: str, calls: list[str]) -> None:
    there = world(found(path))
    assert await there.deliver(identify(EMAIL, anonymousId="an1")) == Delivered()
    assert there.bodies("PUT") == [{"externalId": "u1", "emails": HOME}]
    assert there.calls() == calls


@pytest.mark.spec("K061")
async def test_the_first_of_several_emails_is_looked_up() -> None:
    there = world()
    await there.deliver(identify({"emails": [{"email": "a@b.io"}, {"email": "c@d.io"}]}))
    assert there.calls() == [BY_EMAIL, BY_USER, POST]


@pytest.mark.spec("K061")
async def test_phone_is_looked_up_where_asked_for() -> None:
    traits = {**EMAIL, "phone": "+15005550006"}
    there = world(found("phone=%2B15005550006"), lookup_phone=True)
    await there.deliver(identify(traits))
    assert there.calls() == [BY_EMAIL, "GET /v1/customers/phone=%2B15005550006", PUT]
    there = world(lookup_phone=True)
    await there.deliver(identify({"phone": "(500) 555-0006"}))
    assert there.calls() == [BY_USER, POST]
    there = world()
    await there.deliver(identify(traits))
    assert there.calls() == [BY_EMAIL, BY_USER, POST]


@pytest.mark.spec("K062", "K060")
async def test_ids_are_percent_encoded() -> None:
    there = world()
    await there.deliver(identify({"email": "a+b/c@d.io"}, userId="a/b?c#d@é"))
    assert there.calls() == [
        "GET /v1/customers/email=a%2Bb%2Fc%40d.io",
        "GET /v1/customers/externalId=a%2Fb%3Fc%23d%40%C3%A9",
        POST,
    ]
    context = {"externalId": [{"type": "kustomerId", "id": "a/b?c"}]}
    await there.deliver(identify(context=context))
    assert there.calls() == ["PUT /v1/customers/a%2Fb%3Fc?replace=false"]


@pytest.mark.spec("K062", "K064")
@pytest.mark.parametrize(
    "reply",
    [
        *(
            answer(200, {"data": {}}),
            answer(200, []),
            answer(200, {"data": {"id": ""}}),
            answer(200, {"data": {"id": 5}}),
        ),
        *(answer(204), Reply(200, body=b"<html>"), answer(500), answer(503), answer(429), answer(408)),
    ],
)
async def test_a_look_up_without_a_clear_answer_is_retried(reply: Reply) -> None:
    there = world(("GET", "*", reply))
    assert isinstance(await there.deliver(identify(EMAIL)), Retry)
    assert there.calls() == [BY_EMAIL]


@pytest.mark.spec("K064", "P5")
@pytest.mark.parametrize(
    ("method", "given"), [("POST", identify(EMAIL)), ("PUT", identify(EMAIL)), ("POST", track())]
)
async def test_a_proxys_page_delivers_nothing(method: str, given: Message) -> None:
    rules = [found("email=a%40b.io")] if method == "PUT" else []
    there = world((method, "*", Reply(200, body=b"<html>Sign in</html>")), *rules)
    assert isinstance(await there.deliver(given), Retry)


@pytest.mark.spec("K064")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_a_lost_connection_is_retried(method: str) -> None:
    rules = [found("email=a%40b.io")] if method == "PUT" else []
    there = world((method, "*", TransportError("connection reset", sent=True)), *rules)
    assert isinstance(await there.deliver(identify(EMAIL)), Retry)


@pytest.mark.spec("K064")
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_refusals_are_rejected_with_kustomers_body(status: int) -> None:
    there = world(("POST", "*", answer(status, {"errors": [{"title": "Additional properties not allowed"}]})))
    outcome = await there.deliver(identify())
    assert isinstance(outcome, Rejected)
    assert outcome.code == status
    assert "Additional properties not allowed" in outcome.reason


@pytest.mark.spec("K064", "K008")
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_key_pauses_and_names_the_roles(status: int, method: str) -> None:
    for given in (identify(EMAIL), track()):
        outcome = await world((method, "*", answer(status, {})), ("*", "*", answer(status))).deliver(given)
        assert isinstance(outcome, Paused)
        assert outcome.code == status
        for role in ("customer.create", "customer.read", "customer.update"):
            assert f"org.permission.{role}" in outcome.reason
        assert "org.tracking" in outcome.reason


@pytest.mark.spec("K007")
@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_key_of_another_region_pauses_with_the_hint(status: int) -> None:
    said = "Auth token associated with pod prod2 but request is being handled by prod1"
    there = world(("*", "*", answer(status, {"errors": [{"message": said}]})))
    outcome = await there.deliver(identify(EMAIL))
    assert isinstance(outcome, Paused)
    assert "wrong region" in outcome.reason
    assert "api.prod2.kustomerapp.com" in outcome.reason


@pytest.mark.spec("K071", "K066")
async def test_a_429_with_allowance_left_delays_only_that_person() -> None:
    there = world(("GET", "*", answer(429, {}, x_ratelimit_remaining="12")))
    outcome = await there.deliver(identify(EMAIL))
    assert isinstance(outcome, Retry)
    assert not outcome.throttled
    there = world(("GET", "*", answer(429, {}, x_ratelimit_remaining="0")))
    outcome = await there.deliver(identify(EMAIL))
    assert isinstance(outcome, Retry)
    assert outcome.throttled


@pytest.mark.spec("K007")
async def test_every_request_goes_to_the_configured_host() -> None:
    there = world(found("email=a%40b.io"), base_url="https://api.prod2.kustomerapp.com/")
    await there.deliver(identify(EMAIL))
    await there.deliver(identify(EMAIL, context={"externalId": [{"type": "kustomerId", "id": "K"}]}))
    await there.deliver(identify({"email": "new@b.io"}, userId="u2"))
    there.network.on("POST", "/v1/tracking/identityEvent", answer(201)).on("GET", "/current", answer(200))
    await there.deliver(track())
    await there.destination.check(there.scope)
    urls = [request.url for request in there.network.requests]
    assert len(urls) == 8
    assert all(url.startswith("https://api.prod2.kustomerapp.com/v1/") for url in urls)


# Preview.


@pytest.mark.spec("K067", "K061")
def test_preview_shows_the_look_ups_and_both_endings() -> None:
    payload = prepared(kustomer(), identify(EMAIL, anonymousId="an1"))
    shown = [
        f"{call.method} {call.url.removeprefix('https://api.kustomerapp.com')}" for call in payload.look_ups
    ]
    assert shown == [BY_EMAIL, BY_USER, BY_ANONYMOUS]
    update, create = payload.requests
    assert (update.method, update.url) == ("PUT", f"{CUSTOMERS}/{{id}}?replace=false")
    assert (create.method, create.url) == ("POST", CUSTOMERS)
    assert update.json == create.json == {"externalId": "u1", "emails": HOME}
    assert "finds the customer" in update.when
    assert "no look-up" in create.when
    assert payload.capability == "customers"


# A Kustomer id from the client.


@pytest.mark.spec("K060", "K067")
async def test_a_kustomer_id_needs_no_look_up() -> None:
    given = identify(
        EMAIL, context={"externalId": [{"type": "x", "id": "y"}, {"type": "kustomerId", "id": "K1"}]}
    )
    there = world()
    assert await there.deliver(given) == Delivered()
    assert there.bodies("PUT") == [{"externalId": "u1", "emails": HOME}]
    assert there.calls() == ["PUT /v1/customers/K1?replace=false"]
    (call,) = prepared(kustomer(), given).requests
    assert (call.method, call.when, call.url) == ("PUT", "", f"{CUSTOMERS}/K1?replace=false")


@pytest.mark.spec("K060", "K061")
async def test_a_kustomer_id_keeps_its_external_id_from_an_anonymous_visitor() -> None:
    context = {"externalId": [{"type": "kustomerId", "id": "K1"}]}
    given = identify(EMAIL, userId=None, anonymousId="an1", context=context)
    there = world()
    await there.deliver(given)
    assert there.bodies("PUT") == [{"emails": HOME}] == [prepared(kustomer(), given).requests[0].json]


@pytest.mark.spec("K060")
async def test_a_kustomer_id_nobody_has_is_rejected() -> None:
    there = world(("PUT", "*", NOT_FOUND))
    context = {"externalId": [{"type": "kustomerId", "id": "K1"}]}
    assert isinstance(await there.deliver(identify(context=context)), Rejected)
    assert len(there.calls()) == 1


@pytest.mark.spec("K060", "K062")
@pytest.mark.parametrize("unusable", ["", "..", None, {}])
async def test_an_unusable_kustomer_id_is_looked_up_instead(unusable: Any) -> None:
    given = identify(context={"externalId": [{"type": "kustomerId", "id": unusable}]})
    there = world()
    await there.deliver(given)
    assert there.calls() == [BY_USER, POST]
    assert "context.externalId left out" in prepared(kustomer(), given).reports[0]


@pytest.mark.spec("K060")
@pytest.mark.parametrize(
    "listed", ["KID", {"type": "kustomerId", "id": "K"}, [5], [{"type": "brazeId", "id": "B"}]]
)
async def test_another_external_id_is_none_of_kustomers(listed: Any) -> None:
    there = world()
    await there.deliver(identify(context={"externalId": listed}))
    assert there.calls() == [BY_USER, POST]


# The external id.


@pytest.mark.spec("K061")
@pytest.mark.parametrize(("shown", "sent"), [("other", None), (None, "an1"), ("", "an1")])
async def test_an_anonymous_id_never_replaces_an_external_id(shown: str | None, sent: str | None) -> None:
    there = world(found("email=a%40b.io", externalId=shown))
    await there.deliver(identify(EMAIL, userId=None, anonymousId="an1"))
    (body,) = there.bodies("PUT")
    assert body.get("externalId") == sent
    assert body["emails"] == HOME


@pytest.mark.spec("K061", "K042")
async def test_a_user_id_replaces_the_anonymous_one() -> None:
    there = world(found("externalId=an1", externalId="an1"))
    await there.deliver(identify(anonymousId="an1"))
    assert there.bodies("PUT") == [{"externalId": "u1"}]


# The cache.


@pytest.mark.spec("K063")
async def test_a_known_person_costs_no_look_up() -> None:
    there = world()
    await there.deliver(identify(EMAIL, anonymousId="an1"))
    there.calls()
    await there.deliver(identify({**EMAIL, "name": "Ada"}, anonymousId="an1"))
    assert there.calls() == ["PUT /v1/customers/NEW?replace=false"]
    await there.deliver(identify({"name": "Ada"}))
    assert there.calls() == ["PUT /v1/customers/NEW?replace=false"]
    await there.clock.advance(24 * 3600)
    await there.deliver(identify({"name": "Ada"}))
    assert there.calls() == [BY_USER, POST]


@pytest.mark.spec("K063", "K061")
async def test_a_new_email_is_looked_up_before_the_known_user_id() -> None:
    there = world()
    await there.deliver(identify())
    there.calls()
    there.network.on(*found("email=a%40b.io", customer_id="C1"))
    await there.deliver(identify(EMAIL))
    assert there.calls() == [BY_EMAIL, PUT]


@pytest.mark.spec("K063")
async def test_an_anonymous_id_that_became_a_user_id_is_not_remembered() -> None:
    """A shared device: after logout the same anonymousId is a visitor again."""
    there = world(found("externalId=an1", externalId="an1"))
    await there.deliver(identify(anonymousId="an1"))
    there.calls()
    there.network.on("GET", "externalId=an1", NOT_FOUND)
    await there.deliver(identify(userId=None, anonymousId="an1"))
    assert there.calls() == [BY_ANONYMOUS, POST]


@pytest.mark.spec("K063")
async def test_a_customer_that_is_gone_is_looked_up_again_once() -> None:
    there = world()
    await there.deliver(identify())
    there.network.on("PUT", "/NEW?replace=false", NOT_FOUND).on(*found("externalId=u1"))
    there.calls()
    assert await there.deliver(identify({"name": "Ada"})) == Delivered()
    assert there.calls() == ["PUT /v1/customers/NEW?replace=false", BY_USER, PUT]
    there.network.on("PUT", "*", NOT_FOUND)
    assert isinstance(await there.deliver(identify({"name": "Ada"})), Rejected)
    assert there.calls() == [PUT, BY_USER, PUT]
    there.network.on("GET", "*", NOT_FOUND)
    assert await there.deliver(identify({"name": "Ada"})) == Delivered()
    assert there.calls() == [BY_USER, POST]


@pytest.mark.spec("K063")
async def test_a_cache_written_by_another_version_is_ignored() -> None:
    there = world()
    there.memory.keep("externalId=u1", "{not ours", 60)
    assert await there.deliver(identify()) == Delivered()
    assert there.calls() == [BY_USER, POST]


# Clashes.


class Clashing:
    """A Kustomer where C9 holds some identifiers; a write with one of them is refused."""

    def __init__(self, *held: str, refusal: Reply = TAKEN) -> None:
        self.held = held
        self.refusal = refusal

    def write(self, request: Request) -> Reply:
        body = msgspec.json.encode(json_of(request)).decode()
        return self.refusal if any(f'"{value}"' in body for value in self.held) else answer(200, {})


@pytest.mark.spec("K063", "K071")
@pytest.mark.parametrize(
    "refusal",
    [
        *(TAKEN, answer(409, {}), answer(400, {"errors": [{"title": "emails must be unique"}]})),
        *[answer(400, {"errors": [{"source": {"parameter": name}}]}) for name in ("phones", "externalId")],
    ],
)
async def test_a_create_that_clashes_is_looked_up_and_updated(refusal: Reply) -> None:
    there = world()

    def refuse(request: Request) -> Reply:
        there.network.on(*found("externalId=u1", externalId="u1"))  # somebody else was faster
        return refusal

    there.network.on("POST", "/v1/customers", refuse)
    assert await there.deliver(identify(EMAIL)) == Delivered()
    assert there.calls() == [BY_EMAIL, BY_USER, POST, BY_EMAIL, BY_USER, PUT]
    assert there.reports == []


@pytest.mark.spec("K071", "K064")
@pytest.mark.parametrize("refusal", [TAKEN, answer(400, {"errors": [{"title": "bad format in emails"}]})])
async def test_a_create_refused_for_nobody_is_rejected(refusal: Reply) -> None:
    there = world(("POST", "*", refusal))
    outcome = await there.deliver(identify(EMAIL))
    assert isinstance(outcome, Rejected)
    assert "emails" in outcome.reason
    assert there.calls() == [BY_EMAIL, BY_USER, POST, BY_EMAIL, BY_USER]


@pytest.mark.spec("K071")
async def test_a_create_does_not_become_the_holder_of_a_shared_phone() -> None:
    clash = Clashing("+15005550006", refusal=answer(409, {}))
    there = world(
        ("POST", "/v1/customers", clash.write),
        found("phone=%2B15005550006", customer_id="C9", externalId="u9"),
    )
    assert await there.deliver(identify({**EMAIL, "phone": "+15005550006"})) == Delivered()
    assert there.bodies("PUT") == []
    assert there.bodies("POST")[-1] == {"externalId": "u1", "emails": HOME}
    assert there.reports == ["phone left out: another customer at Kustomer holds it; nothing was merged"]


@pytest.mark.spec("K071")
@pytest.mark.parametrize(
    "refusal", [TAKEN, answer(409, {}), answer(400, {"errors": [{"detail": "emails taken"}]})]
)
async def test_an_update_goes_once_more_without_what_another_holds(refusal: Reply) -> None:
    emails = [{"email": "a@b.io"}, {"email": "taken@b.io"}]
    there = world(
        found("externalId=u1", externalId="u1"),
        found("email=taken%40b.io", customer_id="C9"),
        ("PUT", "*", Clashing("taken@b.io", refusal=refusal).write),
    )
    assert await there.deliver(identify({"emails": emails, "name": "Ada"})) == Delivered()
    assert there.bodies("PUT")[1:] == [{"externalId": "u1", "emails": emails[:1], "name": "Ada"}]
    assert there.reports == ["email left out: another customer at Kustomer holds it; nothing was merged"]
    assert not any("merges" in call for call in there.calls())


@pytest.mark.spec("K071")
async def test_an_external_id_that_another_holds_is_left_out_of_an_update() -> None:
    refusal = answer(409, {"errors": [{"source": {"parameter": "externalId"}}]})
    there = world(
        found("email=a%40b.io"),
        found("externalId=u1", customer_id="C9"),
        ("PUT", "*", Clashing("u1", refusal=refusal).write),
    )
    assert await there.deliver(identify({**EMAIL, "name": "Ada"})) == Delivered()
    assert there.bodies("PUT")[-1] == {"emails": HOME, "name": "Ada"}
    assert there.reports == ["externalId left out: another customer at Kustomer holds it; nothing was merged"]


@pytest.mark.spec("K071")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("socials", [{"type": "twitter", "username": "@ada"}]),
        ("whatsapps", [{"phone": "+15005550006"}]),
        ("phones", [{"phone": "(500) 555-0006"}]),
    ],
)
async def test_what_cannot_be_looked_up_is_left_out_as_a_whole(field: str, value: Any) -> None:
    refusal = answer(409, {"errors": [{"source": {"parameter": field}}]})
    clash = Clashing(*value[0].values(), refusal=refusal)
    traits = {field: value, "name": "Ada"}
    for there, method in (
        (world(("POST", "*", clash.write)), "POST"),
        (world(found("externalId=u1"), ("PUT", "*", clash.write)), "PUT"),
    ):
        assert await there.deliver(identify(traits)) == Delivered()
        assert there.bodies(method) == [
            {"externalId": "u1", "name": "Ada", field: value},
            {"externalId": "u1", "name": "Ada"},
        ]
        assert there.reports == [
            f"{field} left out: another customer at Kustomer holds it; nothing was merged"
        ]


@pytest.mark.spec("K071")
async def test_a_last_email_that_is_left_out_does_not_clear_the_list() -> None:
    there = world(
        found("externalId=u1"),
        ("GET", "email=a%40b.io", NOT_FOUND),
        ("PUT", "*", Clashing("a@b.io").write),
    )
    assert await there.deliver(identify(EMAIL)) == Delivered()
    assert there.bodies("PUT")[-1] == {"externalId": "u1"}


@pytest.mark.spec("K071", "K064")
@pytest.mark.parametrize(
    ("traits", "refusal"),
    [
        ({}, answer(409, {"errors": [{"title": "conflict"}]})),
        ({"rev": 3}, answer(409, {"errors": [{"title": "stale rev"}]})),
        ({}, answer(400, {"errors": [{"title": "badparam"}]})),
    ],
)
async def test_another_conflict_is_rejected(traits: dict[str, Any], refusal: Reply) -> None:
    there = world(found("externalId=u1"), ("PUT", "*", refusal))
    assert isinstance(await there.deliver(identify(traits)), Rejected)
    looked_for_the_holder = refusal.status == 409 and not traits
    assert there.calls() == [BY_USER, PUT, *[BY_USER] * looked_for_the_holder]


@pytest.mark.spec("K071")
async def test_a_second_clash_is_rejected_and_ends() -> None:
    there = world(found("externalId=u1"), ("PUT", "*", TAKEN))
    assert isinstance(await there.deliver(identify(EMAIL)), Rejected)
    assert there.calls().count(PUT) == 2


# Companies.


@pytest.mark.spec("K071")
@pytest.mark.parametrize("shown", [{"company": "acme-id"}])
async def test_the_company_a_look_up_shows_is_kept(shown: dict[str, Any]) -> None:
    for rule in (
        found("externalId=u1", **shown),
        ("GET", "externalId=u1", answer(200, {"data": {"id": "C1", "attributes": {"company": "acme-id"}}})),
    ):
        there = world(rule)
        await there.deliver(identify({"name": "Ada"}))
        await there.deliver(identify({"name": "Ada L"}))  # known by now: no look-up
        await there.deliver(identify({"company": "New Ltd"}))
        await there.deliver(identify({"name": "Ada"}))
        kept = {"externalId": "u1", "company": "acme-id"}
        assert there.bodies("PUT") == [
            {**kept, "name": "Ada"},
            {**kept, "name": "Ada L"},
            {"externalId": "u1", "company": "New Ltd"},
            {"externalId": "u1", "company": "New Ltd", "name": "Ada"},
        ]
        assert there.calls() == [BY_USER, PUT, PUT, PUT, PUT]


@pytest.mark.spec("K071")
async def test_keeping_the_company_is_a_setting() -> None:
    there = world(found("externalId=u1", company="acme-id"), keep_company=False)
    await there.deliver(identify({"name": "Ada"}))
    assert there.bodies("PUT") == [{"externalId": "u1", "name": "Ada"}]


# Trust.


@pytest.mark.spec("D13", "K061")
async def test_a_client_takes_no_email_that_another_user_holds() -> None:
    there = world(found("email=a%40b.io", customer_id="C9", externalId="u9"))
    assert await there.deliver(identify({**EMAIL, "name": "Ada"}, trust="client")) == Delivered()
    assert there.bodies("POST") == [{"externalId": "u1", "name": "Ada"}]
    assert there.calls() == [BY_EMAIL, BY_USER, POST]
    assert there.reports == ["email left out: another customer at Kustomer holds it; nothing was merged"]


@pytest.mark.spec("D13", "K063")
async def test_not_even_one_that_is_in_the_cache() -> None:
    there = world()
    await there.deliver(identify(EMAIL, trust="client"))
    await there.deliver(identify(EMAIL, trust="client", userId="u2"))
    assert there.bodies("PUT") == []
    assert there.bodies("POST")[-1] == {"externalId": "u2"}


@pytest.mark.spec("D13", "K061")
@pytest.mark.parametrize("holder", ["u1", "an1", None])
async def test_a_client_may_be_who_it_was(holder: str | None) -> None:
    there = world(found("email=a%40b.io", externalId=holder))
    await there.deliver(identify(EMAIL, trust="client", anonymousId="an1"))
    assert there.bodies("PUT") == [{"externalId": "u1", "emails": HOME}]


@pytest.mark.spec("D13", "K061")
async def test_a_visitor_who_left_an_email_elsewhere_may_sign_up_with_it() -> None:
    there = world()
    await there.deliver(identify(EMAIL, trust="client", userId=None, anonymousId="phone-visitor"))
    there.network.on(*found("email=a%40b.io", customer_id="NEW", externalId="phone-visitor"))
    await there.clock.advance(90 * 24 * 3600)
    await there.deliver(identify(EMAIL, trust="client", anonymousId="desktop-visitor"))
    assert there.bodies("PUT") == [{"externalId": "u1", "emails": HOME}]


@pytest.mark.spec("D13", "K061")
async def test_a_trusted_source_updates_the_customer_with_the_email() -> None:
    there = world(found("email=a%40b.io", externalId="u9"))
    await there.deliver(identify(EMAIL))
    await there.deliver(identify(EMAIL, userId=None, anonymousId="an1"))
    assert [body.get("externalId") for body in there.bodies("PUT")] == ["u1", None]


@pytest.mark.spec("D13", "K061")
@pytest.mark.parametrize("known", [True, False])
async def test_a_clients_visitor_takes_no_email_that_a_user_holds(known: bool) -> None:
    there = world(found("email=a%40b.io", customer_id="C9", externalId="victim"))
    if known:
        there.network.on(*found("externalId=an1", customer_id="C1", externalId="an1"))
    given = identify({**EMAIL, "name": "Eve"}, trust="client", userId=None, anonymousId="an1")
    assert await there.deliver(given) == Delivered()
    assert there.calls() == [BY_EMAIL, BY_ANONYMOUS, PUT if known else POST]
    assert there.reports == ["email left out: another customer at Kustomer holds it; nothing was merged"]


@pytest.mark.spec("D13", "K061")
async def test_what_goes_through_for_a_clients_visitor_names_no_email() -> None:
    there = world(found("email=a%40b.io", customer_id="C9", externalId="victim"))
    given = identify({**EMAIL, "name": "Eve"}, trust="client", userId=None, anonymousId="an1")
    await there.deliver(given)
    assert there.bodies("PUT") == []
    assert there.bodies("POST") == [{"externalId": "an1", "name": "Eve"}]


@pytest.mark.spec("D13", "K061")
async def test_a_visitor_by_the_name_of_a_user_does_not_open_that_users_email() -> None:
    there = world()
    await there.deliver(identify(trust="client", userId=None, anonymousId="victim"))
    there.network.on(*found("externalId=victim", customer_id="C9", externalId="victim"))
    await there.deliver(identify(EMAIL, userId="victim"))
    there.network.on(*found("email=a%40b.io", customer_id="C9", externalId="victim"))
    there.calls()
    await there.deliver(identify(EMAIL, trust="client", userId=None, anonymousId="an1"))
    assert there.bodies("PUT") == []
    assert there.bodies("POST") == [{"externalId": "an1"}]


@pytest.mark.spec("K064", "D08")
async def test_a_look_up_that_echoes_the_key_shows_it_nowhere() -> None:
    there = world(("GET", "*", answer(200, {"said": "Bearer secret-key"})))
    with pytest.raises(Undelivered) as caught:
        await there.destination.deliver(prepared(there.destination, identify(EMAIL)), there.scope)
    assert "secret-key" not in f"{caught.value.outcome} {caught.value.exchange}"


# Coalescing.


def merged(first: Any, second: Any) -> Payload | None:
    destination = kustomer()
    return destination.merge(prepared(destination, first), prepared(destination, second))


@pytest.mark.spec("K066")
async def test_two_identifies_of_a_person_become_one() -> None:
    custom = [{"customObject": {"aStr": "1", "bStr": "1"}}, {"customObject": {"bStr": "2"}}]
    first = identify({**EMAIL, "tags": ["a", "b"], "name": "A", **custom[0], "gender": "x"})
    second = identify({**EMAIL, "tags": ["c"], "userName": "ada", **custom[1]})
    payload = merged(first, second)
    assert payload
    there = world()
    assert await there.deliver_payload(payload) == Delivered()
    expected = {
        "externalId": "u1",
        "emails": HOME,
        "name": "A",
        "username": "ada",
        "tags": ["c"],
        "custom": {"aStr": "1", "bStr": "2"},
    }
    assert there.bodies("POST") == [expected] == [payload.requests[-1].json]
    assert there.calls() == [BY_EMAIL, BY_USER, POST]
    assert "gender left out" in payload.reports[0]
    assert kustomer().limits().coalesce


@pytest.mark.spec("K066")
@pytest.mark.parametrize(
    "second",
    [
        identify(),
        identify({"email": "other@b.io"}),
        identify(EMAIL, userId="u2"),
        identify(EMAIL, anonymousId="an1"),
        identify(EMAIL, trust="client"),
        identify(EMAIL, context={"externalId": [{"type": "kustomerId", "id": "K"}]}),
        track(),
    ],
)
def test_others_stay_apart(second: Any) -> None:
    assert merged(identify(EMAIL), second) is None
    assert merged(second, identify(EMAIL)) is None


@pytest.mark.spec("K066", "K070")
def test_what_would_be_too_much_together_stays_apart() -> None:
    keys = [{"customObject": {f"{letter}{number}Num": 1 for number in range(60)}} for letter in "ab"]
    assert merged(identify(keys[0]), identify(keys[1])) is None
    texts = [
        {"customObject": {f"{letter}{number}Str": "é" * 1024 for number in range(26)}} for letter in "ab"
    ]
    assert merged(identify(texts[0]), identify(texts[1])) is None
