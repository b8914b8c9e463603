"""Consent (D09): one denial outweighs everything, in both shapes clients send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.mapping import ConsentRule
from towpath.message import Message

from .values import messages


def rule(*needs: str, **more: Any) -> ConsentRule:
    return ConsentRule.model_validate({"needs": needs, **more})


def segment(**preferences: Any) -> dict[str, Any]:
    return {"consent": {"categoryPreferences": preferences}}


def rudder(allowed: Any = None, denied: Any = None) -> dict[str, Any]:
    return {"consentManagement": {"allowedConsentIds": allowed, "deniedConsentIds": denied}}


def verdict(consent: ConsentRule, context: dict[str, Any]) -> bool:
    found = consent.verdict(Message(type="track", context=context))
    assert found is None or (found.reason == "consent" and found.detail)
    return found is None


@pytest.mark.spec("D09")
@pytest.mark.parametrize(
    ("context", "passes"),
    [
        (segment(marketing=True), True),
        (segment(Marketing=True), True),
        (segment(marketing=False), False),
        (segment(marketing="true"), False),
        (segment(marketing=None), False),
        (rudder(["marketing"]), True),
        (rudder([" Marketing "]), True),
        (rudder({"C1": "marketing"}), True),
        (rudder(["marketing"], ["marketing"]), False),
        (rudder([], ["Marketing"]), False),
        ({**segment(marketing=True), **rudder([], ["marketing"])}, False),
        ({**segment(marketing=False), **rudder(["marketing"])}, False),
        (segment(Marketing=True, marketing=False), False),
    ],
)
@pytest.mark.parametrize("missing", ["allow", "deny"])
def test_the_most_restrictive_answer_wins(context: dict[str, Any], passes: bool, missing: str) -> None:
    assert verdict(rule("marketing", missing=missing), context) is passes


@pytest.mark.spec("D09")
@pytest.mark.parametrize(
    "context", [{}, {"consent": 5}, {"consentManagement": "all"}, segment(other=True), rudder(5, 5)]
)
def test_what_is_not_said_counts_as_the_setting_says_and_denied_by_default(context: dict[str, Any]) -> None:
    assert not verdict(rule("marketing"), context)
    assert verdict(rule("marketing", missing="allow"), context)


@pytest.mark.spec("D09")
def test_every_category_is_needed() -> None:
    both = rule("ads", "analytics")
    assert verdict(both, segment(ads=True, analytics=True))
    assert not verdict(both, segment(ads=True))
    assert not verdict(both, {**segment(ads=True), **rudder(["analytics"], ["ads"])})


@pytest.mark.spec("D09")
@given(messages(), st.sampled_from([segment, lambda ads: rudder([], ["ads"])]))
def test_no_message_passes_that_denies(message: Message, shape: Any) -> None:
    context = {**message.context, **shape(ads=False)}
    denied = Message(type="track", context=context)
    assert rule("ads", missing="allow").verdict(denied) is not None
