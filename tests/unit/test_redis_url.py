"""The server's address: redis-py finds in it what was meant, and no secret of it is shown."""

from __future__ import annotations

from typing import Any

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


SENTINELS = [
    ("redis+sentinel://a/0?service=q", 0, "redis+sentinel://a/0?service=q"),
    ("redis+sentinel://u:s%2Fecret@a:1,[::1]:2,c/3?service=q", 3, "redis+sentinel://***@a:1,[::1]:2,c/3?service=q"),
    ("rediss+sentinel://a,b?db=4&service=q&sentinel_password=secret", 4, "rediss+sentinel://a,b/4?service=q"),
]


@pytest.mark.parametrize(("url", "database", "shown"), SENTINELS)
def test_sentinels_are_named_in_one_address(url: str, database: int, shown: str) -> None:
    check(url)
    assert (database_of(url), mask(url)) == (database, shown)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://a:1,b:2/0", "which service"), ("redis+sentinel://a/0/queue?service=q", "not a number"),
        ("redis+sentinel://a,/0?service=q", "no host"), ("redis+sentinel:///0?service=q", "no host"),
        ("redis+sentinel://u:se/cret@a,b/0?service=q", "no host"), ("redis+sentinel://a:x,b/0?service=q", "no host"),
    ],
)  # fmt: skip
def test_sentinels_that_would_be_misread_are_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(url)


def test_each_sentinel_is_asked_under_its_own_address_for_the_servers_own() -> None:
    pool: Any = connect(
        "rediss+sentinel://u:p%40@a,[::1]:2/3?service=q&sentinel_password=s&ssl_check_hostname=no"
    ).connection_pool
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [("a", 26379), ("::1", 2)]
    assert {(each["username"], each["password"], each["ssl_check_hostname"]) for each in asked} == {(None, "s", False)}
    own = pool.connection_kwargs
    assert (own["username"], own["password"], own["db"], own["ssl_check_hostname"]) == ("u", "p@", 3, False)
    assert pool.service_name == "q"


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
