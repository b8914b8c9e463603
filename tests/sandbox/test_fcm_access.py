"""Who may send through the FCM simulator: tokens, their exchange, scopes, projects, pages that are none."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from towpath.sandbox.exchange import Incoming
from towpath.sandbox.fcm import ELSEWHERE, PROJECT_NUMBER
from towpath.sandbox.firebase import PROJECT
from towpath.sandbox.google import AUDIENCE, service_account

from .fcm_calls import MESSAGING, Fcm

pytestmark = pytest.mark.spec("P060", "D12")

ACCOUNT: dict[str, str] = json.loads(service_account("https://fcm.test"))
HI = b'{"message": {"token": "ok"}}'


def assertion(fcm: Fcm, key: Any = None, algorithm: str = "RS256", kid: str = "", **changed: Any) -> str:
    now = fcm.clock.now()
    claims = {
        "iss": ACCOUNT["client_email"],
        "aud": AUDIENCE,
        "scope": MESSAGING,
        "iat": now,
        "exp": now + 3600,
    }
    kept = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    headers = {"kid": kid or ACCOUNT["private_key_id"]}
    return jwt.encode(kept, key or ACCOUNT["private_key"], algorithm, headers)


# -- the key file and the token endpoint ---------------------------------------------------------------


def test_the_key_file_is_like_googles() -> None:
    fcm = Fcm()
    account = json.loads(fcm.simulator.account("https://127.0.0.1:1"))
    assert (account["type"], account["project_id"]) == ("service_account", PROJECT)
    assert account["token_uri"] == "https://127.0.0.1:1/token"
    assert account["private_key"] == ACCOUNT["private_key"], "one key a process"
    assert account["universe_domain"] == "googleapis.com"


def test_an_assertion_is_exchanged_for_a_token_that_works() -> None:
    fcm = Fcm()
    got = fcm.exchange(assertion(fcm))
    assert (got.status, got.json["expires_in"], got.json["token_type"]) == (200, 3599, "Bearer")
    assert fcm.post(HI, token=got.json["access_token"]).status == 200


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"aud": "https://example.com/token"}, "Invalid JWT: Failed audience check."),
        ({"iss": "nobody@example.com"}, "Invalid grant: account not found"),
        ({"kid": "another"}, "Invalid JWT Signature."),
        ({"key": "secret" * 10, "algorithm": "HS256"}, "Invalid JWT Signature."),
        ({"iat": None}, "short-lived"),
        ({"exp": "soon"}, "short-lived"),
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_an_assertion_that_is_wrong(changed: dict[str, Any], said: str) -> None:
    fcm = Fcm()
    got = fcm.exchange(assertion(fcm, **changed))
    assert (got.status, got.json["error"]) == (400, "invalid_grant")
    assert said in got.json["error_description"]


def test_an_assertion_that_another_key_signed() -> None:
    fcm = Fcm()
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert fcm.exchange(assertion(fcm, key=other)).json["error_description"] == "Invalid JWT Signature."


def test_an_assertion_that_was_altered() -> None:
    fcm = Fcm()
    head, body, signature = assertion(fcm).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "x": 1}).encode()).rstrip(b"=").decode()
    got = fcm.exchange(f"{head}.{changed}.{signature}")
    assert got.json == {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "ä.ö.ü", "e30.W10.e30", "e30.e30.e30"])
def test_what_is_no_assertion(text: str) -> None:
    got = Fcm().exchange(text)
    assert (got.status, got.json["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("issued", "lasts", "taken"),
    [
        (0, 3600, True),
        (0, 3601, False),
        (290, 3600, True),
        (310, 3600, False),
        (-3890, 3600, True),
        (-3910, 3600, False),
    ],
)
def test_the_times_of_an_assertion(issued: float, lasts: float, taken: bool) -> None:
    fcm = Fcm()
    at = fcm.clock.now() + issued
    got = fcm.exchange(assertion(fcm, iat=at, exp=at + lasts))
    assert (got.status == 200) is taken
    assert taken or "Check your iat and exp values" in got.json["error_description"]


@pytest.mark.parametrize("scope", [None, "", "firebase.messaging", f"{MESSAGING} openid"])
def test_scopes_that_are_none(scope: str | None) -> None:
    fcm = Fcm()
    assert fcm.exchange(assertion(fcm, scope=scope)).json["error"] == "invalid_scope"


def test_other_grants() -> None:
    fcm = Fcm()
    assert fcm.exchange("", grant_type="").json["error"] == "invalid_request"
    assert fcm.exchange("", grant_type="password").json["error"] == "unsupported_grant_type"


def test_a_key_that_was_revoked() -> None:
    fcm = Fcm()
    fcm.simulator.tokens.key_revoked = True
    assert fcm.exchange(assertion(fcm)).json["error_description"] == "Invalid JWT Signature."
    assert fcm.simulator.summary()["tokens"] == {"issued": 0, "refused": 1}
    assert fcm.post(HI).status == 200, "tokens live on"


# -- the API -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "scheme", "begins", "reason"),
    [
        ("", "Bearer", "Request is missing required authentication credential.", "CREDENTIALS_MISSING"),
        ("nonsense", "Bearer", "Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED"),
        (None, "Basic", "Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED"),
    ],
)
def test_a_request_without_a_good_token(token: str | None, scheme: str, begins: str, reason: str) -> None:
    got = Fcm().post(HI, token=token, scheme=scheme)
    assert (got.status, got.error["status"], got.code) == (401, "UNAUTHENTICATED", "")
    assert got.error["message"].startswith(begins)
    assert got.error["details"][0]["reason"] == reason


def test_a_token_lives_an_hour_or_as_long_as_it_is_told() -> None:
    fcm = Fcm()
    fcm.clock.at += 3598
    assert fcm.post(HI).status == 200
    fcm.clock.at += 2
    assert fcm.post(HI).status == 401
    fcm.simulator.tokens.lifetime_s = 10
    assert fcm.exchange(assertion(fcm)).json["expires_in"] == 10


def test_tokens_that_were_revoked() -> None:
    fcm = Fcm()
    fcm.simulator.tokens.revoke()
    assert fcm.post(HI).status == 401
    fresh = fcm.exchange(assertion(fcm)).json["access_token"]
    assert fcm.post(HI, token=fresh).status == 200


def test_a_token_for_other_things() -> None:
    fcm = Fcm()
    token = fcm.simulator.tokens.give(PROJECT, "https://www.googleapis.com/auth/datastore")
    got = fcm.post(HI, token=token)
    assert (got.status, got.error["message"]) == (403, "Request had insufficient authentication scopes.")
    assert got.code == ""


def test_the_number_of_the_project_does_too() -> None:
    assert Fcm().post(HI, project=PROJECT_NUMBER).status == 200


def test_a_project_of_somebody_else() -> None:
    fcm = Fcm()
    got = fcm.post(HI, project=ELSEWHERE)
    assert (got.status, got.error["status"], got.code) == (403, "PERMISSION_DENIED", "")
    assert "'cloudmessaging.messages.create' denied" in got.error["message"]


def test_an_account_of_somebody_else() -> None:
    fcm = Fcm()
    theirs = json.loads(service_account("x", project=ELSEWHERE))["client_email"]
    token = fcm.exchange(assertion(fcm, iss=theirs)).json["access_token"]
    assert fcm.post(HI, token=token).status == 403
    assert fcm.post(HI, token=token, project=PROJECT_NUMBER).status == 403


def test_a_project_that_does_not_exist_is_no_gone_address() -> None:
    got = Fcm().post(HI, project="mistyped")
    said = "Requested entity was not found."
    assert got.json == {"error": {"code": 404, "message": said, "status": "NOT_FOUND"}}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/v1/projects/{PROJECT}/messages:send"),
        ("POST", f"/v1/projects/{PROJECT}/messages"),
        ("POST", "/fcm/send"),
        ("POST", "/batch"),
    ],
)
@pytest.mark.spec("P058")
def test_other_pages_are_html(method: str, path: str) -> None:
    got = Fcm().call(Incoming(method, path, "", [], b"", 0))
    assert (got.status, got.json) == (404, None)
