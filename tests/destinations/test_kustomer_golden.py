"""The documentation's own samples, in the form that Kustomer takes."""

from __future__ import annotations

from typing import Any

import pytest

from .kustomer_world import body_of, identify, kustomer, message, reports_of

ADVANCED = kustomer()
PLAIN = kustomer(advanced_transform=False)
SOCIALS = [
    {
        "verified": True,
        "userid": "100",
        "type": "twitter",
        "username": "@twiiterHandle",
        "url": "http://twitter.com/twitterhandle",
    },
    {
        "verified": False,
        "userid": "200",
        "type": "facebook",
        "username": "facebookhandle",
        "url": "http://facebook.com/facebookhandle",
    },
]


def sample(kind: str, **fields: Any) -> Any:
    return message({"type": kind, "userId": "userId", **fields})


@pytest.mark.spec("K069", "K015", "K017")
def test_the_page_sample() -> None:
    properties = {
        "path": "/cart",
        "referrer": "test.com",
        "search": "term",
        "title": "test_item",
        "url": "http://test.in",
    }
    ids = {"kustomerSessionId": "kSession", "kustomerTrackingId": "ktracking"}
    given = sample("page", category="Cart", name="Cart-Viewed", properties={**properties, **ids})
    expected = {
        "identity": {"externalId": "userId"},
        "event": {
            "name": "Web-Page-Viewed-Cart-Viewed",
            "sessionId": "kSession",
            "trackingId": "ktracking",
            "meta": properties,
        },
    }
    assert body_of(ADVANCED, given) == expected
    assert body_of(PLAIN, given) == expected
    assert reports_of(ADVANCED, given) == reports_of(PLAIN, given) == ""


@pytest.mark.spec("K069", "K018")
def test_the_screen_sample() -> None:
    given = sample("screen", name="Sample-Screen-Name", properties={"prop_key": "prop_value"})
    expected = {
        "identity": {"externalId": "userId"},
        "event": {"name": "Screen-Viewed-Sample-Screen-Name", "meta": {"prop_key": "prop_value"}},
    }
    assert body_of(ADVANCED, given) == expected
    assert body_of(PLAIN, given) == expected


@pytest.mark.spec("K069", "K026")
def test_the_track_sample() -> None:
    properties = {"Clicked_Rush_delivery_Button": True, "total_value": 2000, "revenue": 2000}
    given = sample("track", event="Checked-Out", properties=properties)
    identity = {"externalId": "userId"}
    assert body_of(ADVANCED, given) == {
        "identity": identity,
        "event": {
            "name": "Checked-Out",
            "meta": {"Clicked_Rush_delivery_Button": "true", "total_valueNum": 2000, "revenueNum": 2000},
        },
    }
    assert body_of(PLAIN, given) == {
        "identity": identity,
        "event": {"name": "Checked-Out", "meta": properties},
    }
    assert all(name in reports_of(PLAIN, given) for name in properties)


@pytest.mark.spec(
    "K041", "K043", "K044", "K050", "K051", "K052", "K054", "K056", "K057", "K058", "K059", "K070"
)
def test_the_identify_sample_with_objects() -> None:
    """Placeholders (`phone`, `birthday`, `date-time`, `avatar-url`) are no values: left out and reported."""
    traits = {
        "email": "name@domain.com",
        "phone": "phone",
        "birthday": "birthday",
        "name": "full name",
        "address": {"street": "street", "city": "city", "state": "state", "postalCode": "zip"},
        "userName": "userName",
        "company": "company",
        "signedUpAt": "date-time",
        "lastActivityAt": "date-time",
        "lastCustomerActivityAt": "date-time",
        "lastSeenAt": "date-time",
        "avatar": "avatar-url",
        "gender": "male",
        "tags": ["tag1", "tag2"],
        "locale": "en_US",
        "website": "www.website.com",
        "socials": SOCIALS,
    }
    given = identify(traits, userId="userId")
    assert body_of(ADVANCED, given) == {
        "externalId": "userId",
        "name": "full name",
        "username": "userName",
        "company": "company",
        "gender": "m",
        "emails": [{"type": "home", "email": "name@domain.com"}],
        "socials": SOCIALS,
        "tags": ["tag1", "tag2"],
        "urls": [{"url": "https://www.website.com"}],
        "locations": [{"type": "home", "address": "street city state zip"}],
        "locale": "en_US",
    }
    reports = reports_of(ADVANCED, given)
    dates = ("signedUpAt", "lastActivityAt", "lastCustomerActivityAt", "lastSeenAt")
    for trait in ("phone", "birthday", "avatar", *dates):
        assert f"{trait} left out" in reports
    for trait in ("gender", "website"):
        assert f"{trait} is sent as" in reports


@pytest.mark.spec("K045", "K046", "K047", "K048", "K049", "K053", "K055")
def test_the_identify_sample_with_real_values_for_its_placeholders() -> None:
    moment = "2020-02-02T00:23:09.544Z"
    traits = {
        "phone": "+15005550006",
        "birthday": "1988-02-21",
        "signedUpAt": moment,
        "lastActivityAt": moment,
        "lastCustomerActivityAt": moment,
        "lastSeenAt": moment,
        "avatar": "https://example.com/a.png",
    }
    assert body_of(ADVANCED, identify(traits, userId="userId")) == {
        "externalId": "userId",
        "phones": [{"type": "home", "phone": "+15005550006"}],
        "birthdayAt": "1988-02-21T00:00:00.000Z",
        "signedUpAt": moment,
        "lastActivityAt": moment,
        "lastCustomerActivityAt": moment,
        "lastSeenAt": moment,
        "avatarUrl": "https://example.com/a.png",
    }


@pytest.mark.spec("K052", "K053", "K055", "K057", "K058", "K059")
def test_the_identify_sample_with_several_emails_and_phones() -> None:
    emails = [{"type": "home", "email": "home@domain.com"}, {"type": "work", "email": "work@domain.com"}]
    phones = [{"type": "home", "phone": "+188890987"}, {"type": "work", "phone": "+1676330984"}]
    traits = {
        "emails": emails,
        "phones": phones,
        "birthday": "21-02-1988",
        "name": "Name Surname",
        "address": "street city state zip",
        "userName": "userName",
        "company": "company",
        "locale": "en_US",
        "website": "www.website.com",
    }
    assert body_of(ADVANCED, identify(traits, userId="userId")) == {
        "externalId": "userId",
        "emails": emails,
        "phones": phones,
        "birthdayAt": "1988-02-21T00:00:00.000Z",
        "name": "Name Surname",
        "username": "userName",
        "company": "company",
        "locale": "en_US",
        "urls": [{"url": "https://www.website.com"}],
        "locations": [{"type": "home", "address": "street city state zip"}],
    }
