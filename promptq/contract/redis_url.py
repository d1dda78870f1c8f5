"""The address of the queue's server: what it names, what is wrong with it, and what of it may be shown."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from promptq.contract.addresses import in_url

WITH_SENTINELS: Final = "+sentinel"
SCHEMES = ("redis", "rediss", "unix", f"redis{WITH_SENTINELS}", f"rediss{WITH_SENTINELS}")
_AUTHORITY = re.compile(r"[^/?#]*")


def check(url: str) -> None:
    """See that redis-py finds in the address what its writer meant.

    Raises:
        ValueError: it would not, and why; the text has nothing of the address in it.
    """
    if url.partition("://")[0] not in SCHEMES:
        raise ValueError("use redis://host:port/db, rediss://…, unix://path or redis+sentinel://host,host/db?service=…")
    for each in one_by_one(url):
        if (parts := _split(each)) is None or (has_sentinels(url) and not parts.hostname):
            raise ValueError("no host and port; in a password write / ? # @ as %2F %3F %23 %40")
        number = _database(parts)
        if number and not number.isdecimal():
            raise ValueError("the database, behind the host's / or as db=, is not a number")
        if has_sentinels(url) and not service_of(each):
            raise ValueError("say which service of the Sentinels it is: …/0?service=mymaster")


def has_sentinels(url: str) -> bool:
    """Whether the hosts are Sentinels, which tell where the server is."""
    return url.partition("://")[0].endswith(WITH_SENTINELS)


def one_by_one(url: str) -> list[str]:
    """Of Sentinels an address for each, as if it were a server's with all that follows; any other URL as it is."""
    scheme, _, rest = url.partition("://")
    if not has_sentinels(url):
        return [url]
    found = _AUTHORITY.match(rest)
    authority = found[0] if found else ""
    user, at, hosts = authority.rpartition("@")
    start, end = f"{scheme.removesuffix(WITH_SENTINELS)}://{user}{at}", rest[len(authority) :]
    return [f"{start}{host}{end}" for host in hosts.split(",")]


def service_of(url: str) -> str:
    """What the Sentinels call the server."""
    return parse_qs(urlsplit(url).query).get("service", [""])[0]


def database_of(url: str) -> int:
    """The number of the database, as redis-py reads it: `db=` in the query, else the path."""
    number = _database(urlsplit(one_by_one(url)[0]))
    return int(number) if number.isdecimal() else 0


def mask(url: str) -> str:
    """Where the server and the database are, and `***` for all that may be secret; what is no URL stays as it is."""
    scheme, found, _ = url.partition("://")
    if not found:
        return url
    split = [_split(each) for each in one_by_one(url)]
    parts = [each for each in split if each]
    if len(parts) < len(split):
        return f"{scheme}://***"
    secret = "***@" if "@" in parts[0].netloc else ""
    hosts = ",".join(map(_host, parts))
    service = f"?service={service_of(parts[0].geturl())}" if has_sentinels(url) else ""
    return f"{scheme}://{secret}{hosts}{_shown_database(parts[0])}{service}"


def _split(url: str) -> SplitResult | None:
    """The parts, or None where a piece of a password may have been taken for a host, a port or a path."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read, because a port that is none is found only then
    except ValueError:
        return None
    return None if "@" in url and "@" not in parts.netloc else parts


def _host(parts: SplitResult) -> str:
    if parts.scheme == "unix":
        return parts.path
    return in_url(parts.hostname or "") + (f":{parts.port}" if parts.port is not None else "")


def _shown_database(parts: SplitResult) -> str:
    number = _database(parts)
    if not number.isdecimal():
        return ""
    return f"?db={number}" if parts.scheme == "unix" else f"/{number}"


def _database(parts: SplitResult) -> str:
    in_query = parse_qs(parts.query).get("db", [])
    in_path = "" if parts.scheme == "unix" else parts.path.strip("/")
    return in_query[0] if in_query else in_path
