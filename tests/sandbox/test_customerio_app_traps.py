"""What trips readers of the App API: silent cuts, null lists, late metrics, forgotten people, odd tokens."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from towpath.sandbox import customerio_changes as changes
from towpath.sandbox.customerio import DEFAULT, ELSEWHERE, CustomerIoSimulator
from towpath.sandbox.customerio_search import EVERYBODY
from towpath.sandbox.customerio_seed import populate
from towpath.sandbox.customerio_state import Switches
from towpath.sandbox.exchange import Incoming
from towpath.sandbox.serve import serve

from .customerio_calls import Workspace
from .test_customerio_app import pages

pytestmark = pytest.mark.spec("D12", "R047")

DAY_S = 86_400
SMALL = {"people": 30, "messages": 40, "activities": 30, "newsletters": 5, "senders": 3, "suppressions": 4}


def seeded(settings: dict[str, Any] | None = None, **sizes: int) -> Workspace:
    at = Workspace(**(settings or {}))
    populate(at.simulator, seed=3, **{**SMALL, **sizes})
    return at


def all_of(at: Workspace, path: str, key: str, **query: Any) -> list[Any]:
    return [row for page in pages(at, "GET", path, **query) for row in page[key] or ()]


# -- a seeded workspace --------------------------------------------------------------------------------


def test_a_seed_gives_the_same_workspace() -> None:
    one, two = seeded(), seeded()
    for path in ("/messages", "/activities", "/campaigns", "/sender_identities", "/newsletters"):
        assert one.app("GET", path).json == two.app("GET", path).json, path
    other = Workspace()
    populate(other.simulator, seed=4, **SMALL)
    assert other.app("GET", "/messages").json != one.app("GET", "/messages").json


def test_every_list_is_longer_than_a_page() -> None:
    at = Workspace()
    sizes = populate(at.simulator)
    window = {"start_ts": int(at.clock.now()) - 100 * DAY_S, "limit": 500}
    lists = {
        "/messages": ("messages", window),
        "/activities": ("activities", {"limit": 100}),
        "/newsletters": ("newsletters", {"limit": 100}),
        "/campaigns/1/actions": ("actions", {}),
        "/broadcasts/1/actions": ("actions", {}),
    }
    for path, (key, query) in lists.items():
        assert len([page for page in pages(at, "GET", path, **query) if page[key]]) > 1, path
    for hidden in ("true", "false"):
        shown = all_of(at, "/sender_identities", "sender_identities", limit=100, hidden=hidden)
        assert len(shown) == sizes.senders
    found = pages(at, "POST", "/customers", {"filter": EVERYBODY}, limit=1000)
    assert sum(len(page["identifiers"] or ()) for page in found) == sizes.people
    assert len(at.app("GET", "/esp/suppression/bounces", limit=1000).json["suppressions"]) == 1000
    assert at.app("GET", "/esp/suppression/invalid_emails").json == {"suppressions": None}


def test_a_seeded_person_is_found_by_every_identifier() -> None:
    at = seeded()
    (found,) = at.app("POST", "/customers/attributes", {"ids": ["u6"]}).json["customers"]
    assert found["identifiers"]["email"] == "person6@example.com"
    assert at.app("GET", "/customers", email="person5@example.com").json["results"][0]["id"] is None
    assert at.app("GET", "/objects/1/o1/attributes").json["object"]["attributes"]["name"] == "Company 1"


# -- messages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [{}, {"start_ts": 0}, {"start_ts": 0, "end_ts": None}])
def test_more_than_half_a_year_is_cut_without_a_word(bounds: dict[str, Any]) -> None:
    at, now = seeded(), 0
    now = int(at.clock.now())
    given = {name: now if value is None else value for name, value in bounds.items()}
    found = all_of(at, "/messages", "messages", **given)
    assert 0 < len(found) < SMALL["messages"]
    assert min(each["created"] for each in found) >= now - 184 * DAY_S
    windows = [(now - (n + 1) * 30 * DAY_S + 1, now - n * 30 * DAY_S) for n in range(14)]
    parts = [all_of(at, "/messages", "messages", start_ts=since, end_ts=until) for since, until in windows]
    assert sum(map(len, parts)) == SMALL["messages"]


def test_a_page_has_at_most_a_thousand_messages_and_is_null_when_there_are_none() -> None:
    at = Workspace()
    assert at.app("GET", "/messages").json == {"messages": None, "next": ""}
    populate(at.simulator, people=2, messages=1500, message_days=10)
    first = at.app("GET", "/messages", limit=9999).json
    assert len(first["messages"]) == 1000
    empty = at.app("GET", "/messages", limit=1000, start=first["next"]).json
    assert empty["messages"] is None
    last = at.app("GET", "/messages", limit=1000, start=empty["next"]).json
    assert (len(last["messages"]), last["next"]) == (500, "")
    stamps = [each["created"] for each in first["messages"]]
    assert stamps == sorted(stamps, reverse=True)


def test_a_metric_that_comes_late_changes_an_old_message() -> None:
    at = seeded()
    old = all_of(at, "/messages", "messages")[-1]
    changed = changes.open_late(at.state, old["id"], "clicked")
    (shown,) = [each for each in all_of(at, "/messages", "messages") if each["id"] == old["id"]]
    assert shown == changed
    assert shown["metrics"]["clicked"] == int(at.clock.now())
    assert shown["deduplicate_id"] == f"{old['id']}:{int(at.clock.now())}" != old["deduplicate_id"]
    assert shown["created"] == old["created"]
    with pytest.raises(LookupError):
        changes.open_late(at.state, "none")


def test_messages_of_a_deleted_person_are_forgotten() -> None:
    at = seeded()
    theirs = next(each for each in all_of(at, "/messages", "messages") if each["customer_id"])
    cio_id = theirs["customer_identifiers"]["cio_id"]
    changes.delete_person(at.simulator, cio_id=cio_id)
    shown = at.app("GET", f"/messages/{theirs['id']}").json["message"]
    assert shown["forgotten"] is True
    assert (shown["customer_id"], shown["customer_identifiers"]) == (None, {"cio_id": cio_id})
    assert sum(each["forgotten"] for each in all_of(at, "/messages", "messages")) >= 1
    got = at.app("POST", "/customers/attributes?id_type=cio_id", {"ids": [cio_id]})
    assert (got.status, got.json) == (200, {"customers": []})


def test_seeded_messages_can_be_filtered_merged_and_put_out_of_order() -> None:
    at = seeded()
    everything = all_of(at, "/messages", "messages")
    wanted = [each["id"] for each in everything if each["type"] == "push"]
    assert [each["id"] for each in all_of(at, "/messages", "messages", type="push")] == wanted
    at.state.messages.append({"id": "older", "created": everything[-1]["created"] - 1, "type": "email"})
    assert all_of(at, "/messages", "messages")[-1]["id"] == "older"
    assert len(at.state.messages) == len(list(at.state.messages)) == SMALL["messages"] + 1
    gone, kept = at.simulator.find(id="u1"), at.simulator.find(id="u2")
    assert gone is not None
    assert kept is not None
    count = len(at.state.messages.of(gone.cio_id)) + len(at.state.messages.of(kept.cio_id))
    at.track("POST", "/merge_customers", {"primary": {"id": "u2"}, "secondary": {"id": "u1"}})
    assert len(at.app("GET", "/customers/u2/messages", limit=1000).json["messages"] or ()) <= count
    assert len(at.state.messages.of(kept.cio_id)) == count


# -- activities ----------------------------------------------------------------------------------------


def test_activities_lie_where_they_came_whatever_their_time() -> None:
    at = seeded()
    now = at.clock.now()
    changes.tell(at.state, at=[now - 90 * DAY_S] * 12, name="late")
    changes.tell(at.state, at=[now + 90 * DAY_S] * 3, name="ahead")
    found = all_of(at, "/activities", "activities", limit=10)
    assert [each.get("name") for each in found[:15]] == ["ahead"] * 3 + ["late"] * 12
    assert len(found) == SMALL["activities"] + 15


def test_activities_are_kept_for_thirty_days() -> None:
    at = seeded(activity_days=29)
    assert len(all_of(at, "/activities", "activities")) == SMALL["activities"]
    at.clock.at += 15 * DAY_S
    assert 0 < len(all_of(at, "/activities", "activities")) < SMALL["activities"]


def test_activities_of_deleted_people_are_shown_when_asked_for() -> None:
    at = seeded()
    before = len(all_of(at, "/activities", "activities"))
    theirs = next(each for each in at.activities() if each["customer_identifiers"])
    changes.delete_person(at.simulator, cio_id=theirs["customer_identifiers"]["cio_id"])
    assert len(all_of(at, "/activities", "activities")) < before
    assert len(all_of(at, "/activities", "activities", deleted="true")) == before + 1


# -- tokens, nulls, shapes -----------------------------------------------------------------------------


def test_a_token_after_the_last_row_leads_to_an_empty_page() -> None:
    at = seeded()
    for path in ("/sender_identities", "/activities"):
        key, found = path.strip("/"), pages(at, "GET", path, limit=100)
        assert [bool(page[key]) for page in found] == [True, False], path
    plain = seeded({"switches": Switches(tail_tokens=False)})
    for path in ("/sender_identities", "/activities"):
        assert len(pages(plain, "GET", path, limit=100)) == 1


def test_every_empty_list_can_be_null() -> None:
    at = Workspace(switches=Switches(null_lists=True))
    assert at.app("GET", "/campaigns").json == {"campaigns": None}
    assert at.app("GET", "/activities").json == {"activities": None, "next": ""}


def test_ids_of_actions_are_text_and_tags_can_be_the_text_nil() -> None:
    at = seeded()
    for kind in ("campaigns", "broadcasts"):
        assert all(isinstance(each["id"], str) for each in all_of(at, f"/{kind}/1/actions", "actions"))
    assert at.app("GET", "/broadcasts").json["broadcasts"][0]["tags"] == "nil"
    campaigns = at.app("GET", "/campaigns").json["campaigns"]
    types = at.app("GET", "/object_types").json["types"]
    assert (campaigns[1]["object_type_id"], types[0]["id"]) == (1, "1")


def test_relationships_can_be_repeated_at_the_edge_of_pages() -> None:
    at = seeded({"switches": Switches(repeated_relationships=True)})
    person = at.simulator.find(id="u1")
    assert person is not None
    person.relationships = {key: {} for key in list(at.state.objects)[:25]}
    found = all_of(at, "/customers/u1/relationships", "cio_relationships", limit=10)
    names = [each["identifiers"]["object_id"] for each in found]
    assert (len(names), len(set(names))) == (27, 25)


# -- what changes between two reads --------------------------------------------------------------------


def test_changes_move_what_says_so_and_nothing_else() -> None:
    at = seeded()
    at.clock.at += 10
    now = int(at.clock.now())
    changes.change(at.state, "campaigns", 5, name="new")
    found = at.app("GET", "/campaigns/5").json["campaign"]
    assert (found["name"], found["updated"], found["deduplicate_id"]) == ("new", now, f"5:{now}")
    changes.change(at.state, "snippets", "snippet 1", value="x")
    assert [each["updated_at"] == now for each in at.app("GET", "/snippets").json["snippets"]].count(
        True
    ) == 1
    changes.change_action(at.state, "campaigns/1", "1001", name="later")
    assert at.app("GET", "/campaigns/1/actions/1001").json["action"]["updated"] == now
    before = at.app("GET", "/collections/1").json["collection"]
    changes.rewrite_collection(at.state, 1, [{"sku": "a"}, {"sku": "b"}])
    after = at.app("GET", "/collections/1").json["collection"]
    assert (after["rows"], after["updated_at"]) == (2, before["updated_at"])
    at.app("PUT", "/collections/1/content", [{"sku": "c"}])
    assert at.app("GET", "/collections/1").json["collection"]["updated_at"] == before["updated_at"]


def test_what_is_removed_or_archived_is_no_longer_listed() -> None:
    at = seeded()
    changes.remove(at.state, "campaigns", 5)
    changes.remove(at.state, "ip_addresses", "35.188.196.183")
    changes.delete_segment(at.state, 1)
    changes.change_segment(at.state, 5, archived=True)
    assert 5 not in [each["id"] for each in at.app("GET", "/campaigns").json["campaigns"]]
    assert at.app("GET", "/campaigns/5/actions").status == 404
    assert "35.188.196.183" not in at.app("GET", "/info/ip_addresses").json["ip_addresses"]
    listed = at.app("GET", "/segments").json["segments"]
    assert [each["id"] for each in listed] == [2, 3, 6, 7, 8], "4 is archived from the start"
    assert [each["state"] for each in listed].count("build") == 1
    with pytest.raises(LookupError):
        changes.remove(at.state, "campaigns", 5)


def test_suppressions_are_of_a_domain() -> None:
    at = seeded()
    asked = at.app("GET", "/esp/suppression/bounces", domain="mail.example.com").json
    assert len(asked["suppressions"]) == SMALL["suppressions"]
    assert set(asked["suppressions"][0]) == {"created", "email", "reason", "status"}
    assert at.app("GET", "/esp/suppression/bounces", domain="other").json == {"suppressions": None}
    assert at.app("GET", "/esp/suppression/bounces", offset=4).json == {"suppressions": None}


@pytest.mark.parametrize("kind", ["campaigns", "broadcasts", "newsletters"])
@pytest.mark.parametrize(("resolution", "count"), [("days", 15), ("weeks", 3), ("months", 1), ("hours", 337)])
def test_metrics_are_counted_between_two_times(kind: str, resolution: str, count: int) -> None:
    at = seeded()
    at.clock.at = 1_767_225_600.0 + 20 * DAY_S + 60  # Wednesday, 21 January 2026
    end = int(at.clock.now())
    asked = {"version": "2", "res": resolution, "start": end - 14 * DAY_S, "end": end}
    series = at.app("GET", f"/{kind}/1/metrics", **asked).json["metric"]["series"]
    daily = at.state.metrics[f"{kind}/1"]["sent"]
    # Weeks and months are told whole, from their first day.
    days = {"days": 15, "hours": 15, "weeks": 17, "months": 21}[resolution]
    assert (len(series["sent"]), sum(series["sent"])) == (count, sum(daily[-days:]))
    assert at.app("GET", f"/{kind}/1/metrics", **{**asked, "res": "years"}).status == 400


def test_the_counts_of_a_workspace_can_be_old() -> None:
    at = seeded({"switches": Switches(count_age_s=7200)})
    assert at.app("GET", "/workspaces").json["workspaces"][0]["people"] == 30
    changes.delete_person(at.simulator, id="u1")
    at.clock.at += 7199
    assert at.app("GET", "/workspaces").json["workspaces"][0]["people"] == 30
    at.clock.at += 1
    assert at.app("GET", "/workspaces").json["workspaces"][0]["people"] == 29


# -- who may read what ---------------------------------------------------------------------------------


def test_a_key_can_lack_the_right_to_an_endpoint() -> None:
    at = seeded()
    at.state.forbidden |= {"/v1/exports", "/v1/customers"}
    for method, path in (("GET", "/exports"), ("POST", "/exports/customers"), ("POST", "/customers")):
        got = at.app(method, path, {})
        assert (got.status, got.json["errors"][0]["status"]) == (403, "403")
    assert at.app("GET", "/campaigns").status == 200


def test_the_other_region_can_answer_401() -> None:
    at = Workspace(switches=Switches(app_region_status=401))
    got = at.call("GET", "/v1/campaigns", key=f"Bearer {ELSEWHERE.app_api_key}")
    assert (got.status, got.json["errors"][0]["status"]) == (401, "401")


@pytest.mark.parametrize("fate", ["failed", "pending", "expired"])
def test_an_export_can_come_to_nothing(fate: Any) -> None:
    at = seeded({"export_delay_s": 5})
    at.state.export_fate = fate
    made = at.app("POST", "/exports/customers", {"filters": EVERYBODY, "attributes": ["plan"]}).json["export"]
    at.clock.at += 5
    export = at.app("GET", f"/exports/{made['id']}").json["export"]
    assert (export["status"], export["failed"]) == ("done" if fate == "expired" else fate, fate == "failed")
    link = at.app("GET", f"/exports/{made['id']}/download")
    assert link.status == (200 if fate == "expired" else 404)
    if fate == "expired":
        at.state.export_fate = "done"
        assert _download(at, link.json["url"]) == (403, 0)
        link = at.app("GET", f"/exports/{made['id']}/download")
        assert _download(at, link.json["url"]) == (200, 31)
        assert _download(at, link.json["url"], key="Bearer sandbox-app-key") == (400, 0)


def _download(at: Workspace, url: str, key: str = "") -> tuple[int, int]:
    path, _, query = url.removeprefix("http://box").partition("?")
    given = [(b"authorization", key.encode())] if key else []
    answer = at.simulator.answer(Incoming("GET", path, query, given, b"", 0))
    return answer.status, len(answer.body.splitlines())


@pytest.mark.parametrize(
    ("fault", "type_", "body"),
    [
        ({"kind": "truncated"}, "application/json; charset=utf-8", b'{"campaigns":['),
        (
            {"kind": "status", "status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>"},
            "text/html",
            b"<html>",
        ),
        ({"kind": "status", "status": 502, "count": 2}, "application/json; charset=utf-8", b'{"errors"'),
    ],
)
async def test_answers_that_are_no_answers(fault: dict[str, Any], type_: str, body: bytes) -> None:
    simulator = CustomerIoSimulator()
    populate(simulator, people=0, messages=0, activities=0)
    simulator.faults.add(**{"path": "/v1/campaigns", "count": 1, **fault})
    headers = {"authorization": f"Bearer {DEFAULT.app_api_key}"}
    async with serve(simulator) as url, aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{url}/v1/campaigns") as bad:
            found = await bad.read()
            assert (bad.headers["content-type"], found[: len(body)]) == (type_, body)
            assert not found.endswith(b"]}") or bad.status >= 500
        simulator.faults.clear()
        async with session.get(f"{url}/v1/campaigns") as good:
            assert len((await good.json())["campaigns"]) == 12
