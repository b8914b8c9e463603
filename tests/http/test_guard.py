"""The guard: no spelling of a private address is called, and a name server that changes its mind loses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from towpath.guard import IDLE_HOSTS, GuardedTransport, Pin, is_public, normalise, system_resolver
from towpath.http import Http, Reply, Request, TransportError, Undelivered, Unsendable
from towpath.outcome import Rejected
from towpath.testing import FakeClock, FakeTransport

from .wire import OK, serve

pytestmark = pytest.mark.spec("D08", "D12")
PUBLIC = "93.184.216.34"


class Names:
    """A name server that answers in turn, the last answer for ever."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clients:
    """The clients a guard opened, by pin; `failing` addresses refuse connections."""

    def __init__(self, failing: Sequence[str] = (), *, sent: bool = False) -> None:
        self.failing = failing
        self.sent = sent
        self.opened: list[Pin] = []
        self.networks: list[FakeTransport] = []

    def __call__(self, pin: Pin) -> FakeTransport:
        refused = TransportError("connection refused", sent=self.sent)
        self.opened.append(pin)
        self.networks.append(
            FakeTransport(("*", "*", refused if pin.address in self.failing else Reply(200)))
        )
        return self.networks[-1]

    @property
    def urls(self) -> list[str]:
        return [request.url for network in self.networks for request in network.requests]


async def call(url: str, names: Names | None = None, clients: Clients | None = None, **options: Any) -> Reply:
    guard = GuardedTransport(clients or Clients(), names or Names([PUBLIC]), **options)
    return await guard.send(Request("POST", url), timeout_s=5)


LOOPBACK = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7F.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0177.0x0.0.1/",
    "http://127.0.0.1./",
    "http://127.0.0.1.../",
    "http://%31%32%37.0.0.1/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "http://[fe80::1%25lo]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "HTTP://127.0.0.1:80/",
    "http://127.0.0.1\\@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com:pw@127.0.0.1/",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1?@example.com/",
    "http://10.0.0.1/",
    "http://172.16.5.4/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
]


@pytest.mark.parametrize("url", LOOPBACK)
async def test_no_spelling_of_a_private_address_is_called(url: str) -> None:
    clients = Clients()
    with pytest.raises(Unsendable, match="refused") as raised:
        await call(url, clients=clients)
    assert not raised.value.sent
    assert clients.opened == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://example.com/",
        "ftp://example.com/",
        "//example.com/",
        "example.com",
        "",
        "http://",
        "http:///path",
        "http://exa mple.com/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1/",
        "http://1.2.3.4.5/",
        "http://256.0.0.1/",
        "http://0x/",
        "http://08.0.0.1/",
        "http://a..b/",
        "http://-a.com/",
        f"http://{'a' * 64}.com/",
        "http://a%2fb/",
        "http://a%00.com/",
    ],
)
async def test_what_is_no_plain_url_is_refused(url: str) -> None:
    clients = Clients()
    with pytest.raises(Unsendable):
        await call(url, clients=clients)
    assert clients.opened == []


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("https://example.com.:8443/a%2Fb?c=d%3F#e", "https://example.com:8443/a%2Fb?c=d%3F"),
        ("https://bücher.example/ü?ü", "https://xn--bcher-kva.example/ü?ü"),
        ("http://1572395042/", "http://93.184.216.34/"),
        ("http://[2606:4700:0::6810:84e5]/", "http://[2606:4700::6810:84e5]/"),
    ],
)
async def test_public_urls_are_called_in_their_one_spelling(url: str, called: str) -> None:
    clients = Clients()
    assert (await call(url, clients=clients)).status == 200
    assert clients.urls == [called]


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::1", PUBLIC], ["::ffff:10.0.0.1"], ["fe80::1%2"], ["junk"]],
)
async def test_a_name_with_any_private_address_is_refused(addresses: list[str]) -> None:
    clients = Clients()
    with pytest.raises(Unsendable, match=r"inside\.example \("):
        await call("http://inside.example/", Names(addresses), clients)
    assert clients.opened == []


async def test_a_name_is_pinned_to_the_checked_address() -> None:
    names, clients = Names([PUBLIC], ["127.0.0.1"]), Clients()
    await call("http://Rebind.Example/", names, clients)
    assert names.asked == ["rebind.example"]
    assert clients.opened == [Pin("rebind.example", PUBLIC)]


async def test_a_name_that_turns_private_is_refused_at_the_next_look_up() -> None:
    names, clients = Names([PUBLIC], ["127.0.0.1"]), Clients()
    guard = GuardedTransport(clients, names, remember_s=0)
    await guard.send(Request("POST", "http://rebind.example/"), timeout_s=5)
    with pytest.raises(Unsendable):
        await guard.send(Request("POST", "http://rebind.example/"), timeout_s=5)
    assert {pin.address for pin in clients.opened} == {PUBLIC}


async def test_a_checked_address_is_remembered_for_a_while() -> None:
    names, clients = Names([PUBLIC], ["127.0.0.1"]), Clients()
    guard = GuardedTransport(clients, names)
    for _ in range(3):
        await guard.send(Request("POST", "http://rebind.example/"), timeout_s=5)
    assert (len(names.asked), len(clients.opened)) == (1, 1)


async def test_rebinding_cannot_win_against_the_real_client() -> None:
    """The real client under a pin never asks the system's name server, which knows no such name."""
    async with serve(OK) as wire:
        port = wire.url.split(":")[2].split("/")[0]
        from towpath.transport_http1 import Http1Transport

        transport = Http1Transport(pin=Pin("rebind.invalid", "127.0.0.1"))
        reply = await transport.send(Request("GET", f"http://rebind.invalid:{port}/"), timeout_s=5)
        await transport.close()
    assert reply.status == 200


async def test_the_next_address_is_tried_when_the_first_takes_no_connection() -> None:
    clients = Clients(failing=[PUBLIC])
    reply = await call("http://two.example/", Names([PUBLIC, "93.184.216.35"]), clients)
    assert reply.status == 200
    assert [pin.address for pin in clients.opened] == [PUBLIC, "93.184.216.35"]


async def test_what_may_have_been_sent_is_not_sent_again() -> None:
    clients = Clients(failing=[PUBLIC], sent=True)
    with pytest.raises(TransportError):
        await call("http://two.example/", Names([PUBLIC, "93.184.216.35"]), clients)
    assert len(clients.opened) == 1


@pytest.mark.spec("D03")
@pytest.mark.parametrize("answer", [OSError("no such name"), []])
async def test_a_name_without_an_address_may_get_one_later(answer: Any) -> None:
    with pytest.raises(TransportError) as raised:
        await call("http://gone.example/", Names(answer))
    assert not isinstance(raised.value, Unsendable)
    assert not raised.value.sent


@pytest.mark.spec("D03")
async def test_a_name_that_cannot_be_one_never_gets_an_address() -> None:
    with pytest.raises(Unsendable, match="not a valid name"):
        await call("http://odd.example/", Names(UnicodeError("label too long")))


async def test_a_silent_name_server_ends_at_the_deadline() -> None:
    async def silent(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return [host]

    guard = GuardedTransport(Clients(), silent)
    with pytest.raises(TransportError, match="no address"):
        await guard.send(Request("GET", "http://slow.example/"), timeout_s=0.05)


@pytest.mark.spec("D02")
async def test_a_refusal_is_a_rejected_delivery_with_a_reason() -> None:
    http = Http(GuardedTransport(Clients(), Names(["10.1.2.3"])), FakeClock())
    with pytest.raises(Undelivered) as raised:
        await http.request("POST", "http://inside.example/")
    outcome = raised.value.outcome
    assert isinstance(outcome, Rejected)
    assert "inside.example (10.1.2.3) is not a public address" in outcome.reason


async def test_clients_of_idle_hosts_are_closed_and_bounded() -> None:
    clients = Clients()
    guard = GuardedTransport(clients, Names([PUBLIC]))
    for number in range(IDLE_HOSTS + 10):
        await guard.send(Request("GET", f"http://host-{number}.example/"), timeout_s=5)
    assert [network.closed for network in clients.networks] == [True] * 10 + [False] * IDLE_HOSTS
    await guard.close()
    assert all(network.closed for network in clients.networks)


async def test_the_client_of_the_host_called_longest_ago_goes_first() -> None:
    clients = Clients()
    guard = GuardedTransport(clients, Names([PUBLIC]))
    for number in [*range(IDLE_HOSTS), 0, IDLE_HOSTS, IDLE_HOSTS + 1]:
        await guard.send(Request("GET", f"http://host-{number}.example/"), timeout_s=5)
    closed = [
        pin.host for pin, network in zip(clients.opened, clients.networks, strict=True) if network.closed
    ]
    assert closed == ["host-1.example", "host-2.example"]
    await guard.close()


async def test_a_client_in_use_is_not_closed() -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slowly(_: object) -> Reply:
        asked.set()
        await answered.wait()
        return Reply(200)

    networks: list[FakeTransport] = []

    def opened(pin: Pin) -> FakeTransport:
        answer = slowly if pin.host == "slow.example" else Reply(200)
        networks.append(FakeTransport(("*", "*", answer)))
        return networks[-1]

    guard = GuardedTransport(opened, Names([PUBLIC]))
    slow = asyncio.ensure_future(guard.send(Request("GET", "http://slow.example/"), timeout_s=5))
    await asked.wait()
    for number in range(IDLE_HOSTS + 1):
        await guard.send(Request("GET", f"http://host-{number}.example/"), timeout_s=5)
    assert [network.closed for network in networks[:3]] == [False, True, True]
    answered.set()
    assert (await slow).status == 200
    await guard.close()


async def test_the_default_resolver_is_the_machine_s() -> None:
    assert set(await system_resolver("127.0.0.1")) == {"127.0.0.1"}


def test_nothing_that_ipaddress_calls_private_is_public() -> None:
    assert not is_public("not an address")
    assert is_public(PUBLIC)
    assert is_public("2606:4700::6810:84e5")


@given(some.ip_addresses())
def test_public_addresses_are_global(address: Any) -> None:
    assert not is_public(str(address)) or (address.is_global and not address.is_multicast)


@given(some.text(max_size=30))
def test_any_text_is_read_or_refused(host: str) -> None:
    try:
        target = normalise(f"http://{host}/")
    except Unsendable:
        return
    assert normalise(target.url) == target
