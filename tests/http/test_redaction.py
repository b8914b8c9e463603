"""Secrets are found in every form they take in a text."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import BaseModel, SecretStr

from towpath.redaction import header_secrets, redact, redact_url, setting_secrets

pytestmark = pytest.mark.spec("D08")


@given(some.text(min_size=4), some.text(), some.text())
def test_no_form_of_a_secret_is_left(secret: str, before: str, after: str) -> None:
    for form in (secret, quote(secret, safe=""), msgspec.json.encode(secret).decode()[1:-1]):
        left = redact(f"{before}\n{form}\n{after}", [secret])
        assert form not in left or form in "***" or form in before + after or form in "\n***\n"


def test_a_secret_within_another_leaves_nothing_of_the_longer() -> None:
    assert redact("abcdefgh abcd", ["abcd", "abcdefgh"]) == "*** ***"


def test_texts_too_short_to_be_a_secret_are_left() -> None:
    assert redact("a normal text", ["a", ""]) == "a normal text"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@host/x", "https://host/x"),
        ("https://u@p@host/x", "https://host/x"),
        ("https://host/a@b?c=d@e", "https://host/a@b?c=d@e"),
        ("https://host/?access_token=a&x=1", "https://host/?access_token=***&x=1"),
        ("https://host/?x=1&X-Amz-Signature=a#f", "https://host/?x=1&X-Amz-Signature=***#f"),
        ("https://host/?monkeys=3", "https://host/?monkeys=***"),
    ],
)
def test_urls_lose_their_credentials(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize("part", ["?", "key", "?key", "a:", "@", "&token=", "https://"])
def test_a_long_url_is_read_in_time_that_grows_with_its_length(part: str) -> None:
    assert len(redact_url("https://host/" + part * 60_000)) > 1_000


def test_headers_that_describe_are_no_secrets() -> None:
    assert list(header_secrets({"Content-Type": "application/json", "accept": "text/html"})) == []
    assert set(header_secrets({"x-api-key": "k1234"})) == {"k1234"}
    assert list(header_secrets({"x-trace": "t1234"}, credentials_only=True)) == []


class Inner(BaseModel):
    key: SecretStr


class Outer(BaseModel):
    token: SecretStr
    inner: Inner
    many: dict[str, list[SecretStr]]
    plain: str = "not one"
    missing: SecretStr | None = None


def test_secret_settings_are_found_at_any_depth() -> None:
    made = Outer.model_validate({"token": "t1", "inner": {"key": "k1"}, "many": {"a": ["m1", "m2"]}})
    assert setting_secrets(made) == {"t1", "k1", "m1", "m2"}


class Hook(BaseModel):
    url: str


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://host/x?a=1&token=t%2Fabc&key=k123#top", {"t/abc", "k123"}),
        ("https://user:pa%40ss@host/x", {"user:pa@ss", "pa@ss"}),
        ("https://host/token/x?page=12345", set()),
        ("a token=abcd in text", set()),
    ],
)
def test_credentials_in_a_url_of_the_settings_are_secrets_too(url: str, found: set[str]) -> None:
    assert setting_secrets(Hook(url=url)) == found
