"""The simulated App API's campaigns and messages, exports, sends, and the lists of the workspace."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from towpath.sandbox.exchange import Incoming

from .customerio_calls import Workspace

pytestmark = pytest.mark.spec("D12")

DAY_S = 86_400


def message(at: Workspace, number: int, age_days: float = 0, **more: Any) -> dict[str, Any]:
    created = int(at.clock.now() - age_days * DAY_S)
    made = {"id": f"m{number}", "created": created, "type": "email", "metrics": {"sent": created}, **more}
    at.state.messages.append(made)
    return made


@pytest.mark.spec("C064")
@pytest.mark.parametrize(
    ("kind", "plural", "singular"),
    [
        ("campaigns", "campaigns", "campaign"),
        ("broadcasts", "broadcasts", "broadcast"),
        ("newsletters", "newsletters", "newsletter"),
        ("transactional", "messages", "message"),
    ],
)
def test_what_a_test_puts_there_is_listed_and_read(kind: str, plural: str, singular: str) -> None:
    at = Workspace()
    records = [{"id": n, "name": f"n{n}"} for n in (5, 6)]
    getattr(at.state, kind).extend(records)
    assert at.app("GET", f"/{kind}").json[plural] == records
    assert at.app("GET", f"/{kind}/6").json == {singular: records[1]}
    for path in ("", "/metrics?version=1", "/metrics/links", "/messages"):
        assert at.app("GET", f"/{kind}/7{path}").status == 404
        assert at.app("GET", f"/{kind}/5{path}").status == 200


@pytest.mark.spec("C065")
@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ({"version": "1", "period": "days", "steps": 3}, [2, 3, 4]),
        ({"version": "1", "steps": 1}, [3, 4]),
        ({"version": "1", "period": "hours", "steps": 0}, [0] * 20 + [1, 2, 3, 4]),
        ({"version": "1", "period": "weeks"}, [0] * 8 + [1, 2, 3, 4]),
        ({"version": "1", "period": "months"}, [0] * 8 + [1, 2, 3, 4]),
        ({"version": "1", "period": "months", "steps": 500}, [0] * 116 + [1, 2, 3, 4]),
        ({"version": "2", "res": "daily"}, [1, 2, 3, 4]),
    ],
)
def test_metrics_are_series_with_the_oldest_first(query: dict[str, Any], sent: list[int]) -> None:
    at = Workspace()
    at.state.campaigns.append({"id": 5})
    at.state.metrics["campaigns/5"] = {"sent": [1, 2, 3, 4]}
    series = at.app("GET", "/campaigns/5/metrics", **query).json["metric"]["series"]
    assert series["sent"] == sent
    assert series["topic_unsubscribed"] == [0] * len(sent)


@pytest.mark.spec("C065")
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"version": "3"},
        {"version": "1", "period": "years"},
        {"version": "1", "steps": "x"},
        {"version": "2", "res": "yearly"},
        {"version": "2", "start": 0, "end": 400_000_000},
    ],
)
def test_metrics_that_cannot_be_are_400(query: dict[str, Any]) -> None:
    at = Workspace()
    at.state.campaigns.append({"id": 5})
    assert at.app("GET", "/campaigns/5/metrics", **query).status == 400


def test_journeys_links_actions_and_contents() -> None:
    at = Workspace()
    at.state.campaigns.append({"id": 5})
    at.state.newsletters.append({"id": 3})
    at.state.journeys["campaigns/5"] = {"started": [1]}
    link = {"link": {"id": 1, "href": "https://example.com"}, "metric": {"series": {"clicked": [1]}}}
    at.state.links["campaigns/5"] = at.state.links["newsletters/3/contents/9"] = [link]
    at.state.actions["campaigns/5"] = [{"id": 96, "type": "email"}]
    at.state.contents["newsletters/3"] = [{"id": 9, "name": "A"}]
    at.state.metrics["newsletters/3/contents/9"] = {"opened": [7]}
    journey = at.app("GET", "/campaigns/5/journey_metrics", start=1, end=2, res="days").json["journey_metric"]
    assert (journey["started"], journey["finished"]) == ([1], [])
    assert at.app("GET", "/campaigns/5/journey_metrics").status == 400
    assert at.app("GET", "/campaigns/5/metrics/links").json == {"links": [link]}
    assert at.app("GET", "/newsletters/3/contents/9/metrics/links").json == {"links": [link]}
    assert at.app("GET", "/campaigns/5/actions").json == {
        "actions": [{"id": "96", "type": "email"}],
        "next": "",
    }
    assert at.app("GET", "/campaigns/5/actions/96").json == {"action": {"id": "96", "type": "email"}}
    assert at.app("GET", "/newsletters/3/contents").json == {"contents": [{"id": 9, "name": "A"}]}
    series = at.app("GET", "/newsletters/3/contents/9/metrics", steps=2).json["metric"]["series"]
    assert series["opened"] == [0, 7]
    assert at.app("GET", "/newsletters/3/contents/8").status == 404
    at.state.test_groups["newsletters/3"] = [{"id": 0, "name": "A"}]
    assert at.app("GET", "/newsletters/3/test_groups").json == {"test_groups": [{"id": 0, "name": "A"}]}


def test_newsletters_are_paged_and_can_be_deleted() -> None:
    at = Workspace()
    at.state.newsletters += [{"id": n} for n in range(1, 103)]
    first = at.app("GET", "/newsletters", limit=500).json
    assert (len(first["newsletters"]), first["next"]) == (100, "MDoxMDA=")
    rest = at.app("GET", "/newsletters", limit=500, start=first["next"]).json
    assert ([each["id"] for each in rest["newsletters"]], rest["next"]) == ([101, 102], "")
    assert at.app("GET", "/newsletters", sort="desc", limit=1).json["newsletters"] == [{"id": 102}]
    assert at.app("DELETE", "/newsletters/102").status == 204
    assert len(at.state.newsletters) == 101


def test_messages_are_newest_first_within_half_a_year_and_filtered() -> None:
    at = Workspace()
    oldest = message(at, 1, age_days=200)
    old, drafted = message(at, 2, age_days=10), message(at, 3, age_days=1, metrics={"drafted": 1})
    of_campaign = message(at, 4, age_days=2, campaign_id=5, type="push", metrics={"sent": 1, "opened": 2})

    def found(**query: Any) -> list[str]:
        return [each["id"] for each in at.app("GET", "/messages", **query).json["messages"]]

    assert found() == ["m4", "m2"]
    assert found(drafts="true") == [drafted["id"]]
    assert found(start_ts=old["created"], end_ts=old["created"]) == ["m2"], "both bounds are inclusive"
    assert found(start_ts=oldest["created"], end_ts=oldest["created"] + DAY_S) == ["m1"]
    assert found(campaign_id=5) == found(type="push") == found(metric="opened") == [of_campaign["id"]]
    assert found(start_ts=0) == ["m4", "m2"], "a longer time is cut to half a year"
    assert at.app("GET", "/messages", start_ts="soon").status == 400
    page = at.app("GET", "/messages", limit=1).json
    assert [each["id"] for each in page["messages"]] == ["m4"]
    empty = at.app("GET", "/messages", limit=1, start=page["next"]).json
    assert (empty["messages"], bool(empty["next"])) == (None, True)
    assert at.app("GET", "/messages", limit=1, start=empty["next"]).json["messages"][0]["id"] == "m2"
    assert at.app("GET", "/messages/m1").json["message"] == oldest
    assert at.app("GET", "/messages/m9").status == 404
    assert at.app("GET", "/messages/m1/archived_message").json["archived_message"]["id"] == "m1"


# -- exports -------------------------------------------------------------------------------------------


def test_an_export_is_pending_then_done_and_its_link_lasts_15_minutes() -> None:
    at = Workspace(export_delay_s=5)
    at.identify("u1", email="a@example.com", plan="pro")
    at.identify("u2")
    filters = {"attribute": {"field": "plan", "operator": "exists"}}
    made = at.app("POST", "/exports/customers", {"filters": filters}).json["export"]
    path = f"/exports/{made['id']}"
    assert (made["status"], made["type"], made["total"]) == ("pending", "customers", 1)
    assert at.app("GET", f"{path}/download").status == 404
    at.clock.at += 5
    assert at.app("GET", path).json["export"]["status"] == "done"
    url = at.app("GET", f"{path}/download").json["url"]
    assert at.app("GET", "/exports").json["exports"][0]["downloads"] == 1
    local = url.removeprefix("http://box")
    assert at.call("GET", local, key="").status == 200
    assert at.call("GET", local + "0", key="").status == 403
    at.clock.at += 15 * 60 + 1
    assert at.call("GET", local, key="").status == 403
    assert at.app("POST", "/exports/customers", {}).status == 400


def test_an_export_of_deliveries_names_what_sent_them() -> None:
    at = Workspace(export_delay_s=0)
    message(at, 1, campaign_id=5, recipient="a@example.com")
    message(at, 2, campaign_id=6)
    made = at.app("POST", "/exports/deliveries", {"campaign_id": 5}).json["export"]
    url = at.app("GET", f"/exports/{made['id']}/download").json["url"]
    path, _, query = url.removeprefix("http://box").partition("?")
    answer = at.simulator.answer(Incoming("GET", path, query, [], b"", 0))
    rows = list(csv.DictReader(answer.body.decode().splitlines()))
    assert [(row["id"], row["recipient"]) for row in rows] == [("m1", "a@example.com")]
    later = {"campaign_id": 5, "start": int(at.clock.now()) + 1}
    assert at.app("POST", "/exports/deliveries", later).json["export"]["total"] == 0
    assert at.app("POST", "/exports/deliveries", {}).status == 400


# -- sends ---------------------------------------------------------------------------------------------


def test_a_transactional_message_is_kept_and_shown() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    at.state.transactional.append({"id": 44, "name": "receipt"})
    given = {"transactional_message_id": 44, "to": "a@example.com", "identifiers": {"id": "u1"}}
    sent = at.app("POST", "/send/email", given).json
    assert sent["queued_at"] == int(at.clock.now())
    (kept,) = at.app("GET", "/customers/u1/messages").json["messages"]
    assert (kept["id"], kept["recipient"], kept["type"]) == (sent["delivery_id"], "a@example.com", "email")
    assert at.app("GET", "/transactional/44/messages").json["messages"] == [kept]
    at.app("POST", "/send/email", {**given, "transactional_message_id": "receipt"})
    assert len({each["delivery_id"] for each in at.state.sent}) == 2, "a repeated send is a second message"


PLAIN = {"from": "a", "subject": "b", "body": "c", "to": "a@example.com", "identifiers": {"id": "u1"}}


@pytest.mark.parametrize(
    ("channel", "changes", "status", "text"),
    [
        ("email", {"to": ""}, 400, "to is required"),
        ("email", {"body": ""}, 400, "transactional_message_id is required"),
        ("email", {"transactional_message_id": 9}, 400, "transactional message not found"),
        ("email", {"identifiers": {}}, 400, "identifiers must have exactly one of id, email, cio_id"),
        ("email", {"attachments": {"a.txt": "%"}}, 400, 'Attachment must be base64 encoded: "a.txt"'),
        ("email", {"attachments": {"a.exe": "YQ=="}}, 403, "Forbidden file type exe for attachment a.exe."),
        ("email", {"attachments": {"a": "YWFh" * 700_000}}, 413, "Total attachment size exceeds the limit"),
        ("push", {}, 400, "transactional_message_id is required"),
    ],
)
def test_a_send_is_refused_in_the_other_envelope(channel: str, changes: Any, status: int, text: str) -> None:
    at = Workspace()
    got = at.app("POST", f"/send/{channel}", {**PLAIN, **changes})
    assert (got.status, got.json) == (status, {"meta": {"error": text}})
    assert not at.state.sent


def test_a_text_message_needs_a_number() -> None:
    at = Workspace()
    at.state.transactional.append({"id": 1, "name": "code"})
    given = {"transactional_message_id": 1, "identifiers": {"id": "u1"}, "to": "555"}
    assert at.app("POST", "/send/sms", given).status == 400
    assert at.app("POST", "/send/sms", {**given, "to": "+15551234567"}).status == 200


def test_a_triggered_broadcast_names_who_is_missing() -> None:
    at = Workspace()
    at.state.broadcasts.append({"id": 3})
    at.identify("u1")
    got = at.app("POST", "/campaigns/3/triggers", {"ids": ["u1", "u2"]})
    assert got.status == 422
    assert got.json["errors"][0]["source"] == {"pointer": "/data/attributes/per_user_data"}
    assert at.app("GET", "/campaigns/3/triggers/1/errors").json["errors"] == ["id u2 does not exist"]
    at.clock.at += 10
    assert at.app("POST", "/campaigns/3/triggers", {"ids": ["u2"], "id_ignore_missing": True}).json == {
        "id": 2
    }
    assert [each["id"] for each in at.app("GET", "/broadcasts/3/triggers").json["triggers"]] == [1, 2]
    assert at.app("GET", "/campaigns/3/triggers/2").json["broadcast_id"] == 3
    at.clock.at += 10
    assert at.app("POST", "/campaigns/4/triggers", {}).status == 404


# -- lists of the workspace ----------------------------------------------------------------------------


@pytest.mark.spec("C106")
def test_reporting_webhooks_are_made_changed_and_deleted() -> None:
    at = Workspace()
    given = {
        "name": "hub",
        "endpoint": "https://example.com/hook",
        "events": ["email_sent", "customer_unsubscribed"],
    }
    made = at.app("POST", "/reporting_webhooks", given).json
    assert made == {
        **given,
        "id": 1,
        "type": "webhook",
        "disabled": False,
        "full_resolution": False,
        "with_content": False,
    }
    assert at.app("GET", "/reporting_webhooks").json == {"reporting_webhooks": [made]}
    changed = at.app("PUT", "/reporting_webhooks/1", {"disabled": True}).json
    assert (changed["disabled"], changed["events"]) == (True, given["events"])
    assert at.app("GET", "/reporting_webhooks/1").json == changed
    assert at.app("DELETE", "/reporting_webhooks/1").status == 200
    assert at.app("GET", "/reporting_webhooks/1").status == 404
    assert at.app("POST", "/reporting_webhooks", {**given, "events": ["email_liked"]}).status == 400
    assert at.app("POST", "/reporting_webhooks", {**given, "endpoint": ""}).status == 400


def test_senders_are_hidden_unless_asked_for() -> None:
    at = Workspace()
    at.state.sender_identities += [{"id": 1}, {"id": 2, "hidden": True}, {"id": 3}]
    assert [each["id"] for each in at.app("GET", "/sender_identities").json["sender_identities"]] == [1, 3]
    hidden = at.app("GET", "/sender_identities", hidden="true", sort="desc").json
    assert [each["id"] for each in hidden["sender_identities"]] == [2]
    after = at.app("GET", "/sender_identities", hidden="true", start=hidden["next"]).json
    assert (after["sender_identities"], after["next"]) == ([], "")
    assert at.app("GET", "/sender_identities/3").json == {"sender_identity": {"id": 3}}
    assert at.app("GET", "/sender_identities/3/used_by").json["campaigns"] == []
    assert at.app("GET", "/sender_identities/9/used_by").status == 404


def test_snippets_are_known_by_name() -> None:
    at = Workspace()
    for value in ("one", "two"):
        at.app("PUT", "/snippets", {"name": "address", "value": value})
    (kept,) = at.app("GET", "/snippets").json["snippets"]
    assert (kept["name"], kept["value"]) == ("address", "two")
    assert at.app("DELETE", "/snippets/address").status == 204
    assert at.app("DELETE", "/snippets/address").status == 404
    assert at.app("PUT", "/snippets", {"name": "a"}).status == 400


def test_collections_count_their_rows() -> None:
    at = Workspace()
    made = at.app("POST", "/collections", {"name": "events", "data": [{"a": 1}, {"b": 2}]}).json["collection"]
    assert (made["rows"], made["schema"], made["bytes"]) == (2, ["a", "b"], 17)
    path = f"/collections/{made['id']}"
    assert at.app("GET", f"{path}/content").json == [{"a": 1}, {"b": 2}]
    assert at.app("PUT", f"{path}/content", {"c": 3}).json["collection"]["schema"] == ["c"]
    assert at.app("PUT", path, {"name": "renamed"}).json["collection"]["name"] == "renamed"
    assert "data" not in at.app("GET", "/collections").json["collections"][0]
    assert at.app("DELETE", path).status == 204
    assert at.app("GET", path).status == 404
    assert at.app("POST", "/collections", {"name": "events"}).status == 400


def test_the_mail_providers_list_goes_by_offset_and_is_null_when_empty() -> None:
    at = Workspace()
    assert at.app("GET", "/esp/suppression/bounces").json == {"suppressions": None}
    for n in range(3):
        assert at.app("POST", f"/esp/suppression/bounces/u{n}%40example.com").status == 200
    found = at.app("GET", "/esp/suppression/bounces", limit=2, offset=2).json
    assert [each["email"] for each in found["suppressions"]] == ["u2@example.com"]
    assert at.app("GET", "/esp/search_suppression/u1@example.com").json["category"] == "bounces"
    assert len(at.app("GET", "/esp/domains/example.com/suppression/bounces").json["suppressions"]) == 3
    assert at.app("GET", "/esp/domains/ample.com/suppression/bounces").json == {"suppressions": None}
    assert at.app("DELETE", "/esp/suppression/bounces/u1@example.com").status == 204
    assert at.app("GET", "/esp/search_suppression/u1@example.com").json == {"suppressions": None}
    assert at.app("GET", "/esp/suppression/dislikes").status == 404


def test_the_small_lists() -> None:
    at = Workspace()
    at.identify("u1")
    at.state.topics.append({"id": 4, "identifier": "topic_4"})
    assert at.app("GET", "/subscription_topics").json["topics"][0]["identifier"] == "topic_4"
    assert at.app("GET", "/object_types").json["types"][0]["id"] == "1"
    assert at.app("GET", "/info/ip_addresses").json["ip_addresses"][0] == "35.188.196.183"
    assert at.app("GET", "/workspaces").json["workspaces"][0]["people"] == 1
    assert at.app("POST", "/data_index/events", {"events": []}).status == 204
