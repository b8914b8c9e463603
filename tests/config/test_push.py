"""The section `push:` brings a connection and a source with it, and says what is wrong at its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from towpath.config import Config, ConfigError, parse
from towpath.sandbox.google import service_account

KEY = service_account("http://127.0.0.1:9", project="shop-1")
TOP = """\
version: 1
sources:
  web: {type: segment, write_keys: [a]}
  app: {type: segment, write_keys: [b]}
accounts:
  firebase: {type: fcm, service_account: "${KEY}"}
destinations:
  hook: {type: webhook, url: "https://example.com/x", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
"""

Load = Callable[[str], Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda text: parse(TOP + text, tmp_path / "towpath.yaml", {"KEY": KEY})


def titles(load: Load, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return [problem.title for problem in caught.value.problems]


@pytest.mark.spec("P001")
def test_an_empty_section_keeps_a_registry_of_all_sources(load: Load) -> None:
    config = load("push: {}\n")
    (connection,) = config.connections
    assert (connection.name, connection.destination) == ("devices", "devices")
    assert connection.sources == {"web", "app"}
    assert config.sources["push"].settings.trust == "server"
    assert load("push:\n").push is None


@pytest.mark.spec("P011")
def test_the_defaults_are_the_seeds(load: Load) -> None:
    push = load("push: {account: firebase}\n").push
    assert push is not None
    assert (push.stale_after.days, push.refresh_after.days, push.quiet_for.days) == (62, 45, 3)


@pytest.mark.spec("P046")
def test_a_connection_may_begin_at_the_registry(load: Load) -> None:
    config = load("push: {from: [app]}\nconnections:\n  - {from: push, to: [hook]}\n")
    assert {one.name: set(one.sources) for one in config.connections} == {
        "hook": {"push"},
        "devices": {"app"},
    }
    assert titles(load, "connections:\n  - {from: push, to: [hook]}\n") == ['there is no source "push"']


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{account: nobody}", 'there is no account "nobody"'),
        ("{from: [webb]}", 'there is no source "webb"'),
        ("{timezone: Mars/Olympus}", "is no time zone"),
        ("{quiet_hours: {from: '21:00'}}", "quiet_hours"),
        ("{quiet_hours: {from: '21:00', to: '21:00'}}", "always, or never"),
        ("{quiet_hours: {from: '25:00', to: '08:00'}}", "is not a time of day"),
        ("{campaigns: {a b: {title: x}}}", "cannot be a code"),
        ("{campaigns: {a: {title: '{properties.'}}}", "campaigns.a.title"),
        ("{campaigns: {a: {title: x, audience: {filter: 'traits.plan =='}}}}", "audience.filter"),
        ("{campaigns: {a: {title: x, audience: {persons: []}}}}", "persons"),
        ("{campaigns: {a: {titel: x}}}", "titel"),
        (f"{{campaigns: {{a: {{title: {'x' * 2500}, body: {'y' * 2500}}}}}}}", "FCM would refuse it"),
        ("{campaigns: {a: {title: x, ttl: 29d}}}", "28d"),
        ("{stale_after: 2 months}", "is not a duration"),
        ("[]", "push"),
    ],
)
def test_what_is_wrong_is_said_where(load: Load, section: str, said: str) -> None:
    found = titles(load, f"push: {section}\n")
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "push: {account: hooks}\n",
        "push: {account: bare}\n",
    ],
)
def test_an_account_must_be_able_to_send(load: Load, tmp_path: Path, text: str) -> None:
    more = "\n  bare: {type: fcm}\n  hooks: {type: webhook}\n"
    whole = (TOP + text).replace("\ndestinations:", more + "destinations:", 1)
    with pytest.raises(ConfigError) as caught:
        parse(whole, tmp_path / "towpath.yaml", {"KEY": KEY})
    (problem,) = caught.value.problems
    assert "service_account" in problem.title or "webhook, not fcm" in problem.title


SEGMENT = "push: {campaigns: {a: {title: x, audience: {segment: {account: cio, id: 12}}}}}\n"


@pytest.mark.spec("P050")
@pytest.mark.parametrize(
    ("account", "said"),
    [
        ("cio: {type: customerio, app_api_key: k}", []),
        ("cio: {type: customerio}", ['the account "cio" has no app_api_key, which reading a segment needs']),
        ("cio: {type: webhook}", ['the account "cio" is of the type webhook, not customerio']),
        ("other: {type: webhook}", ['there is no account "cio"']),
    ],
)
def test_a_segment_is_of_an_account_that_can_be_read(tmp_path: Path, account: str, said: list[str]) -> None:
    whole = (TOP + SEGMENT).replace("\ndestinations:", f"\n  {account}\ndestinations:", 1)
    found: list[str] = []
    try:
        parse(whole, tmp_path / "towpath.yaml", {"KEY": KEY})
    except ConfigError as error:
        found = [problem.title for problem in error.problems]
    assert found == said


def test_a_segment_has_a_number(load: Load) -> None:
    assert "segment.id" in titles(load, SEGMENT.replace("12", "0"))[0]


def test_its_names_are_taken(load: Load, tmp_path: Path) -> None:
    whole = TOP.replace("  hook:", "  devices:").replace("  app:", "  push:") + "push: {}\n"
    with pytest.raises(ConfigError) as caught:
        parse(whole, tmp_path / "towpath.yaml", {"KEY": KEY})
    assert sorted(problem.title for problem in caught.value.problems) == [
        '"devices" is the name of a part of push',
        '"push" is the name of a part of push',
    ]


def test_no_secret_is_in_a_repr(load: Load) -> None:
    assert "PRIVATE KEY" not in repr(load("push: {account: firebase}\n"))


@pytest.mark.spec("D13")
def test_the_registry_knows_whose_user_ids_are_proven(load: Load) -> None:
    def proving(verify: str) -> object:
        web = "  web: {type: segment, write_keys: [a]}\n"
        proved = web.replace("}", f", verify: {verify}, verify_secret: s3cret-s3cret-s3cret}}")
        settings = parse(TOP.replace(web, proved) + "push: {}\n", Path("towpath.yaml"), {"KEY": KEY})
        return settings.destinations["devices"].settings.proving

    assert [proving(verify) for verify in ("required", "optional", "off")] == [("web",), (), ()]
