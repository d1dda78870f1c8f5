"""Hosts and ports: how they are written, and which hosts are this machine's own. Nothing is looked up."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

_REACHED_BY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""What listens on every address, by the address under which this machine reaches it."""

_WEB_PORTS = {"http": 80, "https": 443}
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_EMBEDDING = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]
"""IPv6 networks whose addresses have an IPv4 address in them, which a gateway may reach: NAT64, 6to4, Teredo."""
_INNER_NAMES: Final = ("localhost", "local", "internal")
"""Top-level names that no public address has."""


def bare_host(host: str) -> str:
    """A host of the settings as sockets take it: an IPv6 address without the brackets that URLs need.

    Raises:
        ValueError: it is empty, or has a colon and is no IPv6 address.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare and not _is_ipv6(bare)):
        raise ValueError("give a name or an address, without scheme and port")
    return bare


def in_url(host: str) -> str:
    """The host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int | None) -> str:
    """`host:port`, as in a URL."""
    return f"{in_url(host)}:{port}"


def local_url(host: str, port: int) -> str:
    """The URL under which this machine reaches what listens on host and port."""
    return f"http://{host_port(_REACHED_BY.get(host, host), port)}"


def is_wildcard(host: str) -> bool:
    """Whether who listens on it listens on every address of the machine."""
    return host in _REACHED_BY


def is_loopback(host: str) -> bool:
    """Whether a host name or address, which may stand in brackets, is reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet: not private, loopback, link-local, shared, reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in _EMBEDDING):
        return False
    if isinstance(ip, ipaddress.IPv4Address) and ip in _SHARED:
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def may_be_public(host: str) -> bool:
    """Whether a host of a URL can mean a public address, as far as that is told without a look-up.

    A name without a dot, or one that ends in a number, is no name of the open internet; resolvers take the latter for
    an address in another form, such as 127.1.
    """
    try:
        return is_public(host)
    except ValueError:
        labels = host.lower().removesuffix(".").split(".")
    return len(labels) > 1 and labels[-1] not in _INNER_NAMES and not labels[-1][:1].isdigit()


def split(url: str) -> tuple[str, int | None] | None:
    """The host, without brackets, and the port that a URL names, if any; None where it names no host."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None


def origin(url: str) -> str:
    """A web site's origin as browsers send it: scheme and host, and the port where it is not the scheme's own.

    Raises:
        ValueError: the URL names more than that, or less.
    """
    scheme, _, rest = url.lower().removesuffix("/").partition("://")
    found = split(f"//{rest}")
    if scheme not in _WEB_PORTS or found is None or rest not in (in_url(found[0]), host_port(*found)):
        raise ValueError("give https://host or https://host:port")
    host, port = found
    return f"{scheme}://{in_url(host) if port in (None, _WEB_PORTS[scheme]) else rest}"


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
