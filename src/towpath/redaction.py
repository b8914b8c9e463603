"""Redaction: secrets and credentials taken out of every text that is kept or shown."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import msgspec

MASK = "***"
SHORTEST_SECRET = 4  # anything shorter would blank out ordinary text
PLAIN_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "user-agent"})
_CREDENTIAL_HEADER = re.compile(r"auth|cookie|key|secret|token|password", re.IGNORECASE)
_CREDENTIAL_PARAMETER = re.compile(
    r"key|token|secret|passw|signature|credential|auth|^(?:sig|code|pwd)$", re.IGNORECASE
)
_PARAMETER = re.compile(r"([?&;])([^=&;?#]*)=([^&;#]*)")
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:/*)[^/?#]*@")


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """Replace every secret, also where it stands percent-encoded or JSON-escaped, by `***`."""
    forms = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
    if not forms:
        return text
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.sub("|".join(map(re.escape, longest_first)), MASK, text)


def redact_url(url: str, secrets: Collection[str] = ()) -> str:
    """Show a URL without userinfo and without the values of query parameters that hold credentials."""
    return redact(_PARAMETER.sub(_masked, _USERINFO.sub(r"\g<1>", url)), secrets)


def is_credential(name: str) -> bool:
    """Whether the name of a parameter or field says that it holds a credential."""
    return _CREDENTIAL_PARAMETER.search(name) is not None


def header_secrets(headers: Mapping[str, str], *, credentials_only: bool = False) -> Iterator[str]:
    """Yield the values of headers that may not be shown: whole, without the scheme, and what Basic wraps.

    With `credentials_only`, only headers whose name says that they hold a credential.
    """
    for name, value in headers.items():
        if name.lower() in PLAIN_HEADERS or (credentials_only and not _CREDENTIAL_HEADER.search(name)):
            continue
        yield value
        scheme, _, token = value.partition(" ")
        if token:
            yield token
        if scheme.lower() == "basic":
            yield from _wrapped(token)


def setting_secrets(settings: Any) -> frozenset[str]:
    """Every `SecretStr` value in a settings model, and what its URLs hold as a credential.

    Also inside mappings, sequences and nested models.
    """
    return frozenset(_walk(settings))


def _masked(parameter: re.Match[str]) -> str:
    before, name, value = parameter.groups()
    return f"{before}{name}={MASK if is_credential(name) else value}"


def _walk(value: Any) -> Iterator[str]:
    if hasattr(value, "get_secret_value"):
        yield str(value.get_secret_value())
    elif hasattr(type(value), "model_fields"):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, str) and "://" in value:
        yield from _in_url(value)


def _in_url(url: str) -> Iterator[str]:
    """What `redact_url` masks, as the other side may repeat it: the userinfo, and parameters by name."""
    if (who := _USERINFO.match(url)) is not None:
        given = unquote(who[0].rpartition("@")[0].partition(":")[2].lstrip("/"))
        yield from (given, given.partition(":")[2])
    for _, name, value in _PARAMETER.findall(url):
        if _CREDENTIAL_PARAMETER.search(name):
            yield unquote_plus(value)


def _wrapped(token: str) -> Iterator[str]:
    try:
        pair = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield pair
    yield pair.partition(":")[2]


def _forms(secret: str) -> set[str]:
    escaped = msgspec.json.encode(secret).decode()[1:-1]
    percent_encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return {secret, escaped, escaped.replace("/", "\\/"), *percent_encoded}
