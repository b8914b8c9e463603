"""Where one rule ends and the next begins: the exact count, share, second or word at which it turns."""

from __future__ import annotations

from datetime import time

import pytest

from towpath.device import Address, Device
from towpath.http import Reply
from towpath.push.audience import Audience, Person, unreachable
from towpath.push.breaker import Breaker
from towpath.push.hours import Quiet
from towpath.push.settings import AudienceSettings
from towpath.push.verdict import judge

from .rig import ACCEPTED, MISMATCH, NO_APNS, WRONG
from .test_verdict import TOKEN_SENTENCE, body, fcm_error

PHONE = Device(id="d1", person="u1", address=Address("token", "t1"), platform="ios")


def heard(breaker: Breaker, **verdicts: int) -> str:
    """What a campaign's breaker says at last, once it has heard so many of each."""
    known = {"accepted": ACCEPTED, "wrong": WRONG, "mismatch": MISMATCH, "no_apns": NO_APNS}
    said = ""
    for name, number in verdicts.items():
        for _ in range(number):
            said = breaker.hear(known[name], "ios")
    return said


@pytest.mark.spec("P013")
def test_the_same_refusal_stops_at_the_fifth_and_at_a_hundredth() -> None:
    assert heard(Breaker(0.1), wrong=4) == ""
    assert "5 times" in heard(Breaker(0.1), wrong=5)
    assert "5 times" in heard(Breaker(0.1), accepted=495, wrong=5)
    assert heard(Breaker(0.1), accepted=496, wrong=5) == ""


@pytest.mark.spec("P014")
def test_addresses_of_another_project_stop_above_their_share_of_fifty() -> None:
    assert heard(Breaker(0.1), accepted=43, mismatch=6) == ""
    assert "12%" in heard(Breaker(0.1), accepted=44, mismatch=6)
    assert heard(Breaker(0.1), accepted=45, mismatch=5) == ""
    assert heard(Breaker(0.1), no_apns=40, accepted=9, mismatch=9) == "", "others say nothing of the key"


@pytest.mark.spec("P056")
def test_the_end_of_quiet_hours_is_not_quiet_and_no_hours_are_none() -> None:
    nap = Quiet(time(13), time(14))
    assert [nap.holds(time(12, 59, 59)), nap.holds(time(13)), nap.holds(time(14))] == [False, True, False]
    assert not Quiet(time(9), time(9)).holds(time(9))


@pytest.mark.spec("P053")
def test_every_success_with_a_name_is_one_and_every_server_error_passes() -> None:
    named = b'{"name": "projects/p/messages/1"}'
    assert [judge(Reply(status, {}, named), 0.0).kind for status in (199, 200, 201, 299)] == [
        "misconfigured",
        "accepted",
        "accepted",
        "accepted",
    ]
    kinds = [judge(Reply(status, {}, b""), 0.0).kind for status in (408, 425, 500, 599, 300, 499)]
    assert kinds == [*["unavailable"] * 4, "misconfigured", "misconfigured"]


@pytest.mark.spec("P012", "P013")
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (TOKEN_SENTENCE, "invalid_token"),
        (f" {TOKEN_SENTENCE.upper()}. ", "invalid_token"),
        (f"{TOKEN_SENTENCE}: it is a topic", "wrong_message"),
        (f"Maybe {TOKEN_SENTENCE}", "wrong_message"),
    ],
)
def test_a_token_goes_by_fcms_own_sentence_and_no_longer_one(said: str, kind: str) -> None:
    content = body(400, said, "INVALID_ARGUMENT", fcm_error("INVALID_ARGUMENT"))
    assert judge(Reply(400, {}, content), 0.0).kind == kind


@pytest.mark.spec("P045", "P012")
def test_why_a_device_gets_nothing_is_one_word() -> None:
    def why(consent: bool | None = None, **changes: object) -> str:
        fields = {name: getattr(PHONE, name) for name in Device.__struct_fields__}
        return unreachable(Device(**{**fields, **changes}), Person(consent=consent))

    assert [why(), why(consent=True), why(consent=False)] == ["", "", "consent"]
    assert [why(status="disabled"), why(status="removed"), why(address=None)] == [
        "disabled",
        "removed",
        "removed",
    ]
    assert why(status="disabled", address=None) == "disabled"


@pytest.mark.spec("P006", "P050")
def test_the_device_used_last_is_the_one_where_that_is_known() -> None:
    last = Audience(AudienceSettings.model_validate({"devices": "last_used"}))
    assert [last.takes(PHONE, Person(last_used=name)) for name in ("", "d1", "d2")] == [True, True, False]
    every = Audience(AudienceSettings())
    assert every.takes(PHONE, Person(last_used="d2"))
    assert not Audience(AudienceSettings.model_validate({"platforms": ["web"]})).takes(PHONE, Person())


@pytest.mark.spec("P053")
def test_what_fcm_says_is_kept_short_and_the_advice_whole() -> None:
    detail = judge(Reply(403, {}, body(403, "x" * 900, "PERMISSION_DENIED")), 0.0).detail
    assert detail.startswith("x" * 500 + " (enable the Firebase")
    assert len(judge(Reply(400, {}, body(400, "x" * 900, "INVALID_ARGUMENT")), 0.0).detail) == 500
