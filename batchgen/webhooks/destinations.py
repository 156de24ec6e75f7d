"""The only places to which webhooks may be sent.

    webhook_hosts      names that a URL may have: hooks.example.org, *.example.org; none by default
    webhook_networks   addresses that are not public, to which such a name may lead; none by default

A name is resolved for each attempt, all of its addresses are checked, and the connection goes to an
address that was checked. So a name that changes its address between two look-ups gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, Self

import httpx2

from batchgen.errors import InvalidParameter
from batchgen.settings import Settings

MAX_URL: Final = 2_000  # characters

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# These hold an IPv4 address, which a gateway would reach.
_TRANSLATED: Final = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


class Refused(Exception):
    """A place to which this may not be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """The hosts and networks that the operator has named."""

    hosts: frozenset[str]
    networks: tuple[Network, ...]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read both lists from the settings; raise InvalidParameter."""
        return cls(
            hosts=frozenset(name.lower() for name in _listed(settings.webhook_hosts)),
            networks=tuple(map(_network, _listed(settings.webhook_networks))),
        )

    def check_url(self, text: str) -> httpx2.URL:
        """Return a URL whose form and name are allowed; raise Refused."""
        url = _parsed(text)
        if not self.hosts:
            raise Refused(
                "No host may receive webhooks. The operator names them in BATCHGEN_WEBHOOK_HOSTS, "
                f"such as {url.host}, for the server and every coordinator."
            )
        if not self._is_named(url.host.lower().rstrip(".")):
            raise Refused(
                f"{url.host} is not among the hosts that may receive webhooks: the operator adds "
                "it to BATCHGEN_WEBHOOK_HOSTS."
            )
        with suppress(ValueError):  # a name; its addresses are checked at each attempt
            self._check(ip_address(url.host), url)
        return url

    async def resolve(self, url: httpx2.URL) -> list[Address]:
        """Return the addresses of a URL's host, all of which are allowed.

        Raises Refused if one is not, OSError if the name cannot be resolved.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(url.host, None, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        for address in addresses:
            self._check(address, url)
        return list(dict.fromkeys(addresses))

    def _is_named(self, host: str) -> bool:
        above = host.split(".")[1:]
        wild = ("*." + ".".join(above[i:]) for i in range(len(above)))
        return host in self.hosts or not self.hosts.isdisjoint(wild)

    def _check(self, address: Address, url: httpx2.URL) -> None:
        named = any(
            address.version == network.version and address in network for network in self.networks
        )
        if not named and not _is_public(address):
            raise Refused(
                f"{url.host} leads to {address}, which is no public address: the operator may "
                "name its network in BATCHGEN_WEBHOOK_NETWORKS."
            )
        if not named and url.scheme != "https":
            raise Refused(f"{url.host} leads to a public address: its URL must be https.")


def _parsed(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, UnicodeError):
        raise Refused("The URL cannot be read.") from None
    if len(text) > MAX_URL:
        raise Refused(f"The URL is longer than {MAX_URL:,} characters.")
    if url.scheme not in ("https", "http") or not url.host:
        raise Refused("The URL must begin with https:// and name a host.")
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise Refused("The port of the URL must be from 1 to 65535.")
    if url.userinfo or url.fragment:
        raise Refused("The URL must not hold a user, a password or a fragment.")
    return url


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _is_public(inner)
        if address.teredo or any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidParameter(
            f"BATCHGEN_WEBHOOK_NETWORKS has {text!r}: write networks such as 10.0.0.0/8 ({error}).",
            param="webhook_networks",
        ) from None


def _listed(text: str) -> Sequence[str]:
    return [each.strip() for each in text.split(",") if each.strip()]
