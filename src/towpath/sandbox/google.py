"""Google's token endpoint for service accounts, and the key files of accounts it knows."""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import cache
from typing import Any
from urllib.parse import parse_qs

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from msgspec import Struct

from towpath.clock import Clock

from .exchange import Answer, Incoming
from .firebase import PROJECT

TOKEN_PATH = "/token"  # noqa: S105 - a path
AUDIENCE = "https://oauth2.googleapis.com/token"
"""What Google's own libraries claim as audience, whatever the key file's `token_uri` is."""
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME_S = 3599
ASSERTION_LIFETIME_S = 3600
SKEW_S = 300
"""How far the caller's clock may be off; Google does not say, and takes about this."""
SCOPE_PREFIX = "https://www.googleapis.com/auth/"

_JSON = [(b"content-type", b"application/json; charset=utf-8")]
_SHORT_LIVED = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    " Check your iat and exp values in the JWT claim."
)
_BAD_SIGNATURE = "Invalid JWT Signature."


def email(project: str) -> str:
    """Return the address of a project's service account."""
    return f"towpath@{project}.iam.gserviceaccount.com"


def service_account(url: str, *, project: str = PROJECT) -> str:
    """Return the key file (JSON) of a project's service account whose `token_uri` is on the sandbox at `url`.

    The key is made once per process; every account of it has the same.
    """
    document = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": key_id(),
        "private_key": _private_pem(),
        "client_email": email(project),
        "client_id": "100000000000000000001",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": url + TOKEN_PATH,
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "universe_domain": "googleapis.com",
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


class Grant(Struct, frozen=True):
    """An access token that was given: to which project's account, for which scopes, until when (Unix s)."""

    project: str
    scopes: frozenset[str]
    expires_at: float


class _Refused(Exception):
    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.document = {"error": error, "error_description": description}


class Tokens:
    """The token endpoint and the tokens it gave.

    Accounts of `projects` are known. Tokens live `lifetime_s`. `key_revoked` makes it refuse the key, as
    Google does after the key was deleted in its console; `revoke()` makes the tokens of now useless before
    their time. `issued` and `refused` count.
    """

    def __init__(self, clock: Clock, *projects: str, lifetime_s: float = LIFETIME_S) -> None:
        self.lifetime_s = lifetime_s
        self.key_revoked = False
        self.issued = 0
        self.refused = 0
        self.audiences = {AUDIENCE}
        self._clock = clock
        self._accounts = {email(project): project for project in projects}
        self._grants: dict[str, Grant] = {}

    def grant(self, token: str) -> Grant | None:
        """Return what a token allows; None for one that is unknown, expired or revoked."""
        found = self._grants.get(token)
        return found if found is not None and self._clock.now() < found.expires_at else None

    def revoke(self) -> None:
        """Make every token of now useless."""
        self._grants.clear()

    def answer(self, request: Incoming) -> Answer:
        """Answer one request for a token."""
        try:
            document = self._exchanged(request)
        except _Refused as refusal:
            self.refused += 1
            return Answer(400, msgspec.json.encode(refusal.document), _JSON)
        self.issued += 1
        return Answer(200, msgspec.json.encode(document), _JSON)

    def give(self, project: str, *scopes: str) -> str:
        """Give a token without asking for anything."""
        token = f"ya29.sandbox-{self.issued}-{self._clock.token(12).hex()}"
        until = self._clock.now() + self.lifetime_s
        self._grants[token] = Grant(project, frozenset(scopes), until)
        return token

    def _exchanged(self, request: Incoming) -> dict[str, Any]:
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        kind = form.get("grant_type", "")
        if not kind:
            raise _Refused("invalid_request", "Required parameter is missing: grant_type")
        if kind != GRANT_TYPE:
            raise _Refused("unsupported_grant_type", f"Invalid grant_type: {kind}")
        claims = self._verified(form.get("assertion", ""))
        self._check_times(claims)
        scopes = str(claims.get("scope", "")).split()
        if not scopes or not all(scope.startswith(SCOPE_PREFIX) for scope in scopes):
            raise _Refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = self.give(self._accounts[str(claims["iss"])], *scopes)
        return {"access_token": token, "expires_in": int(self.lifetime_s), "token_type": "Bearer"}

    def _verified(self, assertion: str) -> dict[str, Any]:
        """Return the claims of a signed assertion of a known account."""
        try:
            head, body, signature = assertion.split(".")
            header, claims = _document(head), _document(body)
            signed = _decoded(signature)
        except (ValueError, msgspec.MsgspecError):
            raise _Refused("invalid_grant", "Invalid JWT: malformed assertion.") from None
        if str(claims.get("iss")) not in self._accounts:
            raise _Refused("invalid_grant", "Invalid grant: account not found")
        known = header.get("kid") in (None, key_id()) and header.get("alg") == "RS256"
        if self.key_revoked or not known or not _verifies(signed, f"{head}.{body}".encode()):
            raise _Refused("invalid_grant", _BAD_SIGNATURE)
        if str(claims.get("aud")) not in self.audiences:
            raise _Refused("invalid_grant", "Invalid JWT: Failed audience check.")
        return claims

    def _check_times(self, claims: dict[str, Any]) -> None:
        now, issued, until = self._clock.now(), claims.get("iat"), claims.get("exp")
        if not isinstance(issued, int | float) or not isinstance(until, int | float):
            raise _Refused("invalid_grant", _SHORT_LIVED)
        if until - issued > ASSERTION_LIFETIME_S or issued > now + SKEW_S or until < now - SKEW_S:
            raise _Refused("invalid_grant", _SHORT_LIVED)


def key_id() -> str:
    """Return the id of the process's key, as it stands in key files."""
    return hashlib.sha1(_private_pem().encode(), usedforsecurity=False).hexdigest()


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def _private_pem() -> str:
    return (
        _key()
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


def _verifies(signature: bytes, signed: bytes) -> bool:
    try:
        _key().public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _document(part: str) -> dict[str, Any]:
    """Decode a part of an assertion. Raises `ValueError` or `MsgspecError` for what is none."""
    return msgspec.json.decode(_decoded(part), type=dict[str, Any])


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(part) from error
