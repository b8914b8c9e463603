"""The guard against calls into private networks (SSRF): normalise, resolve, refuse, pin."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from msgspec import Struct
from msgspec.structs import replace

from .http import Reply, Request, Transport, TransportError, Unsendable
from .transport_http1 import Http1Transport

Address: TypeAlias = IPv4Address | IPv6Address
Resolver: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]

# Beyond what `ipaddress` calls not global: carrier-grade NAT, benchmarking, 6to4, NAT64, Teredo, SRv6 and
# the documentation ranges. Some of these carry an IPv4 address that would be reached in the end.
_RANGES = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
    198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    ::/96 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20
    5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    """
FORBIDDEN = tuple(ipaddress.ip_network(network) for network in _RANGES.split())
IDLE_HOSTS = 64
"""How many hosts keep their client and its connections while no request of theirs is under way."""
_LOOKS_NUMERIC = re.compile(r"(?i)(?:0x[0-9a-f]*|[0-9]+)")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?").fullmatch


class Pin(Struct, frozen=True):
    """A host name and the one checked address a client may connect to for it."""

    host: str
    address: str


class Target(Struct, frozen=True):
    """A URL as it will be called, and the host in it: a lower-case name, or the address it spells."""

    url: str
    host: str
    address: str | None


class GuardedTransport:
    """Requests to public addresses only, for URLs that people other than the operator may choose.

    Each request resolves its host, refuses it when any of its addresses is not public, and connects to the
    checked address, so that a second answer of the name server cannot win. Raises `Unsendable` for what is
    refused, before anything is connected, and `TransportError` when the name has no address.
    """

    def __init__(
        self,
        transport_factory: Callable[[Pin], Transport] | None = None,
        resolver: Resolver | None = None,
        *,
        remember_s: float = 30.0,
    ) -> None:
        self._open = transport_factory or (lambda pin: Http1Transport(pin=pin))
        self._resolve = resolver or system_resolver
        self._remember_s = remember_s
        self._checked: dict[str, tuple[float, Sequence[str]]] = {}
        self._pinned: OrderedDict[Pin, _Pinned] = OrderedDict()

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Check, pin and do one exchange within a total deadline, looking the name up included."""
        target = normalise(request.url)
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        addresses = await self._addresses(target, timeout_s)
        asked = replace(request, url=target.url)
        for address in addresses[:-1]:
            try:
                return await self._exchange(Pin(target.host, address), asked, deadline - clock())
            except TransportError as error:
                if error.sent or clock() >= deadline:
                    raise
        return await self._exchange(Pin(target.host, addresses[-1]), asked, deadline - clock())

    async def close(self) -> None:
        """Close the connections to all hosts."""
        closing, self._pinned = [*self._pinned.values()], OrderedDict()
        for pinned in closing:
            await pinned.transport.close()

    async def _exchange(self, pin: Pin, request: Request, timeout_s: float) -> Reply:
        pinned = self._use(pin)
        try:
            return await pinned.transport.send(request, timeout_s=max(timeout_s, 0.001))
        finally:
            pinned.in_use -= 1
            await self._close_idle()

    async def _addresses(self, target: Target, timeout_s: float) -> Sequence[str]:
        """Return the host's addresses, all of them checked; a name's are remembered for a while."""
        if target.address is not None:
            _refuse_private(target.host, [target.address])
            return [target.address]
        now = asyncio.get_running_loop().time()
        until, addresses = self._checked.get(target.host, (0.0, ()))
        if until <= now:
            addresses = await self._look_up(target.host, timeout_s)
            _refuse_private(target.host, addresses)
            self._checked = {host: kept for host, kept in self._checked.items() if kept[0] > now}
            self._checked[target.host] = (now + self._remember_s, addresses)
        return addresses

    async def _look_up(self, host: str, timeout_s: float) -> Sequence[str]:
        try:
            async with asyncio.timeout(timeout_s):
                addresses = list(dict.fromkeys(await self._resolve(host)))
        except TimeoutError as error:
            raise TransportError(f"no address for {host} within {timeout_s:g} s", sent=False) from error
        except UnicodeError as error:
            raise Unsendable(f"refused: {host} is not a valid name: {error}") from error
        except OSError as error:
            raise TransportError(f"no address for {host}: {error}", sent=False) from error
        if not addresses:
            raise TransportError(f"no address for {host}", sent=False)
        return addresses

    def _use(self, pin: Pin) -> _Pinned:
        pinned = self._pinned.get(pin)
        if pinned is None:
            pinned = self._pinned[pin] = _Pinned(self._open(pin))
        self._pinned.move_to_end(pin)
        pinned.in_use += 1
        return pinned

    async def _close_idle(self) -> None:
        """Close the clients of the hosts not called for longest, beyond the bound; never one in use."""
        surplus = len(self._pinned) - IDLE_HOSTS
        if surplus <= 0:
            return
        idle = [pin for pin, pinned in self._pinned.items() if not pinned.in_use][:surplus]
        for pinned in [self._pinned.pop(pin) for pin in idle]:
            await pinned.transport.close()


class _Pinned:
    """A client that connects to one checked address, and how many requests it has under way."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.in_use = 0


def _refuse_private(host: str, addresses: Sequence[str]) -> None:
    for address in addresses:
        if not is_public(address):
            spelled = address if address == host else f"{host} ({address})"
            raise Unsendable(f"refused: {spelled} is not a public address; allow_private would permit it")


async def system_resolver(host: str) -> list[str]:
    """Look a name up as this machine does; all its addresses. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


def is_public(address: str) -> bool:
    """Tell whether an address belongs to the public internet, also the IPv4 one inside an IPv6 one."""
    try:
        parsed: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and (parsed.scope_id or not parsed.is_global):
        return False
    return parsed.is_global and not any(parsed in network for network in FORBIDDEN)


def normalise(url: str) -> Target:
    """Read a URL strictly, so that guard and client cannot differ about it. Raises `Unsendable`."""
    parts = _split(url)
    if parts.scheme not in ("http", "https"):
        raise Unsendable(f"refused: only http and https are called, not {parts.scheme[:20]!r}")
    if "@" in parts.netloc:
        raise Unsendable("refused: a URL may not carry a user name or password; use headers")
    host, address = _host(parts)
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    return Target(urlunsplit((parts.scheme, shown + port, parts.path or "/", parts.query, "")), host, address)


def _split(url: str) -> SplitResult:
    try:
        # Clients by the WHATWG rules read a backslash as a slash; here it is not allowed at all.
        if "\\" in url:
            raise ValueError("a backslash")
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise Unsendable(f"refused: not a URL ({error})") from error
    return parts


def _host(parts: SplitResult) -> tuple[str, str | None]:
    """Return the host in its one spelling, and the address where it is a spelling of one."""
    name = unquote(parts.hostname or "").rstrip(".")
    if ":" in name:
        return _ipv6(name)
    try:
        plain = name.encode("idna").decode().lower() if name else ""
    except UnicodeError as error:
        raise Unsendable("refused: the host is not a valid name") from error
    if not _HOST(plain):
        raise Unsendable("refused: the host is not a valid name")
    address = _ipv4(plain)
    return (address, address) if address else (plain, None)


def _ipv6(text: str) -> tuple[str, str]:
    try:
        address = str(ipaddress.IPv6Address(text))
    except ValueError as error:
        raise Unsendable("refused: the host is not a valid address") from error
    return address, address


def _ipv4(host: str) -> str | None:
    """Read what inet_aton reads: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1; None when it is a name."""
    pieces = host.split(".")
    if not _LOOKS_NUMERIC.fullmatch(pieces[-1]):
        return None
    try:
        *leading, last = [_integer(piece) for piece in pieces]
        if len(pieces) > 4 or any(piece > 255 for piece in leading) or last >= 256 ** (5 - len(pieces)):
            raise ValueError("out of range")
    except ValueError as error:
        raise Unsendable("refused: the host is not a valid address") from error
    value = last + sum(piece << 8 * (3 - index) for index, piece in enumerate(leading))
    return str(IPv4Address(value))


def _integer(piece: str) -> int:
    if piece.lower().startswith("0x"):
        return int(piece[2:] or "0", 16)
    return int(piece, 8 if len(piece) > 1 and piece.startswith("0") else 10)
