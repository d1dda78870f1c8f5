"""Hosts and ports: how they are written, and which hosts are this machine's own. Nothing is looked up."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

_REACHED_BY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""What listens on every address, by the address under which this machine reaches it."""

_WEB_PORTS = {"http": 80, "https": 443}


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
