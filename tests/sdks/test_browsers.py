"""Both browser SDKs, unchanged, on a page of another origin in Chromium: what arrives is what was sent."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import pytest

from towpath.ingest.pixel import GIF

from .shop import Shop
from .support import Fault, Kept, Source

pytestmark = pytest.mark.xdist_group("chromium")

SDKS = ["segment", "rudder"]
EACH = pytest.mark.parametrize("sdk", SDKS)
ORDER = {"total": 19.5, "name": "é€ ☃", "items": [{"sku": "a", "n": 2}], "gift": False}

CALLS = """
    await analytics.track("Looked", {page: 1});
    await analytics.identify(person, {email: "a@example.com", age: 33, address: {city: "Köln"}});
    await analytics.track("Order Completed", order, extra);
    await analytics.page("Shop", "Cart", {step: 2});
    await analytics.group("g1", {plan: "x", seats: 4});
"""
EXTRA: dict[str, dict[str, Any]] = {
    # Segment's options are the context and the switches; RudderStack's context is under its name.
    "segment": {"context": {"plan": "pro"}, "integrations": {"Hook": True, "Other": False}},
    "rudder": {"context": {"plan": "pro"}, "integrations": {"Hook": True, "Other": False}},
}
TRACKS = """
    const names = Array.from({length: count}, (_, n) => "e" + String(n).padStart(3, "0"));
    const told = names.map((name, n) => analytics.track(name, {n, filling}));
"""
TOLD = TRACKS + "await Promise.all(told);"


def by_type(rows: list[Kept]) -> dict[str, Kept]:
    """The events by type, the second track under its name."""
    return {row.said if row.type == "track" else row.type: row for row in rows}


async def own_id(shop: Shop, sdk: str) -> str:
    """The anonymous id that the SDK keeps in the visitor's browser."""
    way = {"segment": "analytics.instance.user().anonymousId()", "rudder": "analytics.getAnonymousId()"}
    found: str = await shop.say(f"return {way[sdk]}")
    return found


def once_each(source: Source, count: int) -> list[str]:
    """So many events, each once; their names in the order they are kept."""
    lines = source.lines()
    events = [line["event"] for line in lines]
    assert sorted(events) == [f"e{n:03}" for n in range(count)]
    assert len({line["message_id"] for line in lines}) == count
    return events


@pytest.mark.spec("E001", "E002", "E004", "E006", "E009", "E030", "E034", "E037", "E039", "D16")
@EACH
async def test_every_call_is_kept_as_the_page_made_it(shop: Shop, sdk: str) -> None:
    source, person = shop.hub.source("web"), f"visitor-{sdk}"
    await shop.visit(sdk, source)
    stranger = await own_id(shop, sdk)
    await shop.say(CALLS, person=person, order=ORDER, extra=EXTRA[sdk])
    found = by_type(await source.until_kept(5))
    assert set(found) == {"Looked", "identify", "Order Completed", "page", "group"}
    await shop.front.until_posts(5)
    told = {event["messageId"]: event for event in (seen.json() for seen in shop.front.posts())}
    assert {row.message_id: row.message for row in found.values()} == told, "nothing is changed on the way"
    first, identify, bought = (
        found["Looked"].message,
        found["identify"].message,
        found["Order Completed"].message,
    )
    assert (first["anonymousId"], first["properties"]) == (stranger, {"page": 1})
    assert not first.get("userId")
    traits = {**identify["context"].get("traits", {}), **identify.get("traits", {})}
    assert traits == {"email": "a@example.com", "age": 33, "address": {"city": "Köln"}}
    assert (bought["userId"], bought["anonymousId"], bought["properties"]) == (person, stranger, ORDER)
    assert (bought["context"]["plan"], bought["context"]["campaign"]) == ("pro", {"source": "news"})
    assert EXTRA[sdk]["integrations"].items() <= bought["integrations"].items()
    page = found["page"].message
    assert (page["category"], page["name"], page["properties"]["step"]) == ("Shop", "Cart", 2)
    assert page["properties"]["url"].startswith(shop.url)
    group = found["group"].message
    assert (group["groupId"], group["traits"]) == ("g1", {"plan": "x", "seats": 4})
    assert {row.trust for row in found.values()} == {"client"}
    assert shop.page.complaints() == []


@pytest.mark.spec("E004", "E006", "E030", "E037", "E039", "D16")
@EACH
async def test_the_way_it_takes(shop: Shop, sdk: str) -> None:
    source = shop.hub.source("web")
    await shop.visit(sdk, source)
    await shop.say("await analytics.identify('u1'); await analytics.track('Bought')")
    await source.until_kept(2)
    await shop.front.until_posts(2)
    started = [seen for seen in shop.front.seen if seen.method == "GET"]
    ways = {
        "segment": (f"/v1/projects/{source.key}/settings", ["/v1/i", "/v1/t"]),
        "rudder": ("/sourceConfig/", ["/v1/identify", "/v1/track"]),
    }
    assert [(seen.path, seen.status) for seen in started] == [(ways[sdk][0], 200)]
    # Two calls may be on their way side by side, so their order says nothing.
    assert sorted((seen.path, seen.key, seen.status) for seen in shop.front.posts()) == [
        (path, source.key, 200) for path in ways[sdk][1]
    ]
    assert {seen.headers["Origin"] for seen in shop.front.seen} == {shop.url}
    asked = [seen for seen in shop.front.preflights() if "/v1/" in seen.path]
    assert sorted(seen.path for seen in asked) == ways[sdk][1], "the browser asked first, and was let"
    assert {seen.status for seen in asked} == {200}
    wanted = asked[0].headers["Access-Control-Request-Headers"].split(",")
    assert set(wanted) >= ({"authorization"} if sdk == "segment" else {"authorization", "anonymousid"})
    if sdk == "segment":
        assert [seen.json()["writeKey"] for seen in shop.front.posts()] == [source.key] * 2
    else:
        sent = shop.front.posts()[0].headers["AnonymousId"]
        assert base64.b64decode(sent).decode() == await own_id(shop, sdk)


@pytest.mark.spec("E026", "E039")
@EACH
async def test_ids_stay_with_the_visitor_and_are_linked(shop: Shop, sdk: str) -> None:
    source, person = shop.hub.source("web"), f"returning-{sdk}"
    await shop.visit(sdk, source)
    stranger = await own_id(shop, sdk)
    await shop.say("await analytics.identify(person, {a: 1})", person=person)
    await source.until_kept(1)
    await shop.visit(sdk, source, "/another")
    await shop.say("await analytics.track('Came back')")
    await source.until_kept(2)
    await shop.say("analytics.reset(true); await analytics.track('Somebody else')")
    again, other = (await source.until_kept(3))[1:]
    assert (again.message["userId"], again.message["anonymousId"]) == (person, stranger)
    assert other.message["anonymousId"] not in (stranger, None)
    assert not other.message.get("userId")
    cookie = {"segment": "ajs_anonymous_id", "rudder": "rl_anonymous_id"}[sdk]
    assert cookie in await shop.page.cookies()
    await source.delivered(3)
    assert shop.hub.person(stranger)["a:" + stranger] == f"u:{person}"
    assert shop.hub.person(other.message["anonymousId"])["a:" + other.message["anonymousId"]] != f"u:{person}"


@pytest.mark.spec("E002", "E004", "E026", "E039")
@EACH
async def test_alias_links_the_visitor(shop: Shop, sdk: str) -> None:
    source, person = shop.hub.source("web"), f"aliased-{sdk}"
    await shop.visit(sdk, source)
    stranger = await own_id(shop, sdk)
    await shop.say("await analytics.alias(person)", person=person)
    kept = (await source.until_kept(1))[0]
    assert (kept.type, kept.message["userId"], kept.message["previousId"]) == ("alias", person, stranger)
    await source.delivered(1)
    assert shop.hub.person(stranger)["a:" + stranger] == f"u:{person}"


@pytest.mark.spec("E002", "E004", "E039")
async def test_screen_of_the_segment_sdk(shop: Shop) -> None:
    source = shop.hub.source("web")
    await shop.visit("segment", source)
    await shop.say("await analytics.screen('App', 'Settings', {size: 2})")
    kept = (await source.until_kept(1))[0]
    assert kept.type == "screen"
    assert (kept.message["category"], kept.message["name"]) == ("App", "Settings")
    assert kept.message["properties"]["size"] == 2
    assert shop.front.posts()[0].path == "/v1/s"


def batched(sdk: str, size: int, seconds: float = 0.3) -> dict[str, Any]:
    """Options that make the SDK send batches."""
    if sdk == "segment":
        strategy = {"strategy": "batching", "config": {"size": size, "timeout": int(seconds * 1000)}}
        return {"integrations": {"Segment.io": {"deliveryStrategy": strategy}}}
    batch = {"enabled": True, "maxItems": size, "flushInterval": int(seconds * 1000)}
    return {"queueOptions": {"batch": batch}}


@pytest.mark.spec("E003", "E004", "E037", "E039", "D07")
@EACH
async def test_batches_keep_their_order(shop: Shop, sdk: str) -> None:
    source = shop.hub.source("web")
    await shop.visit(sdk, source, **batched(sdk, 20))
    await shop.say(TRACKS, count=50, filling="x" * 1500)
    await source.until_kept(50)
    posts = shop.front.posts()
    assert {(seen.path, seen.key) for seen in posts} == {
        ({"segment": "/v1/b", "rudder": "/v1/batch"}[sdk], source.key)
    }
    assert len(posts) <= 10  # how many it takes is a matter of the page's timers
    # A batch does not wait for the one before, so on a busy machine a later one may arrive first.
    turns = sum(later < earlier for earlier, later in pairwise(once_each(source, 50)))
    assert turns < len(posts)


@pytest.mark.spec("E005", "E039")
@EACH
async def test_what_is_still_queued_when_the_page_is_left_arrives(shop: Shop, sdk: str) -> None:
    source = shop.hub.source("web")
    options = batched(sdk, 100, 60) if sdk == "segment" else {"useBeacon": True}
    await shop.visit(sdk, source, **options)
    await shop.say(TOLD, count=8, filling="é")
    assert shop.front.posts() == []
    await shop.leave()
    await source.until_kept(8)
    await shop.front.until_posts(1)
    (post,) = shop.front.posts()
    assert post.path == {"segment": "/v1/b", "rudder": "/beacon/v1/batch"}[sdk]
    assert post.headers["Content-Type"].startswith("text/plain")
    if sdk == "rudder":
        assert (post.query["writeKey"], post.key) == (source.key, "")
    assert once_each(source, 8) == sorted(once_each(source, 8))


@pytest.mark.spec("E036", "E037", "E039", "D07")
@EACH
async def test_what_meets_faults_comes_again_and_is_kept_once(shop: Shop, sdk: str) -> None:
    source = shop.hub.source("web")
    await shop.visit(sdk, source)
    shop.front.faults += [Fault(503), Fault(429, retry_after="1"), Fault(lost=True)]
    await shop.say(TRACKS, count=3, filling="")
    await source.until_kept(3)
    await shop.front.until_posts(6)
    once_each(source, 3)
    assert sorted(seen.status for seen in shop.front.posts()) == [200, 200, 200, 200, 429, 503]


@pytest.mark.spec("E036", "E037", "E039")
@EACH
async def test_a_source_over_its_rate_gets_everything_a_little_later(shop: Shop, sdk: str) -> None:
    source = shop.hub.source("paced")
    await shop.visit(sdk, source)
    shop.front.faults.append(Fault(over=source.key))
    await shop.say(TRACKS, count=3, filling="")
    await source.until_kept(3)
    assert 429 in {seen.status for seen in shop.front.posts()}
    once_each(source, 3)


@pytest.mark.spec("E005", "E030", "E032", "E037")
async def test_a_page_without_an_sdk(shop: Shop) -> None:
    source = shop.hub.source("web")
    await shop.page.open(shop.url)
    sent = await shop.say(
        """
        const event = (event) => ({type: "track", anonymousId: "a1", event, messageId: event});
        const batch = JSON.stringify({batch: [event("beacon")]});
        navigator.sendBeacon(`${url}/beacon/v1/batch?writeKey=${key}`, batch);
        const plain = {method: "POST", body: JSON.stringify({writeKey: key, ...event("body")})};
        const answer = await fetch(`${url}/v1/track`, plain);
        const image = new Image();
        await new Promise((done) => {
          image.onload = done;
          image.src = `${url}/pixel/v1/track?writeKey=${key}&anonymousId=a1&event=pixel&properties.price=3`;
        });
        return [answer.status, await answer.json(), image.width];
        """,
        url=shop.front.url,
        key=source.key,
    )
    assert sent == [200, {"success": True}, 1]
    found = {row.said: row for row in await source.until_kept(3)}
    assert set(found) == {"beacon", "body", "pixel"}
    assert found["pixel"].message["properties"] == {"price": "3"}
    assert shop.front.preflights() == [], "none of these asks first"
    assert {seen.headers["Content-Type"] for seen in shop.front.posts()} == {"text/plain;charset=UTF-8"}
    assert len(GIF.body) < 50


@pytest.mark.spec("E034", "E036", "E037")
async def test_a_page_may_read_why_it_was_refused(shop: Shop) -> None:
    paced = shop.hub.source("paced")
    await shop.page.open(shop.url)
    found = await shop.say(
        """
        const post = async (key, event) => {
          const headers = {Authorization: "Basic " + btoa(key + ":"), "X-Own": "1"};
          const body = JSON.stringify(event);
          const answer = await fetch(`${url}/v1/track`, {method: "POST", headers, body});
          return [answer.status, answer.headers.get("Retry-After"), (await answer.text()).trim()];
        };
        const good = {userId: "u1", event: "e"};
        const many = {writeKey: key, batch: Array(500).fill({type: "track", ...good})};
        const wrong = [await post("wk_nobody", good), await post(key, {event: "e"})];
        await fetch(`${url}/v1/batch`, {method: "POST", body: JSON.stringify(many)});
        const [status, wait] = await post(key, good);
        return [...wrong, [status, Number(wait) > 10]];
        """,
        url=shop.front.url,
        key=paced.key,
    )
    assert found == [
        [401, None, "invalid write key"],
        [400, None, "request neither has anonymousId nor userId"],
        [429, True],
    ]


@pytest.mark.spec("E006", "E039")
@EACH
async def test_a_wrong_key_harms_no_page(shop: Shop, sdk: str) -> None:
    await shop.page.open(shop.url)
    alive = await shop.say(
        """
        start[sdk]("wk_nobody", url, {}).then(() => analytics.track("e")).catch(() => {});
        await new Promise((done) => setTimeout(done, 100));
        return document.title;
        """,
        sdk=sdk,
        url=shop.front.url,
    )
    assert alive == "Shop"
    assert shop.front.posts() == []
