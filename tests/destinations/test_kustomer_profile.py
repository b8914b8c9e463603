"""identify: which trait becomes which attribute, and what is left out and reported."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.outcome import Rejected

from .kustomer_world import body_of, identify, kustomer, message, prepared, reports_of

DESTINATION = kustomer()
ISO = "2020-02-02T00:23:09.544Z"


def attributes(traits: Any = None, **fields: Any) -> dict[str, Any]:
    """The customer without its externalId."""
    body = dict(body_of(DESTINATION, identify(traits, **fields)))
    del body["externalId"]
    return body


def reports(traits: Any = None, **fields: Any) -> str:
    return reports_of(DESTINATION, identify(traits, **fields))


def assert_left_out(traits: dict[str, Any], why: str = "", **kept: Any) -> None:
    """The one trait is missing, named in the reports, and everything else is still there."""
    assert attributes({**traits, "userName": "ada"}) == {"username": "ada", **kept}
    found = reports({**traits, "userName": "ada"})
    assert f"{next(iter(traits))}" in found
    assert "left out" in found
    assert why in found


@pytest.mark.spec("K041")
@pytest.mark.parametrize(
    ("traits", "name"),
    [
        ({"name": "Ada L", "firstName": "X", "lastName": "Y"}, "Ada L"),
        ({"firstName": "Ada", "lastName": "Lovelace"}, "Ada Lovelace"),
        ({"firstname": "Ada", "lastname": "Lovelace"}, "Ada Lovelace"),
        ({"first_name": "Ada", "last_name": "Lovelace"}, "Ada Lovelace"),
        ({"firstName": "Ada"}, None),
        ({"lastName": "Lovelace"}, None),
        ({"name": "", "firstName": "Ada", "lastName": "Lovelace"}, "Ada Lovelace"),
        ({"name": 7}, "7"),
        ({"name": "x" * 256}, "x" * 256),
        ({"name": "x" * 257}, None),
        ({"firstName": "x" * 200, "lastName": "y" * 200}, None),
    ],
)
def test_name(traits: dict[str, Any], name: str | None) -> None:
    assert attributes(traits).get("name") == name


@pytest.mark.spec("K042", "K009", "K070")
def test_external_id() -> None:
    assert body_of(DESTINATION, identify(anonymousId="a"))["externalId"] == "u1"
    assert body_of(DESTINATION, identify(userId=None, anonymousId="a"))["externalId"] == "a"
    assert body_of(DESTINATION, identify({"id": "t"}, userId=None))["externalId"] == "t"
    for given in (message({"type": "identify", "traits": {"email": "a@b.io"}}), identify(userId="x" * 257)):
        assert isinstance(DESTINATION.prepare(given), Rejected)


@pytest.mark.spec("K043", "K049", "K050", "K059", "K068")
@pytest.mark.parametrize(
    ("trait", "field", "value"),
    [
        ("userName", "username", "ada"),
        ("avatar", "avatarUrl", "https://example.com/a.png"),
        ("gender", "gender", "f"),
        ("timeZone", "timeZone", "Europe/Paris"),
        ("defaultLanguage", "defaultLang", "en_us"),
        ("rev", "rev", 3),
        ("sentiment", "sentiment", {"polarity": -1, "confidence": 0.5}),
        ("customObject", "custom", {"planStr": "gold"}),
        ("whatsapps", "whatsapps", [{"phone": "+15005550006", "type": "mobile"}]),
        ("facebookIds", "facebookIds", [{"pageId": "1", "userId": "2", "name": "n"}]),
        ("instagramIds", "instagramIds", [{"pageId": "1", "threadId": "2", "username": "n"}]),
    ],
)
def test_one_trait_one_attribute(trait: str, field: str, value: Any) -> None:
    assert attributes({trait: value}) == {field: value}
    assert attributes(context={"traits": {trait: value}}) == {field: value}
    assert reports({trait: value}) == ""


@pytest.mark.spec("K041", "K059")
def test_traits_come_before_context_traits_field_by_field() -> None:
    context = {"traits": {"userName": "context", "timeZone": "UTC"}}
    assert attributes({"userName": "own"}, context=context) == {"username": "own", "timeZone": "UTC"}
    assert attributes({"userName": None}, context=context)["username"] == "context"


@pytest.mark.spec("K044")
@pytest.mark.parametrize("company", ["Acme", {"name": "Acme", "id": 1}])
def test_company(company: Any) -> None:
    assert attributes({"company": company}) == {"company": "Acme"}


@pytest.mark.spec("K044")
@pytest.mark.parametrize("company", [{"id": 1}, {"name": ""}, {"name": {}}, ["Acme"]])
def test_a_company_without_a_name_is_left_out(company: Any) -> None:
    assert_left_out({"company": company})


@pytest.mark.spec("K045", "K046", "K047", "K048", "K059", "K068")
@pytest.mark.parametrize(
    ("trait", "field"),
    [
        ("createdAt", "signedUpAt"),
        ("signedUpAt", "signedUpAt"),
        ("lastActivityAt", "lastActivityAt"),
        ("lastCustomerActivityAt", "lastCustomerActivityAt"),
        ("lastSeenAt", "lastSeenAt"),
        ("importedAt", "importedAt"),
        ("birthday", "birthdayAt"),
        ("dob", "birthdayAt"),
    ],
)
def test_date_times(trait: str, field: str) -> None:
    for verbatim in (ISO, "2020-02-02T00:23:09+01:00", "2020-02-02t00:23:09z"):
        assert attributes({trait: verbatim}) == {field: verbatim}
    assert attributes({trait: "2020-02-02"}) == {field: "2020-02-02T00:00:00.000Z"}
    assert attributes({trait: "2020-02-02T00:23"}) == {field: "2020-02-02T00:23:00Z"}
    assert attributes({trait: "2020-02-02T00:23:09.5"}) == {field: "2020-02-02T00:23:09.5Z"}
    assert f"{trait} is sent as" in reports({trait: "2020-02-02"})
    unreadable: tuple[Any, ...] = ("date-time", "2020-13-01", "2020", 1580601789, True, {}, [ISO])
    for wrong in unreadable:
        assert field not in attributes({trait: wrong})


@pytest.mark.spec("K045", "K055")
def test_which_date_wins() -> None:
    assert attributes({"createdAt": ISO, "signedUpAt": "2021-01-01T00:00:00Z"}) == {"signedUpAt": ISO}
    assert attributes({"createdAt": "soon", "signedUpAt": ISO}) == {"signedUpAt": ISO}
    assert attributes({"birthday": ISO, "dob": "1988-02-21T00:00:00Z"}) == {
        "birthdayAt": "1988-02-21T00:00:00Z"
    }
    assert attributes({"birthday": ISO}, context={"traits": {"dob": "1988-02-21"}}) == {
        "birthdayAt": "1988-02-21T00:00:00.000Z"
    }


@pytest.mark.spec("K055")
@pytest.mark.parametrize(
    "value",
    [
        *("21-02-1988", "21/02/1988", "21.2.1988", "02-21-1988", "2/21/1988", "1988/02/21", "1988.2.21"),
        *("21 Feb 1988", "21 February 1988", "Feb 21, 1988", "February 21st, 1988", "19880221"),
        *("1988-02-21 00:00:00", " 21-02-1988 "),
    ],
)
def test_a_birthday_that_reads_one_way_becomes_iso(value: str) -> None:
    assert attributes({"birthday": value}) == {"birthdayAt": "1988-02-21T00:00:00.000Z"}
    assert "birthday is sent as" in reports({"birthday": value})


@pytest.mark.spec("K055")
def test_same_day_and_month_reads_one_way() -> None:
    assert attributes({"birthday": "05-05-1988"}) == {"birthdayAt": "1988-05-05T00:00:00.000Z"}


@pytest.mark.spec("K055")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("01-02-1988", "day-month or month-day"),
        *[
            (value, "")
            for value in ("birthday", "21-02-88", "31-02-1988", "99/99/1988", "1988", "Feb 1988", 5)
        ],
    ],
)
def test_another_birthday_is_left_out(value: Any, why: str) -> None:
    assert_left_out({"birthday": value}, why)


@pytest.mark.spec("K049", "K056", "K070")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("www.website.com", "https://www.website.com"),
        ("website.com/a?b=c#d", "https://website.com/a?b=c#d"),
        ("//cdn.example.com/a.png", "https://cdn.example.com/a.png"),
        ("http://test.in", "http://test.in"),
        ("HTTPS://Example.com:8443/x", "https://Example.com:8443/x"),
        ("https://example.com/a b/ü", "https://example.com/a%20b/%C3%BC"),
        ("a.example/x?u=http://b.example", "https://a.example/x?u=http://b.example"),
    ],
)
def test_addresses_on_the_web(given: str, sent: str) -> None:
    assert attributes({"avatar": given}) == {"avatarUrl": sent}
    assert attributes({"website": given}) == {"urls": [{"url": sent}]}
    assert ("website is sent as" in reports({"website": given})) is (given != sent)


@pytest.mark.spec("K049", "K056", "K070")
@pytest.mark.parametrize(
    "given",
    [
        "avatar-url",
        "javascript:alert(1)",
        "ftp://a.example/x",
        "mailto:a@b.io",
        "/a.png",
        "http://",
        " ",
        5,
        {},
    ],
)
def test_what_is_no_address_is_left_out(given: Any) -> None:
    assert attributes({"avatar": given, "website": given, "userName": "ada"}) == {"username": "ada"}
    found = reports({"avatar": given, "website": given})
    assert given == {} or ("avatar left out" in found and "website left out" in found)


@pytest.mark.spec("K056")
def test_website_may_stand_in_properties() -> None:
    assert attributes(properties={"website": "a.example"}) == {"urls": [{"url": "https://a.example"}]}


@pytest.mark.spec("K050", "K070")
@pytest.mark.parametrize(
    ("given", "sent"),
    [("m", "m"), ("f", "f"), ("M", "m"), ("male", "m"), ("Female", "f"), ("MALE", "m"), (" f ", "f")],
)
def test_gender(given: str, sent: str) -> None:
    assert attributes({"gender": given}) == {"gender": sent}


@pytest.mark.spec("K050", "K070")
@pytest.mark.parametrize("given", ["diverse", "x", 1, ["m"]])
def test_another_gender_is_left_out(given: Any) -> None:
    assert_left_out({"gender": given})


@pytest.mark.spec("K051", "K070")
def test_tags() -> None:
    tags = ["tag1", "two words", "Größe", "tag1", " leading", "semi;colon", "x" * 65, "", 5, None, {}]
    assert attributes({"tags": tags}) == {"tags": ["tag1", "two words", "Größe", "5"]}
    found = reports({"tags": tags})
    assert [f"tags[{index}] left out" in found for index in range(11)] == [
        *[False] * 3,
        *[True] * 5,
        False,
        True,
        True,
    ]
    assert attributes({"tags": [f"t{number}" for number in range(25)]})["tags"] == [
        f"t{n}" for n in range(20)
    ]
    assert "tags[24] left out: Kustomer takes 20" in reports({"tags": [f"t{number}" for number in range(25)]})


@pytest.mark.spec("K051", "K054", "K059", "K068")
@pytest.mark.parametrize("trait", ["tags", "socials", "whatsapps", "facebookIds", "instagramIds"])
def test_array_fields_take_arrays(trait: str) -> None:
    assert_left_out({trait: "text"}, "not an array")
    assert attributes({trait: []}) == {}


CONTACTS = [
    ("emails", "email", "a@b.io", "c@d.io", "nobody"),
    ("phones", "phone", "+15005550006", "500 555-0007", "phone"),
]


@pytest.mark.spec("K052", "K053", "K068")
@pytest.mark.parametrize(("field", "key", "one", "two", "wrong"), CONTACTS)
def test_emails_and_phones(field: str, key: str, one: str, two: str, wrong: str) -> None:
    home = {"type": "home", key: one}
    verbatim = [{"type": "work", key: one, "verified": True}, {key: two}]
    assert attributes({field: verbatim, key: "ignored"}) == {field: verbatim}
    assert attributes({field: one}) == {field: [home]}
    assert attributes({field: [one, {"type": "work", key: two}]}) == {
        field: [home, {"type": "work", key: two}]
    }
    assert attributes({key: one}) == {field: [home]}
    assert attributes({field: [], key: one}) == {field: [home]}
    assert attributes({field: [{key: wrong}], key: one}) == {field: [home]}
    assert attributes(context={"traits": {key: one}}) == {field: [home]}
    assert attributes(properties={key: one}) == {field: [home]}
    assert attributes({key: wrong}, properties={key: one}) == {field: [home]}


@pytest.mark.spec("K052", "K053", "K070")
@pytest.mark.parametrize(("field", "key", "one", "two", "wrong"), CONTACTS)
def test_items_have_known_keys_only(field: str, key: str, one: str, two: str, wrong: str) -> None:
    items = [
        {key: one, "type": "Holiday", "label": "x", "verified": "yes"},
        {key: one, "type": "home"},
        {key: wrong},
        {"type": "home"},
        {key: two, "type": "Work"},
        None,
    ]
    assert attributes({field: items}) == {field: [{key: one, "type": "other"}, {key: two, "type": "work"}]}
    found = reports({field: items})
    for expected in (
        *(f"{field}[0].type changed", f"{field}[0].label left out", f"{field}[0].verified left out"),
        *(
            f"{field}[1] left out: it is there already",
            f"{field}[2] left out",
            f"{field}[3] left out: it has no",
        ),
        *(f"{field}[4].type changed", f"{field}[5] left out"),
    ):
        assert expected in found


@pytest.mark.spec("K070")
def test_lists_have_ten_items_at_most() -> None:
    emails = [{"email": f"a{number}@b.io"} for number in range(12)]
    assert attributes({"emails": emails})["emails"] == emails[:10]
    assert "emails[11] left out: Kustomer takes 10" in reports({"emails": emails})


@pytest.mark.spec("K053", "K070")
@pytest.mark.parametrize(
    "phone", ["phone", "+", "()", "12", "call me at 5", "5; drop", "5550006 x 12", "5" * 31, {}, True]
)
def test_what_is_no_phone_is_left_out(phone: Any) -> None:
    assert attributes({"phone": phone, "userName": "ada"}) == {"username": "ada"}
    assert phone == {} or "phone left out" in reports({"phone": phone})


@pytest.mark.spec("K053")
@pytest.mark.parametrize("phone", ["0123 456", "(500) 555-0006", "+49.30.1234", "112", 5005550006])
def test_phones_are_sent_as_given_without_a_country_code(phone: Any) -> None:
    assert attributes({"phone": phone})["phones"] == [{"type": "home", "phone": str(phone)}]


@pytest.mark.spec("K052", "K070")
@pytest.mark.parametrize("email", ["nobody", "@x", "a@", "a b@c.io", "a@b@c.io", 5, ["a@b.io"]])
def test_what_is_no_email_is_left_out(email: Any) -> None:
    assert_left_out({"email": email}, "email left out")


@pytest.mark.spec("K054", "K070")
def test_socials() -> None:
    good = {
        "verified": True,
        "userid": "100",
        "type": "twitter",
        "username": "@ada",
        "url": "http://x.example/ada",
    }
    socials = [
        good,
        {"type": "Facebook", "username": "ada", "userid": 7, "url": "nowhere", "extra": 1},
        {"type": "mastodon", "username": "ada"},
        {"type": "twitter"},
        {"type": "twitter", "username": "x" * 257},
        "twitter",
    ]
    assert attributes({"socials": socials}) == {
        "socials": [good, {"type": "facebook", "username": "ada", "userid": "7"}]
    }
    found = reports({"socials": socials})
    for index in (2, 3, 4, 5):
        assert f"socials[{index}] left out" in found
    assert "socials[1].url left out" in found


@pytest.mark.spec("K059", "K070")
def test_messenger_ids_need_their_keys() -> None:
    assert attributes({"facebookIds": [{"pageId": "1"}], "instagramIds": [{"pageId": "1"}]}) == {}
    assert attributes({"whatsapps": [{"phone": "+15005550006", "type": "home"}, {"phone": "500 555"}]}) == {
        "whatsapps": [{"phone": "+15005550006"}]
    }


@pytest.mark.spec("K057")
@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("1 Main St", "1 Main St"),
        ({"street": "1 Main St", "city": "S", "state": "IL", "postalCode": "62701"}, "1 Main St S IL 62701"),
        ({"city": " S ", "postalCode": 62701, "country": "US"}, "S 62701"),
        ({"street": "", "state": None, "city": "S"}, "S"),
        ("x" * 256, "x" * 256),
    ],
)
def test_address(address: Any, line: str) -> None:
    assert attributes({"address": address}) == {"locations": [{"type": "home", "address": line}]}


@pytest.mark.spec("K057", "K070")
@pytest.mark.parametrize("address", ["x" * 257, {"country": "US"}, {"street": {}}, ["1 Main St"]])
def test_an_address_that_does_not_fit_is_left_out(address: Any) -> None:
    assert_left_out({"address": address})


@pytest.mark.spec("K058", "K070")
def test_locale() -> None:
    assert attributes({"locale": "de_DE"}, context={"locale": "en_US"}) == {"locale": "en_US"}
    assert attributes({"locale": "de_DE"}) == {"locale": "de_DE"}
    assert attributes({"locale": "de_DE"}, context={"locale": "x" * 17}) == {"locale": "de_DE"}
    assert_left_out({"locale": "x" * 17}, "17 characters, Kustomer takes 16")


@pytest.mark.spec("K059", "K070")
@pytest.mark.parametrize(
    ("trait", "value"),
    [
        *[("sentiment", value) for value in (1, {"polarity": 1}, {"polarity": 2, "confidence": 0})],
        ("sentiment", {"polarity": 1, "confidence": 1.5}),
        ("sentiment", {"polarity": True, "confidence": 0}),
        ("sentiment", {"polarity": 1, "confidence": 0, "more": 1}),
        ("timeZone", "x" * 65),
        ("defaultLanguage", "x" * 101),
        ("rev", "3"),
        ("rev", True),
        ("userName", {"a": 1}),
    ],
)
def test_values_that_do_not_fit_are_left_out(trait: str, value: Any) -> None:
    assert attributes({trait: value, "gender": "f"}) == {"gender": "f"}
    assert f"{trait} left out" in reports({trait: value})


@pytest.mark.spec("K068")
@pytest.mark.parametrize(("value", "sent"), [(5, "5"), (1.5, "1.5"), (True, "true"), ("x", "x")])
def test_string_fields_take_scalars_as_strings(value: Any, sent: str) -> None:
    assert attributes({"userName": value}) == {"username": sent}


@pytest.mark.spec("K059", "K070")
def test_custom_attributes_need_the_suffix_of_their_type() -> None:
    good = {
        "planStr": "gold",
        "bioTxt": "x" * 1024,
        "seatsNum": 3,
        "renewsAt": ISO,
        "optInBool": False,
        "homeUrl": "https://a.example",
        "ownerId": "5f75c63c",
        "goneStr": None,
    }
    bad = {
        "plan": "gold",
        "Str": "x",
        "longStr": "x" * 1025,
        "textNum": "3",
        "flagNum": True,
        "soonAt": "soon",
        "yesBool": "yes",
        "badUrl": "nowhere",
        "listStr": [1],
    }
    assert attributes({"customObject": {**good, **bad, "dayAt": "2020-02-02"}}) == {
        "custom": {**good, "dayAt": "2020-02-02T00:00:00.000Z"}
    }
    found = reports({"customObject": {**good, **bad}})
    assert all(f"customObject.{key} left out" in found for key in bad)
    assert not any(f"customObject.{key} left out" in found for key in good)


@pytest.mark.spec("K059", "K070")
def test_custom_has_a_hundred_keys_at_most() -> None:
    many = {f"a{number}Num": number for number in range(102)}
    assert len(attributes({"customObject": many})["custom"]) == 100
    assert "customObject.a101Num left out: Kustomer takes 100" in reports({"customObject": many})
    assert_left_out({"customObject": "text"}, "not an object")


@pytest.mark.spec("K059")
def test_traits_without_an_attribute_are_named() -> None:
    assert attributes({"plan": "pro", "userName": "ada"}, context={"traits": {"age": 3}}) == {
        "username": "ada"
    }
    assert "no Kustomer attribute for: plan, age" in reports({"plan": "pro"}, context={"traits": {"age": 3}})


@pytest.mark.spec("K070")
def test_an_identify_over_100_kb_is_rejected() -> None:
    custom = {f"a{number}Str": "é" * 1024 for number in range(60)}
    verdict = DESTINATION.prepare(identify({"customObject": custom}))
    assert isinstance(verdict, Rejected)
    assert "Kustomer takes 102,400" in verdict.reason


@pytest.mark.spec("K002")
def test_identify_is_the_same_in_both_modes() -> None:
    given = identify({"name": "Ada", "customObject": {"a b": 1}})
    assert body_of(DESTINATION, given) == body_of(kustomer(advanced_transform=False), given)


def test_the_message_stays_as_it_was() -> None:
    traits = {"emails": [{"email": "A@b.io", "type": "x"}], "customObject": {"a": 1}, "tags": ["a", "a"]}
    given = identify(traits)
    prepared(DESTINATION, given)
    assert given.traits == traits
