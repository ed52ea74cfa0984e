"""Where a download may lead: to public addresses, and to others only where that was said.

Its rule: an address is public when it is on no list of those that mean something else to whoever is
inside a network than to whoever is outside. The lists are IANA's registries of special-purpose
addresses, written down here, since what Python knows of them differs by version. An address that
carries another one (mapped, 6to4, Teredo) is not public; of NAT64's, the one inside counts.
No I/O: names are resolved by who connects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final
from urllib.parse import urlsplit

import attrs

from .errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL: Final = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        ),
    )
)
_UNICAST: Final = IPv6Network("2000::/3")
_SPECIAL_6: Final = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")


def is_public(address: Address) -> bool:
    """True for an address that is the same machine for everybody."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST and not any(address in network for network in _SPECIAL_6)


@attrs.frozen
class Reach:
    """Public addresses, and beyond them *networks*, what *hosts* lead to, and *own*: the API's."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    own: tuple[str, int] | None = None

    @classmethod
    def of(cls, private_hosts: Iterable[str], *, origin: str) -> Reach:
        """What *private_hosts* allow (names, addresses, networks) to a client of *origin*.

        The API's own host and port are allowed, and where it is this machine, all of this machine.
        Raises ConfigurationError.
        """
        if isinstance(private_hosts, (str, bytes)) or not isinstance(private_hosts, Iterable):
            raise _unusable(private_hosts)
        entries = list(private_hosts)
        networks = [network for each in entries if (network := _network(each)) is not None]
        names = [_checked(each) for each in entries if _network(each) is None]
        parts = urlsplit(origin)
        host = _plain(parts.hostname or "")
        if (address := _literal(host)) is not None and any(address in net for net in _LOOPBACK):
            networks += _LOOPBACK
        own = (host, parts.port or {"http": 80}.get(parts.scheme, 443))
        return cls(frozenset(names), tuple(networks), own)

    def refusal(self, host: str, port: int) -> str | None:
        """What is wrong with *host* as it is written; None where only its addresses can tell."""
        name = _plain(host)
        if self._trusts(name, port):
            return None
        address = _literal(name)
        if address is None:
            return None if _is_name(name) else f"{host} is no host's name"
        return None if self._admits(address) else _told(host, address)

    def admitted(self, host: str, port: int, addresses: Iterable[str]) -> list[str]:
        """Those of *addresses*, which *host* has, that may be connected to."""
        return [
            text
            for text in addresses
            if self._trusts(_plain(host), port) or self._admits(ip_address(text))
        ]

    def _trusts(self, name: str, port: int) -> bool:
        return name in self.hosts or (name, port) == self.own

    def _admits(self, address: Address) -> bool:
        return is_public(address) or any(address in network for network in self.networks)


def no_way(host: str, addresses: Iterable[str]) -> str:
    """What to say where none of the *addresses* of *host* may be connected to."""
    return _told(host, ", ".join(addresses))


def _told(host: str, where: object) -> str:
    at = "" if str(where) == _plain(host) else f" is at {where}, which"
    return f"{host}{at} is no public address; private_hosts= of the client allows it"


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def _literal(name: str) -> Address | None:
    if name == "localhost" or name.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(name)
    except ValueError:
        return None


def _is_name(text: str) -> bool:
    """False also for what some systems take for an address: `127.1`, `0x7f.1`, `2130706433`."""
    return _NAME.fullmatch(text) is not None and _NUMBER.fullmatch(text) is None


def _network(entry: object) -> Network | None:
    try:
        return ip_network(entry, strict=False) if isinstance(entry, str) else None
    except ValueError:
        return None


def _checked(entry: object) -> str:
    name = _plain(entry) if isinstance(entry, str) else ""
    if not _is_name(name):
        raise _unusable(entry)
    return name


def _unusable(value: object) -> ConfigurationError:
    return ConfigurationError(
        "private_hosts: expected host names, addresses or networks such as 10.0.0.0/8,"
        f" got {value!r}"
    )
