"""D13: proof of a userId, by hash or signed token."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import jwt
import msgspec
import pytest

from .support import KEY, SENT, Hub, source

SECRET = "a-secret-shared-with-the-shop-server"
HASH = hmac.new(SECRET.encode(), b"u1", hashlib.sha256).hexdigest()


def hub_with(mode: str) -> Hub:
    return Hub({"web": source(verify=mode, verify_secret=SECRET)})


def token(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm)


def unsigned(claims: dict[str, Any]) -> str:
    parts = [msgspec.json.encode({"alg": "none"}), msgspec.json.encode(claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


async def verdict(hub: Hub, event: dict[str, Any], **beside: Any) -> str:
    await hub.batch({"type": "track", "event": "x", **event}, **beside)
    return hub.log.refused[-1].reason if hub.log.refused else ""


@pytest.mark.spec("D13")
@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize(
    "proof",
    [
        {"userHash": HASH},
        {"userHash": f" {HASH.upper()} "},
        {"context": {"userHash": HASH}},
        {"traits": {"userHash": HASH}},
        {"context": {"traits": {"userHash": HASH}}},
        {"userToken": token({"sub": "u1"})},
        {"context": {"userToken": token({"sub": "u1", "exp": SENT + 1, "nbf": SENT})}},
        {"userToken": token({"sub": "u1"}), "userHash": HASH},
    ],
)
async def test_a_proof_that_holds(mode: str, proof: dict[str, Any]) -> None:
    assert await verdict(hub_with(mode), {"userId": " u1 ", **proof}) == ""


@pytest.mark.spec("D13")
async def test_a_proof_in_the_batchs_context_counts_for_its_events() -> None:
    hub = hub_with("required")
    assert await verdict(hub, {"userId": "u1"}, context={"userHash": HASH}) == ""
    assert "not belong" in await verdict(hub, {"userId": "u2"}, context={"userHash": HASH})


@pytest.mark.spec("D13")
@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ({"userHash": "0" * 64}, "userHash does not belong"),
        ({"userHash": ""}, "userHash does not belong"),
        ({"userHash": 5}, "userHash does not belong"),
        ({"userHash": "é"}, "userHash does not belong"),
        ({"userHash": HASH, "context": {"userHash": "0"}}, "userHash does not belong"),
        ({"userToken": token({"sub": "u2"})}, "sub is not this userId"),
        ({"userToken": token({})}, "sub is not this userId"),
        ({"userToken": token({"sub": "u1", "exp": SENT})}, "expired"),
        ({"userToken": token({"sub": "u1", "nbf": SENT + 1})}, "expired"),
        ({"userToken": token({"sub": "u1"}, "another secret that is long enough")}, "not a JWT signed"),
        ({"userToken": token({"sub": "u1"}, SECRET * 3, "HS512")}, "not a JWT signed"),
        ({"userToken": unsigned({"sub": "u1"})}, "not a JWT signed"),
        ({"userToken": "a.b"}, "not a JWT signed"),
        ({"userToken": "é.é.é"}, "not a JWT signed"),
        ({"userToken": {}}, "not a JWT signed"),
    ],
)
async def test_a_proof_that_does_not_hold(mode: str, proof: dict[str, Any], said: str) -> None:
    hub = hub_with(mode)
    assert said in await verdict(hub, {"userId": "u1", **proof})
    assert (hub.log.records, hub.log.refused[0].code) == ([], "unverified")


@pytest.mark.spec("D13")
async def test_expiry_that_is_no_number_is_no_expiry_to_trust() -> None:
    signed = token({"sub": "u1", "aud": "x"}).split(".")
    body = base64.urlsafe_b64encode(b'{"sub":"u1","exp":"never"}').rstrip(b"=").decode()
    mark = hmac.digest(SECRET.encode(), f"{signed[0]}.{body}".encode(), "sha256")
    made = f"{signed[0]}.{body}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"
    assert "expired" in await verdict(hub_with("required"), {"userId": "u1", "userToken": made})


@pytest.mark.spec("D13")
async def test_a_missing_proof() -> None:
    assert await verdict(hub_with("required"), {"userId": "u1"}) == "userId needs userHash or userToken"
    assert await verdict(hub_with("optional"), {"userId": "u1"}) == ""
    assert await verdict(hub_with("off"), {"userId": "u1", "userHash": "wrong"}) == ""


@pytest.mark.spec("D13")
async def test_who_claims_no_user_needs_no_proof() -> None:
    assert await verdict(hub_with("required"), {"anonymousId": "a1"}) == ""


CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"traits": {"id": "u2"}}, "traits.id"),
    ({"traits": {"userId": " u2 "}}, "traits.userId"),
    ({"context": {"traits": {"id": "u2"}}}, "context.traits.id"),
    ({"context": {"traits": {"userId": 2}}}, "context.traits.userId"),
]


@pytest.mark.spec("D13", "K012")
@pytest.mark.parametrize(("claim", "where"), CLAIMS)
async def test_who_claims_a_user_by_a_trait_needs_the_same_proof(claim: dict[str, Any], where: str) -> None:
    event = {"type": "identify", "anonymousId": "a", **claim}
    assert await verdict(hub_with("required"), event) == f"{where} needs userHash or userToken"
    assert await verdict(hub_with("optional"), event) == ""
    assert await verdict(hub_with("off"), event) == ""
    for mode in ("optional", "required"):
        said = await verdict(hub_with(mode), {**event, "userHash": HASH})
        assert said == f"userHash does not belong to this {where}"
        said = await verdict(hub_with(mode), {**event, "userToken": token({"sub": "u1"})})
        assert said == f"userToken's sub is not this {where}"
        said = await verdict(hub_with(mode), {**event, "userId": "u1", "userHash": HASH})
        assert said == f"userHash does not belong to this {where}", "each user claimed must be the proven one"


@pytest.mark.spec("D13", "E002")
async def test_the_traits_of_a_group_are_the_groups_own() -> None:
    group = {"type": "Group", "groupId": "g", "anonymousId": "a", "traits": {"id": "g"}}
    assert await verdict(hub_with("required"), group) == ""
    claimed = {**group, "context": {"traits": {"id": "u2"}}}
    assert await verdict(hub_with("required"), claimed) == "context.traits.id needs userHash or userToken"


@pytest.mark.spec("D13", "K012")
@pytest.mark.parametrize("member", ["id", "userId"])
async def test_who_claims_a_user_in_the_batchs_context_needs_proof(member: str) -> None:
    beside = {"context": {"traits": {member: "u1"}}}
    where = f"the batch's context.traits.{member}"
    assert await verdict(hub_with("required"), {"anonymousId": "a"}, **beside) == (
        f"{where} needs userHash or userToken"
    )
    assert await verdict(hub_with("required"), {"anonymousId": "a", "userHash": HASH}, **beside) == ""


@pytest.mark.spec("D13", "K012")
async def test_a_user_claimed_by_traits_and_proven_is_taken() -> None:
    same = {"id": "u1", "userId": " u1"}
    event = {"userId": "u1", "traits": same, "context": {"traits": same}, "userHash": HASH}
    assert await verdict(hub_with("required"), event) == ""
    del event["userId"]
    assert await verdict(hub_with("required"), {**event, "anonymousId": "a"}) == ""


@pytest.mark.spec("D13", "K012")
@pytest.mark.parametrize("nobody", [{"id": ""}, {"id": {}}, {"id": None}, "u1", None])
async def test_traits_that_name_nobody_need_no_proof(nobody: object) -> None:
    event = {"anonymousId": "a", "traits": nobody, "context": {"traits": nobody}}
    assert await verdict(hub_with("required"), event) == ""


@pytest.mark.spec("D13", "E035")
async def test_the_answers() -> None:
    hub = hub_with("required")
    reply = await hub.post("/v1/identify", {"userId": "u1"})
    assert (reply.status, reply.text()) == (400, "userId needs userHash or userToken\n")
    reply = await hub.batch({"type": "identify", "userId": "u1"}, {"type": "track", "anonymousId": "a"})
    assert reply.json()["refused"] == [
        {"index": 0, "code": "unverified", "reason": "userId needs userHash or userToken"}
    ]
    assert (await hub.call("GET", f"/pixel/v1/track?writeKey={KEY}&userId=u1&userHash={HASH}")).status == 200
    assert len(hub.log.records) == 2
