"""What is wrong with a server, by what it says of itself. Of servers that cannot be run here the words are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from promptq.contract.redis_server import Grade, ServerFacts, troubles

GOOD = {
    "redis_version": "7.2.4", "role": "master", "loading": 0, "cluster_enabled": 0, "maxmemory": 0,
    "maxmemory_policy": "noeviction", "aof_enabled": 1, "rdb_saves": 0, "rdb_last_bgsave_time_sec": -1,
}  # fmt: skip


def found(**changes: Any) -> list[tuple[str, str]]:
    info = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return [(trouble.grade.value, trouble.reason) for trouble in troubles(ServerFacts.from_info(info))]


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"redis_version": "6.2.0"}, {"redis_version": "8.0.1"}, {"redis_version": "7.9.225"},
        {"valkey_version": "8.1.0", "redis_version": "7.2.4"}, {"maxmemory": 10**9}, {"redis_version": "7.2-rc1"},
        {"redis_version": "unstable"},
    ],
)  # fmt: skip
def test_nothing_is_wrong_with_it(changes: dict[str, Any]) -> None:
    assert found(**changes) == []


@pytest.mark.parametrize("version", ["2.8.4", "5 or older", "5.0.7", "6.0.16", "6.1.240"])
def test_one_that_is_too_old_is_refused_by_its_version(version: str) -> None:
    ((grade, reason),) = found(redis_version=version)
    assert grade == "refused"
    assert f"Redis {version}" in reason
    assert "6.2" in reason


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_one_that_may_throw_away_jobs_is_refused(policy: str) -> None:
    ((grade, reason),) = found(maxmemory_policy=policy, maxmemory=100)
    assert (grade, policy in reason, "noeviction" in reason) == ("refused", True, True)
    assert [grade for grade, _ in found(maxmemory_policy=policy, maxmemory=None)] == ["refused"]


def test_without_a_limit_nothing_is_thrown_away_yet() -> None:
    ((grade, reason),) = found(maxmemory_policy="allkeys-lru")
    assert (grade, "if maxmemory" in reason) == ("warned", True)


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl"])
def test_one_that_may_throw_away_what_has_a_lifetime_is_warned_of(policy: str) -> None:
    """Jobs have one only after their end."""
    ((grade, reason),) = found(maxmemory_policy=policy, maxmemory=100)
    assert (grade, "Idempotency-Keys" in reason) == ("warned", True)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (ServerFacts(has_aof=False, has_snapshots=True), "snapshots only"),
        (ServerFacts(has_aof=False, has_snapshots=False), "nothing on disk"),
        (ServerFacts(has_aof=False), "no append-only file"),
        (ServerFacts(has_aof=None), "does not say whether"),
    ],
)
def test_what_a_crash_may_lose_is_warned_of(facts: ServerFacts, word: str) -> None:
    (trouble,) = troubles(replace(facts, version="7.2.4", policy="noeviction"))
    assert trouble.grade is Grade.WARNED
    assert word in trouble.reason


def test_a_disk_that_cannot_be_written_is_warned_of() -> None:
    failed = {"aof_last_write_status": "err", "rdb_last_bgsave_status": "err"}
    ((grade, reason),) = found(**failed)
    assert (grade, "aof_last_write_status: err" in reason) == ("warned", True)
    assert [reason for _, reason in found(**failed, aof_enabled=0) if "rdb_last_bgsave_status: err" in reason]
    assert found(rdb_last_bgsave_status="err") == []


@pytest.mark.parametrize(
    ("changes", "grade", "word"),
    [
        ({"cluster_enabled": 1}, "refused", "cluster"), ({"role": "slave"}, "away", "replica"),
        ({"loading": 1}, "away", "loading"),
    ],
)  # fmt: skip
def test_one_that_cannot_serve(changes: dict[str, Any], grade: str, word: str) -> None:
    ((found_grade, reason),) = found(**changes)
    assert found_grade == grade
    assert word in reason


def test_missing_rights_are_named_and_not_all_of_them() -> None:
    facts = replace(ServerFacts.from_info(GOOD), denied=[f"HSET {i}" for i in range(9)])
    (trouble,) = troubles(facts)
    assert trouble.grade is Grade.AWAY
    assert "HSET 0" in trouble.reason
    assert trouble.reason.endswith("HSET 4, ...")


def test_the_worst_comes_first() -> None:
    grades = [grade for grade, _ in found(aof_enabled=0, role="slave", redis_version="5.0.7")]
    assert grades == ["refused", "away", "warned"]


def test_what_a_server_does_not_say_is_no_reason_to_refuse_it() -> None:
    assert {grade for grade, _ in found(**dict.fromkeys(GOOD))} == {"warned"}
    assert len(found(**dict.fromkeys(GOOD))) == 1
    assert [grade for grade, _ in found(redis_version=None, maxmemory_policy=None, aof_enabled=None)] == ["warned"] * 3
