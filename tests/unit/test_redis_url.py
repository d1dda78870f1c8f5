"""The server's address: redis-py finds in it what was meant, and no secret of it is shown."""

from __future__ import annotations

import pytest
from redis.connection import parse_url

from promptq.contract.errors import SettingsError
from promptq.contract.redis_url import check, database_of, mask
from promptq.queue.connection import connect

GOOD = [
    "redis://h/4", "redis://h:1/4?db=7", "redis://h", "redis://h/", "rediss://u:p@h/2", "unix:///a/4?db=3", "unix:///a/4",
]  # fmt: skip
AMBIGUOUS = [
    "redis://:my/secret@host", "redis://user:secret/x@host:1/0", "redis://12:34/secret@host", "redis://h/0?password=a@secret",
    "unix://:a/secret@/p", "unix:///p?password=a@secret", "redis://h:secret/0", "redis://h:70000/0", "redis://[secret/0",
]  # fmt: skip


@pytest.mark.parametrize("url", GOOD)
def test_the_database_is_what_redis_py_reads(url: str) -> None:
    check(url)
    assert database_of(url) == parse_url(url).get("db", 0)


MISREAD = ["http://h/0", "h:6379", "redis://h/abc", "redis://h/1/2", "redis://h?db=x", *AMBIGUOUS]


@pytest.mark.parametrize("url", MISREAD)
def test_an_address_that_would_be_misread_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"use redis://|no host and port|not a number") as caught:
        check(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@host:1/0", "redis://***@host:1/0"),
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://host:1/secret", "redis://host:1"),
        ("rediss://host/0?password=secret&ssl_keyfile=x", "rediss://host/0"),
        ("redis://:secret@[::1]:7/3", "redis://***@[::1]:7/3"),
        ("unix:///path?db=4&password=secret", "unix:///path?db=4"),
        ("unix://u:secret@/path", "unix://***@/path"),
        ("no URL", "no URL"),
        *((url, url.partition("://")[0] + "://***") for url in AMBIGUOUS),
    ],
)
def test_only_server_and_database_are_shown(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(SettingsError, match=r"PROMPTQ_REDIS_URL: unknown option 'timeout'"):
        connect("redis://:secret@h/0?timeout=3")
