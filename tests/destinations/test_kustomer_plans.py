"""identify: the plan for a set of traits is remembered, a few thousand short ones at most."""

from __future__ import annotations

from towpath.destinations._kustomer_profile import _PLANS

from .kustomer_world import body_of, identify, kustomer, reports_of

DESTINATION = kustomer()


def test_the_same_traits_with_other_values_are_read_anew() -> None:
    first = {"email": "a@b.io", "plan": "gold", "userName": "ada"}
    second = {"email": "nobody", "plan": "free", "userName": ""}
    assert body_of(DESTINATION, identify(first)) == {
        "username": "ada",
        "emails": [{"type": "home", "email": "a@b.io"}],
        "externalId": "u1",
    }
    assert body_of(DESTINATION, identify(second)) == {"externalId": "u1"}
    assert "email left out" in reports_of(DESTINATION, identify(second))
    for traits in (first, second):
        assert "no Kustomer attribute for: plan (" in reports_of(DESTINATION, identify(traits))


def test_many_different_traits_do_not_pile_up() -> None:
    for number in range(5_000):
        DESTINATION.prepare(identify({f"trait {number}": 1}))
    DESTINATION.prepare(identify({"t" * 10_000: 1}))
    DESTINATION.prepare(identify({f"{number}" * 20: 1 for number in range(100)}))
    assert len(_PLANS) <= 4096
    assert max(sum(map(len, names)) for names in _PLANS) <= 1024
