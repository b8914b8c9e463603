"""Sample traffic: the same for the same seed, valid for the hub, and what its descriptions say."""

from __future__ import annotations

from itertools import islice

import pytest

from towpath.message import KINDS, parse_time
from towpath.sandbox.kustomer_schema import EVENT_NAME
from towpath.sandbox.scenarios import SCENARIOS, STARTED_AT, mixed

pytestmark = pytest.mark.spec("D12")

EACH = pytest.mark.parametrize("name", list(SCENARIOS))


def test_the_promised_scenarios_are_there() -> None:
    assert set(SCENARIOS) == {"signup", "purchase", "support", "poison", "hot_person", "mixed"}
    assert all(scenario.name == name for name, scenario in SCENARIOS.items())
    assert all(len(scenario.description) < 80 for scenario in SCENARIOS.values())


@EACH
def test_a_seed_gives_the_same_calls_and_another_seed_other_people(name: str) -> None:
    scenario = SCENARIOS[name]
    assert scenario.calls(seed=1) == scenario.calls(seed=1)
    one, two = ({call["messageId"] for call in scenario.calls(seed=seed)} for seed in (1, 2))
    assert not one & two
    users = [{call.get("userId") for call in scenario.calls(seed=seed)} - {None} for seed in (1, 2)]
    assert not users[0] & users[1]


@EACH
def test_calls_are_segment_calls_in_time_order(name: str) -> None:
    calls = SCENARIOS[name].calls(at=STARTED_AT)
    moments = [parse_time(call["timestamp"]) for call in calls]
    assert None not in moments
    assert moments == sorted(moments, key=str)
    assert moments[0] is not None
    assert moments[0].timestamp() == STARTED_AT
    for call in calls:
        assert call["type"] in KINDS
        assert call.get("userId") or call.get("anonymousId")
        assert call["type"] != "track" or call["event"]
    assert len({call["messageId"] for call in calls}) == len(calls)


@EACH
def test_no_two_events_are_equal_so_that_a_duplicate_is_a_duplicate(name: str) -> None:
    events = [
        (call.get("userId"), call.get("event"), call.get("name"), str(call["properties"]))
        for call in SCENARIOS[name].calls()
        if call["type"] in {"track", "page", "screen"}
    ]
    assert len(set(events)) == len(events)


def test_signup_links_the_visitor_and_carries_money() -> None:
    calls = SCENARIOS["signup"].calls()
    kinds = [call["type"] for call in calls]
    assert kinds == ["page", "page", "page", "identify", "alias", "track", "track"]
    assert all("userId" not in call for call in calls[:3])
    assert calls[4]["previousId"] == calls[0]["anonymousId"]
    assert calls[-1]["properties"]["revenue"] == 49.0


def test_a_purchase_adds_up() -> None:
    calls = SCENARIOS["purchase"].calls(seed=7)
    added = sum(call["properties"]["price"] for call in calls if call.get("event") == "Product Added")
    assert calls[-1]["properties"]["revenue"] == added


def test_poison_holds_names_no_spelling_can_save_between_good_ones() -> None:
    names = [call["event"] for call in SCENARIOS["poison"].calls() if call["type"] == "track"]
    fits = [bool(EVENT_NAME.fullmatch(name.replace(" ", "-"))) for name in names]
    assert fits == [True, False, False, True]


def test_one_person_is_hot() -> None:
    calls = SCENARIOS["hot_person"].calls()
    users = [call["userId"] for call in calls if call["type"] == "track"]
    counts = sorted(users.count(user) for user in set(users))
    assert counts == [1] * 10 + [200]


def test_mixed_identifies_each_person_first_and_does_not_end_early() -> None:
    calls = list(mixed(2000, 50, seed=3))
    assert len(calls) == 2000
    first: dict[str, str] = {}
    for call in calls:
        first.setdefault(call["userId"], call["type"])
    assert len(first) == 50
    assert set(first.values()) == {"identify"}
    assert calls == list(mixed(2000, 50, seed=3))
    assert list(islice(mixed(10**9, 50, seed=3), 5)) == calls[:5]
