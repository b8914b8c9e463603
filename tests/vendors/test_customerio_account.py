"""A workspace's region, found by asking: who may tell, who is to blame, and how long it is remembered."""

from __future__ import annotations

import pytest

from towpath.http import Http, Reply, TransportError, Undelivered
from towpath.outcome import Paused, Retry
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport, Rule
from towpath.vendors.customerio_account import Account, Keys, Urls, Wanted, WrongRegion, budgets

US, EU = "https://track.customer.io", "https://track-eu.customer.io"
NO = Reply(401, body=b"{}")
AWAY = Reply(301, {"location": f"{EU}/api/v1/accounts/region"})
DOWN = TransportError("connection refused", sent=False)
KEYS = Keys("site", "track-key", "app-key", "write-key")


def here(region: str) -> Reply:
    return Reply(200, body=b'{"region": "%s"}' % region.encode())


def doors(us: Reply | Exception, eu: Reply | Exception) -> Http:
    rules: list[Rule] = [("GET", f"{US}/*", us), ("GET", f"{EU}/*", eu)]
    return Http(FakeTransport(*rules), FakeClock())


@pytest.mark.spec("C114", "D18")
@pytest.mark.parametrize(
    ("us", "eu", "region"),
    [
        (here("us"), NO, "us"),
        (here("eu"), DOWN, "eu"),
        (NO, here("EU"), "eu"),
        (AWAY, here("eu"), "eu"),
        (DOWN, here("us"), "us"),
        (here("mars"), here("eu"), "eu"),
    ],
)
async def test_either_host_may_tell(us: Reply, eu: Reply, region: str) -> None:
    assert await Account(KEYS).region(doors(us, eu)) == region


@pytest.mark.spec("D18")
@pytest.mark.parametrize(
    ("us", "eu", "kind", "code"),
    [
        (NO, DOWN, Retry, 0),
        (DOWN, NO, Retry, 0),
        (NO, Reply(503), Retry, 503),
        (NO, NO, Paused, 401),
        (AWAY, NO, Paused, 401),
        (here("mars"), NO, Paused, 401),
        (AWAY, AWAY, Paused, 301),
        (here("mars"), AWAY, Paused, 0),
    ],
)
async def test_keys_are_to_blame_once_every_host_was_asked(
    us: Reply, eu: Reply, kind: type[Retry | Paused], code: int
) -> None:
    with pytest.raises(Undelivered) as raised:
        await Account(KEYS).region(doors(us, eu))
    assert isinstance(raised.value.outcome, kind)
    assert raised.value.outcome.code == code


@pytest.mark.spec("C093", "D18")
@pytest.mark.parametrize(("wanted", "us", "eu"), [("us", NO, here("eu")), ("eu", here("us"), here("us"))])
async def test_another_region_than_wanted_is_named(wanted: Wanted, us: Reply, eu: Reply) -> None:
    with pytest.raises(WrongRegion) as raised:
        await Account(KEYS, wanted).region(doors(us, eu))
    assert {raised.value.found, wanted} == {"us", "eu"}
    assert isinstance(raised.value.outcome, Paused)


@pytest.mark.spec("D18")
async def test_a_region_is_remembered_for_a_day_or_until_forgotten() -> None:
    clock, network = FakeClock(), FakeTransport(("GET", f"{US}/*", here("eu")))
    memory, account = FakeMemory(clock), Account(KEYS)
    for _ in range(2):
        apis = await account.opened(Http(network, clock), memory)
        assert apis.track.base_url == EU
    assert len(network.requests) == 1
    account.forget(memory)
    await account.opened(Http(network, clock), memory)
    assert len(network.requests) == 2
    clock._elapsed += 24 * 3600 + 1
    await account.opened(Http(network, clock), memory)
    assert len(network.requests) == 3


@pytest.mark.spec("C092")
async def test_keys_in_each_others_place_are_found_out() -> None:
    app = ("GET", "https://api-eu.customer.io/v1/segments", Reply(200, body=b"{}"))
    http = Http(FakeTransport(app, ("GET", f"{EU}/*", here("eu")), ("GET", "*", NO)), FakeClock())
    account = Account(KEYS)
    assert await account.opens_app(http)
    assert await account.opens_track(http, "eu")
    assert not await account.opens_track(http, "us")


async def test_one_address_is_the_only_one_asked() -> None:
    network = FakeTransport(("GET", "*", NO))
    with pytest.raises(Undelivered):
        await Account(KEYS, urls=Urls("http://127.0.0.1:9")).region(Http(network, FakeClock()))
    assert [request.url.split("/api")[0] for request in network.requests] == ["http://127.0.0.1:9"]


def test_only_apis_whose_keys_are_given_are_opened_and_keys_are_not_shown() -> None:
    http = Http(FakeTransport(), FakeClock())
    bare, whole = Account(Keys("site", "key")).apis(http, "us"), Account(KEYS).apis(http, "eu")
    assert (bare.app, bare.pipelines) == (None, None)
    assert whole.app is not None
    assert whole.pipelines is not None
    assert whole.pipelines.base_url == "https://cdp-eu.customer.io"
    assert "key" not in repr(KEYS)


@pytest.mark.spec("C084", "C085", "C086")
def test_budgets_are_requests_per_minute() -> None:
    assert budgets(1000) == {"track": 60_000, "app": 600, "pipelines": 6000}
