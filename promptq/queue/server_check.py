"""Looks whether the queue's server can be trusted with jobs. Changes nothing in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any, Final

import redis

from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.contract.keys import Keys
from promptq.contract.queues import PRIORITIES
from promptq.contract.redis_server import Grade, ServerFacts, Trouble, troubles
from promptq.queue.connection import answering
from promptq.queue.tls import is_unverified

log = logging.getLogger(__name__)

OWN_COMMANDS: Final = (
    "DEL", "EVALSHA", "EXEC", "EXISTS", "EXPIRE", "GET", "HDEL", "HEXISTS", "HGET", "HGETALL", "HLEN", "HMGET", "HSET",
    "INFO", "LINDEX", "LLEN", "LRANGE", "MULTI", "PING", "SADD", "SCAN", "SCRIPT", "SET", "SMEMBERS", "SREM",
    "SUNION", "TIME", "TTL", "WATCH", "XRANGE",
    "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZRANK", "ZREVRANGEBYSCORE", "ZREVRANK",
)  # fmt: skip
"""What is called outside of scripts, by a key or by none."""
LIMITS_COMMANDS: Final = ("INCRBY", "PTTL", "RENAME")
"""What the scripts of `limits` call beside, which counts the requests of API keys."""
CHANNEL_COMMANDS: Final = ("PUBLISH", "SUBSCRIBE")
UNVERIFIED: Final = (
    "PROMPTQ_REDIS_URL has the server's certificate or its name unchecked: whoever is between can read and change all."
)
# The check came with Redis 7; an older server says so with the first call that it denies. It looks for a command's keys
# without counting the arguments, and where there are too few the server crashes: so one is given again and again.
_FIND_DENIED = """
local denied = {}
for i = 1, redis.acl_check_cmd and #ARGV or 0, 2 do
  local command, on = ARGV[i], ARGV[i + 1]
  if not redis.acl_check_cmd(command, on, on, on, on, on) then denied[#denied + 1] = command .. ' ' .. on end
end
return denied
"""


def look(client: redis.Redis, keys: Keys) -> list[Trouble]:
    """What is wrong with the server, the worst first.

    Raises:
        RedisUnavailable: it does not answer, or refuses.
    """
    with answering():
        facts = _read(client)
        found = troubles(facts)
        if any(trouble.grade is not Grade.WARNED for trouble in found):
            return found  # it would not even answer everything that is asked about rights
        facts = replace(facts, denied=_denied(client, keys))
        return troubles(facts if facts.denied else _with_rq(client, keys, facts))


def examine(client: redis.Redis, keys: Keys) -> list[str]:
    """What should be otherwise with a server that can be used.

    Raises:
        SettingsError: it must not be used as it is set up.
        RedisUnavailable: it cannot be used now.
    """
    found = look(client, keys)
    for trouble in found:
        if trouble.grade is Grade.REFUSED:
            raise SettingsError(f"PROMPTQ_REDIS_URL: the server {trouble.reason}", param="PROMPTQ_REDIS_URL")
        if trouble.grade is Grade.AWAY:
            raise RedisUnavailable(f"the server {trouble.reason}", "cannot be used")
    told = [f"The server of PROMPTQ_REDIS_URL {trouble.reason}." for trouble in found]
    return [UNVERIFIED, *told] if is_unverified(client.connection_pool.connection_kwargs) else told


def check_at_start(client: redis.Redis, keys: Keys) -> None:
    """Log what should be otherwise. A server that is away is waited for by whoever starts, so it is logged too.

    Raises:
        SettingsError: the server must not be used as it is set up.
    """
    try:
        with client:
            found = examine(client, keys)
    except RedisUnavailable as error:
        found = [error.message]
    for text in found:
        log.warning("%s", text)


def needed(keys: Keys) -> Iterator[tuple[str, str]]:
    """Every command that promptq calls, with a key or channel of those that it calls it for."""
    for command in sorted({*OWN_COMMANDS, *LIMITS_COMMANDS, *_script_commands()}):
        yield (command, "LOAD") if command == "SCRIPT" else (command, keys.job())
    yield "HSET", keys.totals()
    for command in CHANNEL_COMMANDS:
        for channel in (keys.done_channel, keys.wake_channel, keys.cancel_channel):
            yield command, channel


def _read(client: redis.Redis) -> ServerFacts:
    try:
        info: Any = client.info()
    except redis.ResponseError as error:
        if "unknown command" not in str(error):
            raise
        # Every connection begins with HELLO, which came with Redis 6; a proxy may know no INFO.
        return ServerFacts(version="5 or older") if "HELLO" in str(error).upper() else ServerFacts()
    facts = ServerFacts.from_info(info)
    return facts if facts.has_aof else replace(facts, has_snapshots=_has_snapshots(client, facts))


def _has_snapshots(client: redis.Redis, facts: ServerFacts) -> bool | None:
    """INFO does not say it, and who rents a server may not ask for its configuration."""
    try:
        settings: Mapping[str, str] = client.config_get("save")  # type: ignore[assignment]
    except redis.ResponseError:
        return facts.has_snapshots
    return bool(settings.get("save"))


def _denied(client: redis.Redis, keys: Keys) -> list[str]:
    arguments = [word for call in needed(keys) for word in call]
    found: Any = client.register_script(_FIND_DENIED)(args=arguments)
    return [call.decode() for call in found]


def _with_rq(client: redis.Redis, keys: Keys, facts: ServerFacts) -> ServerFacts:
    with client.pipeline(transaction=False) as pipe:
        pipe.exists(keys.suspended())
        for priority in PRIORITIES:
            pipe.smembers(keys.workers_of(priority))
        is_suspended, *members = pipe.execute()
    foreign = sorted(key for key in set().union(*members) if _is_foreign(client, key))
    return replace(facts, is_suspended=bool(is_suspended), foreign_workers=list(map(keys.worker.suffix_of, foreign)))


def _is_foreign(client: redis.Redis, worker_key: bytes) -> bool:
    """Of a live worker, whether it is none of ours: those say where their metrics are."""
    metrics_url, birth, death = client.hmget(worker_key, "metrics_url", "birth", "death")
    return birth is not None and death is None and metrics_url is None


@cache
def _script_commands() -> frozenset[str]:
    """What our own scripts call."""
    texts = [file.read_text(encoding="utf-8") for file in (resources.files("promptq.queue") / "lua").iterdir()]
    called = {name for text in texts for name in re.findall(r"call\('([A-Z]+)'", text)}
    return frozenset(called.difference(CHANNEL_COMMANDS))
