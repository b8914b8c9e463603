"""Google's sign-in for servers: a service account's key file becomes short-lived tokens, through our door."""

from __future__ import annotations

import asyncio
import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from towpath.http import LARGEST_READ_BYTES, Http, Reply, Undelivered
from towpath.outcome import Paused, Rejected, Retry

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
FORM = "application/x-www-form-urlencoded"
LIFE_S = 3600
EARLY_S = 300.0
"""How long before its end a token is replaced."""
SKEW_NAMED_S = 60.0
"""From here on a difference between Google's clock and ours is named."""
UNAUTHENTICATED = 401
REFUSALS = (400, 401, 403)


class ServiceAccount(Struct, frozen=True):
    """The key file that Google's console hands out; other fields of it are not read."""

    client_email: str
    private_key: str
    type: str = ""
    project_id: str = ""
    private_key_id: str = ""
    token_uri: str = TOKEN_URL


class Token(Struct, frozen=True):
    """An access token and the moment of the monotonic clock from which it no longer holds."""

    value: str
    until: float


class Credential(ABC):
    """What proves to Google's APIs who asks."""

    @abstractmethod
    async def headers(self, http: Http) -> Mapping[str, str]:
        """Headers for one request. Raises `Undelivered` where none can be had."""

    @abstractmethod
    def forget(self) -> None:
        """Begin anew next time: Google did not accept what was shown."""


class Owner(Credential):
    """What Google's emulators take for the project's owner."""

    async def headers(self, http: Http) -> Mapping[str, str]:
        """Headers that every emulator accepts."""
        del http
        return {"authorization": "Bearer owner"}

    def forget(self) -> None:
        """It is always the same."""


class Tokens(Credential):
    """Access tokens of one service account, kept until shortly before their end; one refresh at a time.

    Source: developers.google.com/identity/protocols/oauth2/service-account, "HTTP/REST".
    """

    def __init__(self, account: ServiceAccount, scopes: Sequence[str]) -> None:
        self.account = account
        self.scopes = tuple(scopes)
        self._token: Token | None = None
        self._refreshing = asyncio.Lock()

    async def headers(self, http: Http) -> Mapping[str, str]:
        """The bearer header, from a new token where the kept one nears its end."""
        if self._left_s(http) < EARLY_S:
            async with self._refreshing:
                if self._left_s(http) < EARLY_S:
                    await self._refresh(http)
        assert self._token is not None  # noqa: S101 - `_refresh` leaves one or raises
        return {"authorization": f"Bearer {self._token.value}"}

    def forget(self) -> None:
        """Drop the kept token."""
        self._token = None

    def _left_s(self, http: Http) -> float:
        return 0.0 if self._token is None else self._token.until - http.clock.monotonic()

    async def _refresh(self, http: Http) -> None:
        """Fetch the next token. An outage is no harm while the one before still holds."""
        asked_at = http.clock.monotonic()
        try:
            reply = await self._fetch(http)
        except Undelivered as error:
            if isinstance(error.outcome, Retry) and self._left_s(http) > 0:
                return
            # Its exchange holds the signed assertion, which is as good as the token until it expires.
            raise Undelivered(error.outcome) from None
        self._token = self._read(http, reply, asked_at)

    async def _fetch(self, http: Http) -> Reply:
        form = {"grant_type": GRANT, "assertion": self._assertion(http.clock.now())}
        return await http.request(
            "POST",
            self.account.token_uri,
            body=urlencode(form).encode(),
            headers={"content-type": FORM},
            allow=REFUSALS,
        )

    def _read(self, http: Http, reply: Reply, asked_at: float) -> Token:
        answer = reply.json()
        fields = answer if isinstance(answer, dict) else {}
        if reply.status in REFUSALS:
            reason = refusal(fields, self.account.client_email, skew_s(reply, http.clock.now()))
            raise http.undelivered(Paused(reason, reply.status), reply, "POST", self.account.token_uri)
        value, life_s = fields.get("access_token"), fields.get("expires_in")
        if not isinstance(value, str) or not value.strip() or not isinstance(life_s, int | float):
            raise Undelivered(
                Retry("Google's answer to the sign-in holds no access token", code=reply.status)
            )
        return Token(value.strip(), asked_at + life_s)

    def _assertion(self, now: float) -> str:
        claims = {
            "iss": self.account.client_email,
            "scope": " ".join(self.scopes),
            "aud": TOKEN_URL,  # whatever `token_uri` leads to: a proxy, a simulator
            "iat": int(now),
            "exp": int(now) + LIFE_S,
        }
        return signed(claims, self.account)


class GoogleApi:
    """One of Google's JSON APIs at `base_url`, within a budget. Every method may raise `Undelivered`."""

    def __init__(self, http: Http, base_url: str, credential: Credential, *, bucket: str = "") -> None:
        self.http = http
        self.base_url = base_url.rstrip("/")
        self.credential = credential
        self.bucket = bucket

    async def ask(self, method: str, path: str, json: Any = None) -> Reply:
        """One request below `base_url`, of whose answer up to 8 MiB are read."""
        headers = await self.credential.headers(self.http)
        try:
            return await self.http.request(
                method,
                f"{self.base_url}{path}",
                json=json,
                headers=headers,
                bucket=self.bucket,
                limit_bytes=LARGEST_READ_BYTES,
                speaks_json=True,
            )
        except Undelivered as error:
            if getattr(error.outcome, "code", 0) == UNAUTHENTICATED:
                self.credential.forget()
            raise


def read_service_account(text: str) -> ServiceAccount:
    """Read a key file. Raises `ValueError` with a sentence that says what is wrong, without its contents."""
    try:
        account = msgspec.json.decode(text, type=ServiceAccount)
    except msgspec.ValidationError as error:
        raise ValueError(f"this is no key file of a service account: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ValueError("this is no key file of a service account: it is not JSON") from None
    if account.type != "service_account":
        raise ValueError(
            f"the key file is of type {account.type!r}, not service_account: create a key for a service "
            "account (Firebase console, project settings, service accounts)"
        )
    _key(account)
    if not account.token_uri.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise ValueError("token_uri of the service account is no https address")
    return account


def credential(key: str | None, scopes: Sequence[str], *, emulator: bool = False) -> Credential | None:
    """What proves who asks: an emulator's, or a key file's; None without either. Raises `ValueError`."""
    if emulator:
        return Owner()
    return None if key is None else Tokens(read_service_account(key), scopes)


def signed(claims: Mapping[str, Any], account: ServiceAccount) -> str:
    """Make a JWT of these claims (RS256)."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    header = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
    content = f"{_encoded(msgspec.json.encode(header))}.{_encoded(msgspec.json.encode(claims))}"
    return f"{content}.{_encoded(_key(account).sign(content.encode(), PKCS1v15(), SHA256()))}"


def refusal(answer: Mapping[str, Any], client_email: str, skew: float | None) -> str:
    """Say why Google gave no token, and what to do about it."""
    code, said = str(answer.get("error", "no reason given")), str(answer.get("error_description", ""))
    about = f"Google refuses the sign-in of {client_email} ({code}{f': {said}' if said else ''})"
    if skew is not None and abs(skew) >= SKEW_NAMED_S:
        way = "ahead of" if skew > 0 else "behind"
        return f"{about}: this machine's clock is {abs(skew):.0f} s {way} Google's; set it (NTP)"
    if code != "invalid_grant":
        return f"{about}: check the service account in the Google Cloud console"
    if "signature" in said.lower():
        return f"{about}: the key was revoked or belongs to another account; create a new one"
    if "not found" in said.lower():
        return f"{about}: the service account was deleted; create one and use its key"
    return f"{about}: the key was revoked, the account disabled, or this machine's clock is wrong"


def skew_s(reply: Reply, now: float) -> float | None:
    """Seconds by which our clock is ahead of the one that answered; None where it did not say."""
    try:
        return now - parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError, IndexError):
        return None


def unreadable(reply: Reply, what: str) -> Undelivered:
    """Make what is raised for a good answer that does not say what it should."""
    if reply.cut:
        return Undelivered(Rejected(f"{what}: the answer has more than 8 MiB", reply.status))
    return Undelivered(Retry(f"{what}: the answer cannot be read", code=reply.status))


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _key(account: ServiceAccount) -> Any:
    """Read the private key; here and not at the top, as `cryptography` takes 10 MB that few need."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(account.private_key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise ValueError(
            "private_key of the service account is not a PEM private key; line breaks in it are written \\n"
        ) from error
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("private_key of the service account is not an RSA key")
    return key
