"""The address of the queue's server: what it names, what is wrong with it, and what of it may be shown."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, urlsplit

from promptq.contract.addresses import in_url

SCHEMES = ("redis", "rediss", "unix")


def check(url: str) -> None:
    """See that redis-py finds in the address what its writer meant.

    Raises:
        ValueError: it would not, and why; the text has nothing of the address in it.
    """
    if url.partition("://")[0] not in SCHEMES:
        raise ValueError("use redis://host:port/db, rediss://… or unix://path")
    if (parts := _split(url)) is None:
        raise ValueError("no host and port; in a password write / ? # @ as %2F %3F %23 %40")
    number = _database(parts)
    if number and not number.isdecimal():
        raise ValueError("the database, behind the host's / or as db=, is not a number")


def database_of(url: str) -> int:
    """The number of the database, as redis-py reads it: `db=` in the query, else the path."""
    number = _database(urlsplit(url))
    return int(number) if number.isdecimal() else 0


def mask(url: str) -> str:
    """Where the server and the database are, and `***` for all that may be secret; what is no URL stays as it is."""
    scheme, found, _ = url.partition("://")
    if not found:
        return url
    parts = _split(url)
    if parts is None:
        return f"{scheme}://***"
    secret = "***@" if "@" in parts.netloc else ""
    return f"{scheme}://{secret}{_place(parts)}"


def _split(url: str) -> SplitResult | None:
    """The parts, or None where a piece of a password may have been taken for a host, a port or a path."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read, because a port that is none is found only then
    except ValueError:
        return None
    return None if "@" in url and "@" not in parts.netloc else parts


def _place(parts: SplitResult) -> str:
    number, host = _database(parts), parts.hostname or ""
    shown = number if number.isdecimal() else ""
    if parts.scheme == "unix":
        return parts.path + (f"?db={shown}" if shown else "")
    port = f":{parts.port}" if parts.port is not None else ""
    return in_url(host) + port + (f"/{shown}" if shown else "")


def _database(parts: SplitResult) -> str:
    in_query = parse_qs(parts.query).get("db", [])
    in_path = "" if parts.scheme == "unix" else parts.path.strip("/")
    return in_query[0] if in_query else in_path
