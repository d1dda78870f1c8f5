"""What the queue's server must be like: what it says of itself in, what is wrong with it out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

LEAST_VERSION = (6, 2)
DENIED_SHOWN = 5


class Grade(StrEnum):
    """What follows from a trouble."""

    REFUSED = "refused"
    """Jobs would be lost, or nothing would work, until somebody sets it up otherwise."""
    AWAY = "away"
    """It cannot serve now; it, or the name that leads to it, may become better by itself."""
    WARNED = "warned"
    """It works, and somebody should know."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong; `reason` is said after "the server"."""

    grade: Grade
    reason: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself; None or empty for what it does not say.

    Attributes:
        version: of Redis, or the one that it is compatible with.
        maxmemory: bytes; 0: no limit.
        has_aof: whether it keeps an append-only file.
        has_snapshots: whether it writes snapshots by itself.
        failed_write: what INFO calls the last write to disk, if that failed.
        denied: commands that we need and may not call, each with a key or channel.
        is_suspended: whether `rq suspend` is in force.
        foreign_workers: names of workers of another RQ application that take jobs from our queues.
    """

    version: str = ""
    name: str = "Redis"
    is_replica: bool = False
    is_loading: bool = False
    is_cluster: bool = False
    maxmemory: int | None = None
    policy: str = ""
    has_aof: bool | None = None
    has_snapshots: bool | None = None
    failed_write: str = ""
    denied: Sequence[str] = ()
    is_suspended: bool = False
    foreign_workers: Sequence[str] = ()

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Self:
        """From the reply to INFO, which has other fields in other versions and in servers that only resemble Redis."""
        valkey = info.get("valkey_version")
        aof, maxmemory = info.get("aof_enabled"), info.get("maxmemory")
        return cls(
            version=str(info.get("redis_version", "")),
            name=f"Valkey {valkey}" if valkey else "Redis",
            is_replica=info.get("role") in ("slave", "replica"),
            is_loading=bool(info.get("loading", 0)),
            is_cluster=bool(info.get("cluster_enabled", 0)),
            maxmemory=None if maxmemory is None else int(maxmemory),
            policy=str(info.get("maxmemory_policy", "")),
            has_aof=None if aof is None else bool(aof),
            has_snapshots=_has_made_snapshots(info) or None,
            failed_write=_failed_write(info),
        )


def troubles(facts: ServerFacts) -> list[Trouble]:
    """What is wrong with the server, the worst first."""
    if facts == ServerFacts():
        needs = "Redis 6.2, no cluster mode, maxmemory-policy noeviction, appendonly yes"
        return [Trouble(Grade.WARNED, f"does not say how it is set up (INFO); promptq needs {needs}")]
    found = [*_kind(facts), *_eviction(facts), *_persistence(facts), *_rq(facts)]
    return sorted(found, key=lambda trouble: list(Grade).index(trouble.grade))


def _kind(facts: ServerFacts) -> Iterator[Trouble]:
    if _is_old(facts.version):
        reason = f"is {facts.name} {facts.version}; promptq needs Redis 6.2 or later, or Valkey"
        yield Trouble(Grade.REFUSED, reason)
    if facts.is_cluster:
        reason = "is in cluster mode (cluster_enabled), where a script may not change the keys of a job and its queue"
        yield Trouble(Grade.REFUSED, f"{reason} together; promptq needs one without")
    if facts.is_replica:
        yield Trouble(Grade.AWAY, "is a replica, which takes no writes; the address must lead to the primary")
    if facts.is_loading:
        yield Trouble(Grade.AWAY, "is still loading its data")
    if facts.denied:
        shown = ", ".join(facts.denied[:DENIED_SHOWN]) + (", ..." if len(facts.denied) > DENIED_SHOWN else "")
        yield Trouble(Grade.AWAY, f"does not give this user the right to (ACL): {shown}")
    if not facts.version:
        yield Trouble(Grade.WARNED, "does not say its version; promptq needs Redis 6.2 or later")


def _eviction(facts: ServerFacts) -> Iterator[Trouble]:
    """What waits or runs has no lifetime, so only allkeys-* throws it away; what has ended and may be asked for has."""
    policy = f"has maxmemory-policy {facts.policy}"
    if facts.policy.startswith("allkeys-") and facts.maxmemory != 0:
        reason = f"{policy}: when it is full it throws away acknowledged jobs; set noeviction"
        yield Trouble(Grade.REFUSED, reason)
    elif facts.policy.startswith("allkeys-"):
        reason = f"{policy}: it would throw away acknowledged jobs if maxmemory were set; set noeviction"
        yield Trouble(Grade.WARNED, reason)
    elif facts.policy.startswith("volatile-"):
        reason = "when it is full it throws away results and Idempotency-Keys before their time; set noeviction"
        yield Trouble(Grade.WARNED, f"{policy}: {reason}")
    elif not facts.policy:
        yield Trouble(Grade.WARNED, "does not say its maxmemory-policy; it must be noeviction")


def _persistence(facts: ServerFacts) -> Iterator[Trouble]:
    if facts.failed_write:
        reason = f"could not write to its disk ({facts.failed_write}): a crash now loses what was acknowledged since"
        yield Trouble(Grade.WARNED, f"{reason}, and it may refuse jobs")
    if facts.has_aof:
        return
    if facts.has_aof is None:
        reason = "does not say whether it keeps an append-only file, without which a crash loses acknowledged jobs"
    elif facts.has_snapshots:
        reason = "keeps snapshots only: a crash loses what was acknowledged since the last; set appendonly yes"
    elif facts.has_snapshots is None:
        reason = "keeps no append-only file: a crash loses acknowledged jobs; set appendonly yes"
    else:
        reason = "keeps nothing on disk: its restart loses every job; set appendonly yes"
    yield Trouble(Grade.WARNED, reason)


def _rq(facts: ServerFacts) -> Iterator[Trouble]:
    if facts.foreign_workers:
        theirs = facts.foreign_workers[0]
        reason = f"is used by another RQ application, whose worker {theirs} takes jobs from our queues"
        yield Trouble(Grade.REFUSED, f"{reason}; give it or promptq a database or a PROMPTQ_KEY_PREFIX of its own")
    if facts.is_suspended:
        yield Trouble(Grade.WARNED, "has `rq suspend` in force: no job is claimed until `rq resume`")


def _failed_write(info: Mapping[str, Any]) -> str:
    """A snapshot that failed is of no matter beside an append-only file."""
    name = "aof_last_write_status" if info.get("aof_enabled") else "rdb_last_bgsave_status"
    return f"{name}: {info[name]}" if info.get(name, "ok") != "ok" else ""


def _is_old(version: str) -> bool:
    """A version that is no number is nobody's release."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return numbers is not None and tuple(map(int, numbers[0].split("."))) < LEAST_VERSION


def _has_made_snapshots(info: Mapping[str, Any]) -> bool:
    """A server that has never made one may still be set up to."""
    return int(info.get("rdb_saves", 0)) > 0 or int(info.get("rdb_last_bgsave_time_sec", -1)) >= 0
