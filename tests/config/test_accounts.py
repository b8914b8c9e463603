"""Accounts: settings given once for all that name them, and nobody's secrets in a repr."""

from __future__ import annotations

from .conftest import Read, Refuse

TEXT = """\
version: 1
accounts:
  main: {type: parcel, apiKey: top-secret, region: eu}
  spare: {type: pigeon}
destinations:
  one: {type: parcel, account: main}
  two: {type: parcel, account: main, hasty: true}
  own: {type: parcel, api_key: other}
"""


def test_a_destination_takes_the_settings_of_its_account(read: Read) -> None:
    two = read(TEXT).destinations["two"]
    assert two.account == "main"
    assert two.settings.api_key.get_secret_value() == "top-secret"
    assert (two.settings.region, two.settings.hasty) == ("eu", True)


def test_those_who_name_one_account_share_it_and_the_others_are_their_own(read: Read) -> None:
    config = read(TEXT)
    used = {name: entry.account for name, entry in config.destinations.items()}
    assert used == {"one": "main", "two": "main", "own": "own"}
    assert list(config.accounts) == ["main", "spare"]
    assert config.accounts["main"].fields == {"api_key": "top-secret", "region": "eu"}
    assert "top-secret" not in repr(config.accounts)


def test_a_wrong_setting_of_an_account_is_shown_once_and_there(refused: Refuse) -> None:
    problems = refused(TEXT.replace("region: eu", "region: mars")).problems
    assert [(problem.line, problem.title) for problem in problems] == [
        (3, "accounts.main.region must be 'us' or 'eu'")
    ]


def test_what_an_account_lacks_is_missing_in_the_destination(refused: Refuse) -> None:
    problems = refused(TEXT.replace("apiKey: top-secret, ", "")).problems
    assert [problem.title for problem in problems] == [
        'destinations.one needs "api_key"',
        'destinations.two needs "api_key"',
    ]
