"""Which network addresses a client may have this server reach: public ones, and those that the operator allows."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from backends.errors import BadRequest, Forbidden

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_ODD_HOST = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_TEREDO, _SIX_TO_FOUR = ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16")


def is_public(address: Address) -> bool:
    """Whether the address is one of the open internet: not this machine, its network, or a way around to those."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in (_NAT64, _NAT64_LOCAL, _TEREDO, _SIX_TO_FOUR)):
            return False  # each holds an IPv4 address that only its gateway knows how to judge
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class Allowed:
    """The hosts and ports of `outbound.allow`: `host:port`, where `*` as port stands for all."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = {entry.casefold() for entry in entries}

    def __contains__(self, place: tuple[str, int]) -> bool:
        host, port = place
        host = f"[{host}]" if ":" in host else host
        return not {f"{host.casefold()}:{port}", f"{host.casefold()}:*"}.isdisjoint(self._entries)


def check_host(host: str, *, where: str) -> str:
    """The host as it is looked up. Raises BadRequest: none, or an address in a spelling of its own."""
    host = host.rstrip(".").casefold()
    if not host:
        raise BadRequest("the URL names no host", where=where)
    if _ODD_HOST.fullmatch(host) and any(character.isdigit() for character in host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            if not re.search(r"[g-wyz]", host) and (host.isdigit() or "0x" in host or host[-1].isdigit()):
                raise BadRequest("write the address as four decimal numbers, as in 192.0.2.1", where=where) from None
    return host


def is_address(host: str) -> bool:
    """Whether the host is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the order to try them. Raises OSError: it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return list(dict.fromkeys(addresses))


def permitted(host: str, port: int, allowed: Allowed, *, where: str) -> list[Address]:
    """The addresses that a connection to the host may go to, resolved now.

    Raises:
        Forbidden: all of them, or one of them, is no public address. BadRequest: the host has no address.
    """
    try:
        addresses = resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"the host {host[:100]!r} of the URL cannot be found", where=where, internal=str(error)
        ) from None
    if (host, port) in allowed:
        return addresses
    # One address inside among others outside is how a name is made to lead in: none of them is taken.
    if not addresses or not all(map(is_public, addresses)):
        raise refused(where)
    return addresses


def refused(where: str) -> Forbidden:
    """The answer to every URL that leads where clients may not go: the same, whatever is there."""
    return Forbidden(
        "this URL leads to a host or port that clients may not name; the operator can allow it in `outbound.allow`",
        where=where,
    )
