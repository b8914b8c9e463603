"""The backfill and the reconciliation: pages, resuming, totals, and no deletion that Google did not name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.errors import TowpathError
from towpath.http import Reply, Request, TransportError, Undelivered
from towpath.outcome import Rejected, Retry
from towpath.source import Page, Unfit
from towpath.sources._firebase_changes import DocumentChange, UserChange
from towpath.sources._firebase_lists import Seen
from towpath.sources._firebase_polls import BACKFILL, RECONCILE, USERS, polls
from towpath.sources._firebase_project import Project
from towpath.sources._firebase_settings import FirebaseSettings

from .google_world import LOOKED, PROJECT, WRITTEN, World, document, user


def once(
    matching: str, answer: Reply | TransportError, *, after: int = 0
) -> Callable[[Request], Reply | None]:
    """Fail the call number `after` whose URL holds a text."""
    left = [after + 1]

    def fault(request: Request) -> Reply | None:
        if matching not in request.url:
            return None
        left[0] -= 1
        if left[0] != 0:
            return None
        if isinstance(answer, TransportError):
            raise answer
        return answer

    return fault


def paths(items: list[Any]) -> list[str]:
    return [item.path for item in items if isinstance(item, DocumentChange)]


def gone(items: list[Any]) -> list[str]:
    deleted = [item.path for item in items if isinstance(item, DocumentChange) and item.fields is None]
    return deleted + [item.uid for item in items if isinstance(item, UserChange) and item.user is None]


@pytest.mark.spec("F056")
async def test_a_backfill_lists_users_and_documents_and_knows_the_total() -> None:
    world = World(collections=["users"], page_size=2)
    for number in range(5):
        world.google.user(f"u{number}", email=f"u{number}@x.com")
        world.google.put(f"users/d{number}", attributes="a")
    found = [page async for page in world.pages(BACKFILL)]
    items = [item for page in found for item in page.items]
    assert [item.uid for item in items[:5]] == [f"u{number}" for number in range(5)]
    assert paths(items) == [f"users/d{number}" for number in range(5)]
    assert all(item.epoch for item in items)
    assert {page.total for page in found} == {10}
    assert items[5] == DocumentChange(
        "(default)", "users/d0", {"attributes": {"stringValue": "a"}}, WRITTEN, WRITTEN, epoch=True
    )
    assert items[0].user == {"localId": "u0", "email": "u0@x.com"}
    assert found[-1] == Page((), {}, 10)


@pytest.mark.spec("F056")
async def test_a_full_backfill_tells_everybody_whole_again() -> None:
    world = World(collections=["users"])
    world.google.user("u1", email="u1@x.com")
    world.google.put("users/d1", attributes="a")
    assert [item.full for item in await world.all(BACKFILL)] == [False, False]
    assert [item.full for item in await world.all(BACKFILL, full="True")] == [True, True]
    assert [item.full for item in await world.all(RECONCILE, full="True")] == [False, False]


@pytest.mark.spec("F056")
async def test_a_walk_goes_on_after_any_page() -> None:
    world = World(collections=["users", "orgs/{org}/users"], page_size=2)
    for number in range(3):
        world.google.user(f"u{number}")
        world.google.put(f"users/d{number}")
        world.google.put(f"orgs/o{number}/users/p{number}")
    whole = [page async for page in world.pages(BACKFILL)]
    for taken in range(len(whole) - 1):
        before = [item for page in whole[: taken + 1] for item in page.items]
        rest = [page async for page in world.pages(BACKFILL, whole[taken].state)]
        assert before + [item for page in rest for item in page.items] == [
            item for page in whole for item in page.items
        ]
        assert {page.total for page in rest} == {whole[0].total}


@pytest.mark.spec("F006")
@pytest.mark.parametrize(
    ("collection", "expected"),
    [
        ("users", ["users/a"]),
        ("orgs/acme/users", ["orgs/acme/users/b"]),
        ("orgs/{org}/users", ["orgs/acme/users/b", "orgs/zoo/users/c"]),
        ("orgs/acme/teams/{team}/users", ["orgs/acme/teams/t/users/d"]),
        ("orgs/{org}/teams/{team}/users", ["orgs/acme/teams/t/users/d"]),
        (
            {"path": "users", "group": True},
            ["orgs/acme/teams/t/users/d", "orgs/acme/users/b", "orgs/zoo/users/c", "users/a"],
        ),
    ],
)
async def test_what_a_collection_takes(collection: Any, expected: list[str]) -> None:
    world = World(collections=[collection], auth=False, page_size=1)
    everything = ["users/a", "orgs/acme/users/b", "orgs/zoo/users/c", "orgs/acme/teams/t/users/d"]
    for path in [*everything, "orgs/acme", "users/a/orders/users", "others/users"]:
        world.google.put(path)
    assert paths(await world.all(BACKFILL)) == expected
    world.google.documents.clear()
    world.google.put("users/kept")
    world.google.put("orgs/acme/users/kept")
    world.google.put("orgs/acme/teams/t/users/kept")
    assert sorted(gone(await world.all(RECONCILE))) == sorted(expected)


@pytest.mark.spec("F006")
async def test_a_named_database_is_asked_by_its_name() -> None:
    world = World(collections=[{"path": "users", "database": "eu"}], auth=False)
    world.google.documents[f"projects/{PROJECT}/databases/eu/documents/users/a"] = {}
    world.google.put("users/b")
    [item] = await world.all(BACKFILL)
    assert (item.database, item.path) == ("eu", "users/a")


async def test_only_fields_that_are_mapped_are_read() -> None:
    fields = {"address.city": "city", "my plan": "plan"}
    entry = {"path": "users", "fields": fields, "identifiers": "a.b"}
    world = World(collections=[entry], auth=False)
    world.google.put("users/a", attributes="a", bio="long")
    [item] = await world.all(BACKFILL)
    assert set(item.fields) == {"attributes"}
    [query] = [request for request in world.transport.requests if ":runQuery" in request.url][:1]
    chosen = json.loads(query.body)["structuredQuery"]["select"]["fields"]
    assert [field["fieldPath"] for field in chosen] == ["`a.b`", "attributes", "address", "`my plan`"]


async def test_a_document_taken_whole_is_read_whole() -> None:
    world = World(collections=[{"path": "users", "attributes": "."}], auth=False)
    world.google.put("users/a", anything="x")
    [item] = await world.all(BACKFILL)
    assert item.fields == {"anything": {"stringValue": "x"}}


@pytest.mark.spec("F021")
async def test_tenants_are_lists_of_their_own() -> None:
    world = World(tenants=["t1"])
    world.google.user("a")
    world.google.user("b", tenant="t1")
    items = await world.all(BACKFILL)
    assert [(item.tenant, item.uid) for item in items] == [("", "a"), ("t1", "b")]
    del world.google.users["t1"]["b"]
    world.google.user("c", tenant="t1")
    changed = await world.all(RECONCILE)
    assert [(item.tenant, item.uid) for item in changed if item.user is None] == [("t1", "b")]


@pytest.mark.spec("F055", "F057")
async def test_what_is_gone_is_found_and_nothing_else() -> None:
    world = World(collections=["users"], page_size=3)
    for number in range(7):
        world.google.user(f"u{number}")
        world.google.put(f"users/d{number}")
    await world.all(BACKFILL)
    for number in (2, 5):
        del world.google.users[""][f"u{number}"]
        world.google.documents.pop(
            next(name for name in world.google.documents if name.endswith(f"/d{number}"))
        )
    items = await world.all(RECONCILE)
    assert gone(items) == ["users/d2", "users/d5", "u2", "u5"]
    deleted = next(item for item in items if isinstance(item, DocumentChange) and item.fields is None)
    assert deleted.update_time == LOOKED
    assert not any(item.epoch for item in items)
    assert gone(await world.all(RECONCILE)) == []


@pytest.mark.spec("F021", "F055")
async def test_users_alone_are_compared_without_asking_for_documents() -> None:
    world = World(collections=["users"], page_size=3)
    for number in range(4):
        world.google.user(f"u{number}")
        world.google.put(f"users/d{number}")
    await world.all(BACKFILL)
    del world.google.users[""]["u2"]
    world.google.documents.clear()
    items = await world.all(USERS)
    assert gone(items) == ["u2"]
    assert not any(isinstance(item, DocumentChange) for item in items)


@pytest.mark.spec("D14", "F055")
async def test_an_item_that_a_list_passes_over_is_not_deleted() -> None:
    world = World(collections=["users"])
    for number in range(4):
        world.google.user(f"u{number}")
        world.google.put(f"users/d{number}")
    await world.all(BACKFILL)
    short = json.dumps({"kind": "…", "users": [{"localId": "u0"}]}).encode()
    world.google.fault = once("accounts:batchGet", Reply(200, {}, short))
    assert gone(await world.all(RECONCILE)) == []
    name = f"projects/{PROJECT}/databases/(default)/documents/users/d0"
    row = {"document": {"name": name, "updateTime": WRITTEN, "createTime": WRITTEN}, "readTime": LOOKED}
    world.google.fault = once(":runQuery", Reply(200, {}, json.dumps([row]).encode()))
    assert gone(await world.all(RECONCILE)) == []


@pytest.mark.spec("D14")
@pytest.mark.parametrize(
    "answer",
    [
        Reply(500),
        Reply(200, {}, b"[{"),
        Reply(200, {}, b"[]"),
        Reply(200, {}, b"{}"),
        Reply(200, {}, b'[{"error": {"code": 14, "message": "unavailable"}}]'),
        Reply(200, {}, b'[{"document": {"name": "of another project"}}]'),
        TransportError("reset", sent=True),
    ],
)
async def test_a_failed_list_deletes_nobody(answer: Reply | TransportError) -> None:
    known = [document(f"users/d{number}") for number in range(9)]
    world = World(*known, collections=["users"], auth=False, page_size=2)
    for number in range(6):
        world.google.put(f"users/d{number}")
    world.google.fault = once(":runQuery", answer, after=2)
    taken, state, failed = await world.attempt(RECONCILE)
    assert isinstance(failed.outcome, Retry)
    assert gone(taken) == []
    assert gone(await world.all(RECONCILE, state)) == ["users/d6", "users/d7", "users/d8"]


@pytest.mark.spec("D14")
@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, {}, b"[]"),
        Reply(200, {}, b'[{"readTime": "2026-02-03T04:05:06Z"}]'),
        Reply(200, {}, b'[{"missing": "x", "readTime": "2026-02-03T04:05:06Z"}]'),
        Reply(503),
    ],
)
async def test_a_look_up_that_does_not_answer_for_all_deletes_nobody(answer: Reply) -> None:
    world = World(document("users/a"), document("users/b"), collections=["users"], auth=False)
    world.google.put("users/a")
    world.google.fault = once("documents:batchGet", answer)
    with pytest.raises(Undelivered):
        await world.all(RECONCILE)
    assert world.known.count() == 2


@pytest.mark.spec("D14")
@pytest.mark.parametrize("body", [b"[]", b"{}", b"nothing", b'{"users": [{"email": "x"}]}'])
async def test_a_look_up_of_users_that_is_none_deletes_nobody(body: bytes) -> None:
    world = World(user("a"), user("b"))
    world.google.user("a")
    world.google.fault = once("accounts:lookup", Reply(200, {}, body))
    with pytest.raises(Undelivered):
        await world.all(RECONCILE)
    assert world.known.count() == 2


@pytest.mark.spec("D14")
async def test_an_empty_list_deletes_nobody_unless_told() -> None:
    world = World(user("a"), document("users/b"), collections=["users"])
    items = await world.all(RECONCILE)
    assert [type(item) for item in items] == [Unfit, Unfit]
    assert "auth came back empty while 1" in items[0].reason
    assert world.known.count() == 2
    assert gone(await world.all(RECONCILE, empty="delete")) == ["users/b", "a"]
    assert world.known.count() == 0


async def test_an_empty_list_of_nobody_known_is_no_matter() -> None:
    assert await World(collections=["users"]).all(RECONCILE) == []


@pytest.mark.spec("F055")
async def test_documents_of_other_lists_are_left_alone() -> None:
    world = World(
        document("users/a/orders/o"), document("usersold/x"), user("u"), collections=["users"], auth=False
    )
    world.google.put("users/a")
    assert gone(await world.all(RECONCILE)) == []


@pytest.mark.spec("F055")
async def test_a_sweep_goes_on_where_it_was() -> None:
    known = [document(f"users/d{number:03}") for number in range(350)]
    world = World(*known, collections=["users"], auth=False)
    world.google.put("users/kept")
    world.google.fault = once("documents:batchGet", Reply(503), after=2)
    taken, state, _ = await world.attempt(RECONCILE)
    assert len(gone(taken)) == 200
    asked = len(world.transport.requests)
    rest = await world.all(RECONCILE, state)
    assert len(gone(rest)) == 150
    assert not set(gone(rest)) & set(gone(taken))
    assert not any(":runQuery" in request.url for request in world.transport.requests[asked:])


async def test_a_sweep_does_not_ask_again_for_those_it_found() -> None:
    paths_known = [f"users/d{number:03}" for number in range(150)]
    world = World(*map(document, paths_known), collections=["users"], auth=False)
    for path in paths_known:
        world.google.put(path)
    await world.all(RECONCILE, {"list": "users", "listed": 150, "swept": document("users/d099")})
    [request] = world.transport.requests
    asked = json.loads(request.body)["documents"]
    assert [name.rpartition("/")[2] for name in asked] == [f"d{number}" for number in range(100, 150)]


@pytest.mark.spec("D14", "F056")
async def test_a_backfill_deletes_nobody() -> None:
    world = World(user("a"), document("users/b"), collections=["users"])
    world.google.user("c")
    world.google.put("users/d")
    assert gone(await world.all(BACKFILL, empty="delete")) == []


@pytest.mark.spec("F056")
async def test_one_list_can_be_chosen_and_another_is_named() -> None:
    world = World(collections=["users", {"path": "staff", "database": "eu"}])
    world.google.user("a")
    world.google.put("users/b")
    assert paths(await world.all(BACKFILL, only="users")) == ["users/b"]
    with pytest.raises(TowpathError, match="'user'") as wrong:
        await world.all(BACKFILL, only="user")
    assert wrong.value.why == "its lists are: auth, users, eu:staff"


async def test_a_page_token_that_expired_begins_the_list_anew() -> None:
    world = World(page_size=1)
    for uid in "abc":
        world.google.user(uid)
    [first, *_] = [page async for page in world.pages(BACKFILL)]
    world.google.fault = once("accounts:batchGet", Reply(400, {}, b'{"error": "INVALID_PAGE_SELECTION"}'))
    assert [item.uid for item in await world.all(BACKFILL, first.state)] == ["a", "b", "c"]
    world.google.fault = once("accounts:batchGet", Reply(400), after=1)
    with pytest.raises(Undelivered):
        await world.all(BACKFILL, first.state)


async def test_a_token_that_leads_back_to_itself_ends_the_walk() -> None:
    world = World(page_size=1)
    body = json.dumps({"users": [], "nextPageToken": "same"}).encode()
    world.google.fault = lambda request: Reply(200, {}, body) if "batchGet" in request.url else None
    with pytest.raises(Undelivered):
        await world.all(BACKFILL)


async def test_a_state_of_lists_that_are_no_more_begins_anew() -> None:
    world = World(collections=["users"], auth=False)
    world.google.put("users/a")
    assert paths(await world.all(BACKFILL, {"list": "former", "after": "x"})) == ["users/a"]


async def test_large_documents_come_fewer_at_once_and_one_too_large_is_named() -> None:
    world = World(collections=["users"], auth=False, page_size=8)
    for number in range(9):
        world.google.put(f"users/d{number}")
    limits: list[int] = []

    def fault(request: Request) -> Reply | None:
        if ":runQuery" not in request.url:
            return None
        query = json.loads(request.body)["structuredQuery"]
        limits.append(query["limit"])
        if query["select"]["fields"] == [{"fieldPath": "__name__"}]:
            return None
        answer = world.google._query(
            request.url.partition(".com")[2].replace("%28", "(").replace("%29", ")").partition("?")[0],
            json.loads(request.body),
        )
        named = [row["document"]["name"] for row in answer if "document" in row]
        too_much = query["limit"] > 2 or any(name.endswith("/d4") for name in named)
        return Reply(200, {}, b"[", cut=True) if too_much else None

    world.google.fault = fault
    items = await world.all(BACKFILL)
    assert paths(items) == [f"users/d{number}" for number in (0, 1, 2, 3, 5, 6, 7, 8)]
    [large] = [item for item in items if isinstance(item, Unfit)]
    assert f"{PROJECT}/(default)/users/d4 has more than 8 MiB" in large.reason
    assert limits[:2] == [8, 2]


@pytest.mark.spec("F050")
@pytest.mark.parametrize(("ahead_s", "stamped"), [(0, "08:53:20"), (1.5, "08:53:20"), (7200, "06:53:20")])
async def test_users_are_stamped_by_googles_clock(ahead_s: float, stamped: str) -> None:
    world = World(user("gone"))
    world.google.ahead_s = ahead_s
    world.google.user("a")
    items = await world.all(RECONCILE)
    assert {item.at for item in items} == {f"2025-10-09T{stamped}.000Z"}


async def test_a_refused_count_is_no_matter() -> None:
    world = World(collections=["users"], auth=False)
    world.google.put("users/a")
    world.google.fault = once(":runAggregationQuery", Reply(403))
    found = [page async for page in world.pages(BACKFILL)]
    assert {page.total for page in found} == {None}


async def test_an_answer_of_users_that_is_too_long_is_not_tried_again() -> None:
    world = World()
    world.google.fault = once("accounts:batchGet", Reply(200, {}, b"{", cut=True))
    with pytest.raises(Undelivered) as failed:
        await world.all(BACKFILL)
    assert isinstance(failed.value.outcome, Rejected)


def test_without_a_credential_there_is_nothing_to_ask() -> None:
    assert polls(Project(FirebaseSettings(project=PROJECT))) == ()


@pytest.mark.spec("F057")
def test_reconciling_runs_by_itself_and_the_backfill_does_not() -> None:
    named = {poll.name: poll.every_s for poll in polls(World(reconcile="2h", reconcile_users="5m").project)}
    assert named == {BACKFILL: None, RECONCILE: 7200, USERS: 300}
    given = [set(poll.options) for poll in polls(World().project)]
    assert given == [{"only", "full"}, {"only", "empty"}, {"empty"}]
    assert [poll.every_s for poll in polls(World(reconcile=0, reconcile_users=0).project)] == [None] * 3
    assert [poll.name for poll in polls(World(auth=False).project)] == [BACKFILL, RECONCILE]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text()), st.lists(st.text()))
def test_seen_has_what_was_added(first: list[str], second: list[str]) -> None:
    seen = Seen()
    for keys in (first, second):
        seen.add(keys)
        assert all(key in seen for key in keys)
    assert len(seen) == len(first) + len(second)
    assert ("never" in seen) == ("never" in {*first, *second})


@settings(max_examples=60, deadline=None)
@given(known=st.sets(st.integers(0, 40)), there=st.sets(st.integers(0, 40)), size=st.integers(1, 7))
async def test_any_difference_is_found(known: set[int], there: set[int], size: int) -> None:
    world = World(
        *(document(f"users/d{n}") for n in known), collections=["users"], auth=False, page_size=size
    )
    for number in there:
        world.google.put(f"users/d{number}")
    items = await world.all(RECONCILE, empty="delete")
    assert set(gone(items)) == {f"users/d{number}" for number in known - there}
    assert set(world.known.values) == {document(f"users/d{number}") for number in there}
