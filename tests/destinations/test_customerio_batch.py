"""Batches: one request for everybody, a verdict for each item, and everybody's order kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from towpath.courier import Courier
from towpath.destination import Payload
from towpath.destinations._customerio_batch import persons
from towpath.http import Reply, Request, Undelivered
from towpath.lanes import Item, Lane, Parcel
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Paused, Rejected, Retry

from .customerio_world import (
    BATCH,
    ENTITY,
    EVENTS,
    REGION,
    World,
    answer,
    identify,
    item_of,
    json_of,
    message,
    outcome_of,
    prepared,
    track,
)


def of(user: str, name: str = "E") -> Message:
    return track({"n": name}, userId=user, event=name, message_id=f"{user}-{name}")


def anonymous(who: str, name: str = "E") -> Message:
    given = {"type": "track", "anonymousId": who, "event": name}
    return message(given, message_id=f"{who}-{name}")


def errors(*listed: tuple[int, str]) -> Reply:
    reasons = [
        {"batch_index": index, "reason": "invalid", "field": "attributes.x", "message": said}
        for index, said in listed
    ]
    return answer(207, {"errors": reasons})


def outcomes(ended: Sequence[Any]) -> list[Outcome | None]:
    return [outcome_of(each) for each in ended]


@pytest.mark.spec("C063", "C087", "C089", "C105", "C120")
async def test_a_thousand_people_are_one_request() -> None:
    world = World()
    ended = await world.deliver_batch([of(f"u{n}") for n in range(1000)])
    assert list(ended) == [Delivered(200)] * 1000
    assert world.urls == [BATCH]
    items = json_of(world.sent[0])["batch"]
    assert [item["identifiers"]["id"] for item in items] == [f"u{n}" for n in range(1000)]
    assert world.destination.limits().batch == 1000


@pytest.mark.spec("C088", "C120")
async def test_a_full_batch_has_at_most_500_kb_with_its_frame() -> None:
    world = World()
    limits = world.destination.limits()
    limit = limits.batch_bytes
    assert limit == 500_000 - len('{"batch":[]}')
    assert limits.ordered_batch
    payloads: list[Payload] = []
    size = 0
    while True:
        payload = prepared(world.destination, track({"text": "x" * 999}, userId=f"u{len(payloads)}"))
        size += sum(len(msgspec.json.encode(call.json)) + 1 for call in payload.requests)
        if size > limit:
            break
        payloads.append(payload)
    await world.destination.deliver_batch(payloads, world.scope)
    assert 498_000 < len(world.sent[0].body) <= 500_000


@pytest.mark.spec("C120")
async def test_refused_items_are_named_and_the_others_never_sent_again() -> None:
    world = World(("POST", "/api/v2/batch", errors((1, "property value cannot be longer than 1000 bytes"))))
    ended = await world.deliver_batch([of("u1"), of("u2"), of("u3")])
    verdicts = outcomes(ended)
    assert [type(verdict) for verdict in verdicts] == [Delivered, Rejected, Delivered]
    refused = verdicts[1]
    assert isinstance(refused, Rejected)
    assert refused.reason == "207: attributes.x: property value cannot be longer than 1000 bytes (invalid)"
    assert len(world.sent) == 1


@pytest.mark.spec("C120", "D10")
async def test_the_letter_of_a_refused_item_holds_nothing_of_others() -> None:
    world = World(("POST", "/api/v2/batch", errors((0, "no"), (1, "neither"))))
    ended = await world.deliver_batch([of("u1"), of("u2"), of("u3")])
    assert isinstance(ended[0], Undelivered)
    exchange = ended[0].exchange
    assert exchange is not None
    assert '"u1"' in exchange.body
    assert "u2" not in exchange.body + exchange.answer
    assert "neither" not in exchange.answer


PAGE = Reply(200, {"content-type": "text/html"}, b"<html><body>Sign in to the guest network</body></html>")


@pytest.mark.spec("C120", "P5")
@pytest.mark.parametrize("settings", [{}, {"api": "pipelines", "pipelines_write_key": "write-secret"}])
async def test_a_proxys_page_delivers_nothing(settings: dict[str, Any]) -> None:
    world = World(REGION, ("POST", "*", PAGE), **settings)
    alone = [of("u1"), message({"type": "track", "anonymousId": "a1", "event": "E"})]
    for given in alone:
        outcome = await world.deliver(given)
        assert isinstance(outcome, Retry)
        assert "no answer of" in outcome.reason
    with pytest.raises(Undelivered) as raised:
        await world.deliver_batch([of("u1"), of("u2")])
    assert isinstance(raised.value.outcome, Retry)


@pytest.mark.spec("C093", "P5")
async def test_a_proxys_page_names_no_region_and_stops_nothing_for_good() -> None:
    world = World(("GET", "/api/v1/accounts/region", PAGE))
    assert isinstance(await world.deliver(of("u1")), Retry)
    assert world.sent == []


@pytest.mark.spec("C120")
@pytest.mark.parametrize("body", [b"", b"{}", b'{"errors":[]}'])
async def test_207_without_a_list_of_errors(body: bytes) -> None:
    world = World(("POST", "/api/v2/batch", Reply(207, body=body)))
    if body:
        assert outcomes(await world.deliver_batch([of("u1"), of("u2")])) == [Delivered(207)] * 2
    else:
        with pytest.raises(Undelivered) as raised:
            await world.deliver_batch([of("u1"), of("u2")])
        assert isinstance(raised.value.outcome, Retry)


@pytest.mark.spec("C120")
@pytest.mark.parametrize("index", [-1, 2, "0", None, 1.5])
async def test_207_that_names_no_item_is_tried_again(index: Any) -> None:
    world = World(("POST", "/api/v2/batch", answer(207, {"errors": [{"batch_index": index}]})))
    with pytest.raises(Undelivered) as raised:
        await world.deliver_batch([of("u1"), of("u2")])
    assert isinstance(raised.value.outcome, Retry)


@pytest.mark.spec("C120", "D13")
async def test_a_refusal_of_either_item_of_a_message_is_the_messages() -> None:
    world = World(("POST", "/api/v2/batch", errors((2, "email is not valid"))))
    given = [of("u1"), identify({"email": "a@b.c"}, trust="client", userId="u2"), of("u3")]
    verdicts = outcomes(await world.deliver_batch(given))
    assert [type(verdict) for verdict in verdicts] == [Delivered, Rejected, Delivered]
    assert len(json_of(world.sent[0])["batch"]) == 4


@pytest.mark.spec("C120", "D04")
async def test_a_persons_messages_share_a_batch_in_order() -> None:
    world = World()
    await world.deliver_batch([of("u1", "1"), of("u2"), of("u1", "2"), of("u1", "3")])
    items = json_of(world.sent[0])["batch"]
    assert [item["name"] for item in items if item["identifiers"] == {"id": "u1"}] == ["1", "2", "3"]


@pytest.mark.spec("C062", "C120", "D04")
async def test_anonymous_events_keep_their_place_in_a_persons_order() -> None:
    world = World()
    given = [
        anonymous("an", "1"),
        anonymous("an", "2"),
        identify({}, anonymousId="an"),
        of("u1", "4"),
        of("u9"),
    ]
    assert list(await world.deliver_batch(given)) == [Delivered(200)] * 5
    assert world.urls == [ENTITY, EVENTS, EVENTS, BATCH]
    assert [json_of(request).get("name") for request in world.sent[1:3]] == ["1", "2"]
    last = json_of(world.sent[3])["batch"]
    assert [item["action"] for item in last] == ["identify", "event"]


@pytest.mark.spec("C120", "D04")
async def test_behind_a_failure_nothing_of_that_person_is_sent() -> None:
    def failing(request: Request) -> Reply:
        return answer(503 if json_of(request)["anonymous_id"] == "a1" else 200)

    world = World(("POST", "/api/v1/events", failing))
    given = [
        anonymous("a1", "1"),
        anonymous("a1", "2"),
        identify({}, anonymousId="a1"),
        anonymous("a2"),
        of("u9"),
    ]
    verdicts = outcomes(await world.deliver_batch(given))
    assert isinstance(verdicts[0], Retry)
    assert verdicts[1:3] == [None, None]
    assert verdicts[3:] == [Delivered(200)] * 2


@pytest.mark.spec("C120", "D04")
async def test_behind_a_rejection_the_person_goes_on() -> None:
    world = World(("POST", "/api/v1/events", answer(400, {"meta": {"error": "no"}})))
    verdicts = outcomes(await world.deliver_batch([anonymous("a1"), identify({}, anonymousId="a1")]))
    assert isinstance(verdicts[0], Rejected)
    assert verdicts[0].reason == "400: no"
    assert verdicts[1] == Delivered(200)


@pytest.mark.spec("C120")
async def test_a_merge_or_delete_waits_for_the_request_before_it() -> None:
    world = World()
    merge = message({"type": "alias", "userId": "u1", "previousId": "old"}, message_id="m")
    delete = message({"type": "delete", "userId": "u2"}, message_id="d")
    given = [of("u1", "1"), merge, of("u1", "2"), of("u2"), delete]
    assert outcomes(await world.deliver_batch(given)) == [Delivered(200)] * 5
    actions = [
        [item["action"] for item in json_of(request).get("batch", [json_of(request)])]
        for request in world.sent
    ]
    assert actions == [["event", "event"], ["merge", "delete"], ["event"]]


@pytest.mark.spec("C120", "D03")
async def test_a_later_request_that_fails_does_not_undo_what_is_through() -> None:
    calls = 0

    def once(_: Request) -> Reply:
        nonlocal calls
        calls += 1
        return answer(200 if calls == 1 else 500)

    world = World(("POST", "/api/v2/batch", once))
    merges = [
        message({"type": "alias", "userId": user, "previousId": f"old-{user}"}, message_id=user)
        for user in ("u1", "u2")
    ]
    ended = await world.deliver_batch([of("u1"), merges[0], of("u2"), merges[1], of("u2", "late")])
    verdicts = outcomes(ended)
    assert verdicts[0] == verdicts[2] == Delivered(200)
    assert isinstance(verdicts[1], Retry)
    assert isinstance(verdicts[3], Retry)
    assert verdicts[4] is None
    assert isinstance(ended[1], Undelivered)
    assert ended[1].exchange is not None
    assert "u2" not in ended[1].exchange.body


@pytest.mark.spec("D03")
async def test_a_later_batch_refused_as_a_whole_comes_again() -> None:
    calls = 0

    def once(_: Request) -> Reply:
        nonlocal calls
        calls += 1
        return answer(200 if calls == 1 else 413)

    world = World(("POST", "/api/v2/batch", once))
    merges = [
        message({"type": "alias", "userId": user, "previousId": f"old-{user}"}, message_id=user)
        for user in ("u1", "u2")
    ]
    verdicts = outcomes(await world.deliver_batch([of("u1"), merges[0], of("u2"), merges[1]]))
    assert verdicts == [Delivered(200), None, Delivered(200), None]


@pytest.mark.spec("C120", "D03")
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_batch_refused_as_a_whole_is_halved_until_the_one_at_fault_stands_alone(status: int) -> None:
    def refusing(request: Request) -> Reply:
        return answer(status if b'"bad"' in request.body else 200, {"errors": [{"message": "bad item"}]})

    world = World(("POST", "/api/v2/*", refusing))
    parcels = []
    for user in ("u1", "u2", "bad", "u4", "u5"):
        payload = prepared(world.destination, of(user))
        parcels.append(Parcel(Lane(user), [Item(None, of(user), payload)], payload))  # type: ignore[arg-type]
    verdicts = await Courier(world.destination, world.scope).send(parcels)
    assert [type(verdict) for verdict in verdicts] == [Delivered, Delivered, Rejected, Delivered, Delivered]
    accepted = [json_of(request) for request in world.sent if b'"bad"' not in request.body]
    users = [item["identifiers"]["id"] for body in accepted for item in body.get("batch", [body])]
    assert sorted(users) == ["u1", "u2", "u4", "u5"]


@pytest.mark.spec("D03")
@pytest.mark.parametrize(("status", "outcome"), [(429, Retry), (503, Retry), (401, Paused), (403, Paused)])
async def test_a_batch_that_fails_concerns_all(status: int, outcome: type[Outcome]) -> None:
    world = World(("POST", "/api/v2/batch", answer(status)))
    with pytest.raises(Undelivered) as raised:
        await world.deliver_batch([of("u1"), of("u2"), anonymous("an")])
    assert isinstance(raised.value.outcome, outcome)
    assert ("Track API key is wrong" in getattr(raised.value.outcome, "reason", "")) is (status == 401)
    assert world.urls == [BATCH]


@pytest.mark.spec("C120")
async def test_alone_an_item_is_its_own_request_and_its_refusal_the_verdict() -> None:
    said = {"errors": [{"reason": "invalid", "field": "name", "message": "name is required"}]}
    world = World(("POST", "/api/v2/entity", answer(400, said)))
    assert await world.deliver(track()) == Rejected("400: name: name is required (invalid)", 400)
    assert json_of(world.sent[0]) == item_of(track())


@pytest.mark.spec("C120")
async def test_both_items_of_a_message_are_sent_in_order_when_it_is_alone() -> None:
    world = World()
    await world.deliver(identify({"email": "a@b.c", "plan": "gold"}, trust="client"))
    assert world.urls == [ENTITY, ENTITY]
    assert [json_of(request)["attributes"] for request in world.sent] == [
        {"plan": "gold"},
        {"email": "a@b.c"},
    ]


def test_a_person_known_by_email_only_is_one_person_too() -> None:
    destination = World().destination
    given = {"type": "track", "event": "E", "anonymousId": "an", "context": {"traits": {"email": "a@b.c"}}}
    one = prepared(destination, message(given)).data
    other = prepared(destination, message({"type": "identify", "traits": {"email": "a@b.c"}})).data
    posts = [one, prepared(destination, of("u1")).data, other]
    assert persons([post.people for post in posts]) == [[0, 2], [1]]


def test_persons_are_told_by_shared_ids() -> None:
    people: tuple[list[str], ...] = ["a"], ["b"], [], ["c", "a"], ["b"], ["b", "c"], ["d"], ["a"]
    assert persons(people) == [[0, 1, 3, 4, 5, 7], [2], [6]]
    assert persons([]) == []


@pytest.mark.spec("P4", "C120")
async def test_linked_ids_keep_their_order_though_no_id_is_shared() -> None:
    """The loop says whose the payloads are: what was done anonymously goes before what the user did."""
    world = World()
    both = [prepared(world.destination, anonymous("an")), prepared(world.destination, of("u1"))]
    payloads = [msgspec.structs.replace(each, person="u:u1") for each in both]
    await world.destination.deliver_batch(payloads, world.scope)
    assert [url.rpartition("/")[2] for url in world.urls[-2:]] == ["events", "entity"]
