"""Whose address a request carries: the peer's, or what trusted proxies say."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


class Proxies:
    """The proxies whose X-Forwarded-For is believed, as addresses or networks."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(each, strict=False) for each in trusted]

    def client(self, peer: str, forwarded: bytes) -> str:
        """Return the sender's address: the last one in the chain that is not a trusted proxy."""
        if not self._trusted or not forwarded or not self._trusts(peer):
            return peer
        found = peer
        for name in reversed(forwarded.decode("latin-1").split(",")):
            if (address := _address(name)) is None:
                return found
            found = str(address)
            if not self._trusts(found):
                return found
        return found

    def _trusts(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(name.strip().strip("[]"))
    except ValueError:
        return None
    # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
