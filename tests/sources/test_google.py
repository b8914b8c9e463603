"""Google's sign-in: the assertion, the kept token, one refresh at a time, and what a refusal says."""

from __future__ import annotations

import asyncio
import base64
import json
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from towpath.http import Http, Reply, Request, TransportError, Undelivered
from towpath.outcome import Paused, Rejected, Retry
from towpath.testing.fakes import Answer, FakeClock, FakeTransport
from towpath.vendors.google import (
    EARLY_S,
    GoogleApi,
    Owner,
    ServiceAccount,
    Tokens,
    read_service_account,
    unreadable,
)

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
MAIL = "towpath@demo-towpath.iam.gserviceaccount.com"
FILE: dict[str, Any] = {
    "type": "service_account",
    "project_id": "demo-towpath",
    "private_key_id": "k1",
    "private_key": PEM,
    "client_email": MAIL,
    "token_uri": "https://token.test/token",
    "universe_domain": "googleapis.com",
}


def account(**fields: Any) -> ServiceAccount:
    return read_service_account(json.dumps({**FILE, **fields}))


def answer(status: int, body: Any, **headers: str) -> Reply:
    return Reply(status, headers, json.dumps(body).encode())


def granted(value: str = "t1", life_s: int = 3600) -> Reply:
    return answer(200, {"access_token": value, "expires_in": life_s, "token_type": "Bearer"})


class World:
    """A door, its clock, and the tokens of one account behind it."""

    def __init__(self, tokens: Answer) -> None:
        self.clock = FakeClock()
        self.transport = FakeTransport(("POST", "https://token.test/token", tokens))
        self.http = Http(self.transport, self.clock)
        self.tokens = Tokens(account(), ("scope/a", "scope/b"))

    async def shown(self) -> str:
        return (await self.tokens.headers(self.http))["authorization"]

    @property
    def asked(self) -> int:
        return sum(request.url == "https://token.test/token" for request in self.transport.requests)


def claims_of(request: Request) -> dict[str, Any]:
    """Verify the assertion's signature and return header and claims as one."""
    form = parse_qs(request.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    head, claims, signature = form["assertion"][0].split(".")
    KEY.public_key().verify(raw(signature), f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    return {**json.loads(raw(head)), **json.loads(raw(claims))}


def raw(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_the_assertion_is_what_google_wants() -> None:
    world = World(granted())
    assert await world.shown() == "Bearer t1"
    now = int(world.clock.now())
    assert claims_of(world.transport.requests[0]) == {
        "alg": "RS256",
        "typ": "JWT",
        "kid": "k1",
        "iss": MAIL,
        "aud": "https://oauth2.googleapis.com/token",
        "scope": "scope/a scope/b",
        "iat": now,
        "exp": now + 3600,
    }


async def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    world = World(granted())
    await world.shown()
    await world.clock.advance(3600 - EARLY_S)
    await world.shown()
    assert world.asked == 1
    world.transport.on("POST", "*/token", granted("t2"))
    await world.clock.advance(1)
    assert await world.shown() == "Bearer t2"
    assert world.asked == 2


async def test_many_askers_share_one_refresh() -> None:
    opened = asyncio.Event()

    async def slowly(request: Request) -> Reply:
        del request
        await opened.wait()
        return granted()

    world = World(slowly)
    asking = [asyncio.create_task(world.shown()) for _ in range(20)]
    await asyncio.sleep(0)
    opened.set()
    assert set(await asyncio.gather(*asking)) == {"Bearer t1"}
    assert world.asked == 1


async def test_a_failed_refresh_lets_the_next_asker_try() -> None:
    world = World(TransportError("refused", sent=False))
    with pytest.raises(Undelivered):
        await world.shown()
    world.transport.on("POST", "*/token", granted())
    assert await world.shown() == "Bearer t1"


async def test_an_outage_of_the_sign_in_is_no_harm_while_a_token_holds() -> None:
    world = World(granted())
    await world.shown()
    world.transport.on("POST", "*/token", Reply(503))
    await world.clock.advance(3600 - 10)
    assert await world.shown() == "Bearer t1"
    await world.clock.advance(10)
    with pytest.raises(Undelivered) as refused:
        await world.shown()
    assert isinstance(refused.value.outcome, Retry)


async def test_the_assertion_is_in_no_record_of_a_failure() -> None:
    world = World(Reply(503, {}, b"down"))
    with pytest.raises(Undelivered) as failed:
        await world.shown()
    assert failed.value.exchange is None
    assert failed.value.__cause__ is None
    world.transport.on("POST", "*/token", answer(400, {"error": "invalid_grant"}))
    with pytest.raises(Undelivered) as refused:
        await world.shown()
    assert refused.value.exchange is not None
    assert refused.value.exchange.body == ""


@pytest.mark.spec("F008")
@pytest.mark.parametrize(
    ("error", "said", "skew", "reason"),
    [
        ("invalid_grant", "Invalid JWT: Token must be a short-lived token", 7200, "7200 s ahead of"),
        ("invalid_grant", "Invalid JWT: check iat and exp", -600, "600 s behind"),
        ("invalid_grant", "Invalid JWT Signature.", 2, "the key was revoked"),
        ("invalid_grant", "Invalid grant: account not found", 0, "the service account was deleted"),
        ("invalid_grant", "", 0, "key was revoked, the account disabled, or this machine's clock"),
        ("unauthorized_client", "Client is unauthorized", 0, "check the service account"),
    ],
)
async def test_a_refused_sign_in_says_why(error: str, said: str, skew: int, reason: str) -> None:
    world = World(granted())
    date = formatdate(world.clock.now() - skew, usegmt=True)
    body = {"error": error, "error_description": said}
    world.transport.on("POST", "*/token", answer(400, body, date=date))
    with pytest.raises(Undelivered) as refused:
        await world.shown()
    assert isinstance(refused.value.outcome, Paused)
    assert reason in refused.value.outcome.reason
    assert MAIL in refused.value.outcome.reason
    assert error in refused.value.outcome.reason


@pytest.mark.parametrize("body", [[], {}, {"access_token": "", "expires_in": 1}, {"access_token": "t"}, "t"])
async def test_a_strange_answer_is_tried_again(body: Any) -> None:
    world = World(answer(200, body))
    with pytest.raises(Undelivered) as failed:
        await world.shown()
    assert isinstance(failed.value.outcome, Retry)


async def test_an_api_forgets_a_token_that_is_not_taken() -> None:
    world = World(granted())
    api = GoogleApi(world.http, "https://api.test/", world.tokens)
    world.transport.on("GET", "https://api.test/v1/thing", Reply(401))
    with pytest.raises(Undelivered):
        await api.ask("GET", "/v1/thing")
    world.transport.on("POST", "*/token", granted("t2"))
    world.transport.on("GET", "https://api.test/v1/thing", Reply(200))
    await api.ask("GET", "/v1/thing")
    assert world.transport.requests[-1].headers["authorization"] == "Bearer t2"
    world.transport.on("GET", "https://api.test/v1/thing", Reply(403))
    with pytest.raises(Undelivered):
        await api.ask("GET", "/v1/thing")
    assert world.asked == 2


async def test_an_emulator_takes_the_owner() -> None:
    world = World(granted())
    owner = Owner()
    owner.forget()
    assert await owner.headers(world.http) == {"authorization": "Bearer owner"}
    assert world.asked == 0


@pytest.mark.spec("D08")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "not JSON"),
        ("[]", "no key file"),
        (json.dumps({"type": "service_account"}), "client_email"),
        (json.dumps({**FILE, "type": "authorized_user"}), "'authorized_user', not service_account"),
        (json.dumps({**FILE, "private_key": "secret text"}), "not a PEM private key"),
    ],
)
def test_a_wrong_key_file_is_named_without_its_contents(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="key") as wrong:
        read_service_account(text)
    assert said in str(wrong.value)
    assert "secret text" not in str(wrong.value)


def test_a_key_of_another_kind_is_named() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ValueError, match="not an RSA key"):
        account(private_key=pem)


def test_an_answer_that_cannot_be_read_is_tried_again_and_one_too_long_is_not() -> None:
    assert isinstance(unreadable(Reply(200), "users").outcome, Retry)
    assert isinstance(unreadable(Reply(200, cut=True), "users").outcome, Rejected)
