"""What is just as long as it may be goes as it is; and what counts against a limit, and what does not."""

from __future__ import annotations

import pytest

from towpath.notice import Content, counted_bytes, fields


@pytest.mark.spec("P051", "P055")
def test_a_name_of_64_bytes_replaces_a_push_as_it_is() -> None:
    content = Content(code="hello")
    assert content.tag("x" * 64) == "x" * 64
    assert content.tag("x" * 65) != "x" * 65
    assert fields.apns_headers({"apns-collapse-id": "x" * 64}) == ""
    assert "more than 64" in fields.apns_headers({"apns-collapse-id": "x" * 65})


@pytest.mark.spec("P051")
def test_a_push_may_live_four_weeks_and_not_a_moment_longer() -> None:
    assert fields.ttl("2419200s") == ""
    assert "four weeks" in fields.ttl("2419200.1s")


@pytest.mark.spec("P051")
def test_apple_gets_no_image_in_what_it_counts() -> None:
    image = "https://example.com/" + "a" * 100
    message = {"notification": {"title": "Hi", "image": image}}
    assert counted_bytes(message, "ios") == len("title" + "Hi" + "image" + image)
