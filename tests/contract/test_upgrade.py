"""Jobs that version 0.1 left in Redis: a dump of its keys, restored, and what this version makes of it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
import redis

from promptq.contract.job import Status
from promptq.contract.keys import FORMAT
from promptq.contract.queues import PRIORITIES
from promptq.contract.settings import WorkerSettings
from promptq.queue.records import NewJob
from promptq.queue.upgrade import upgrade
from scaler.housekeeping import Housekeeping
from tests.fakes import TimedStore, keys, new_job, success

DUMP = json.loads((Path(__file__).parents[1] / "data/keys-0.1.json").read_text())
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def old(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    """A server as 0.1 left it, its lifetimes begun anew."""
    for name, (lifetime_ms, payload) in DUMP.items():
        client.restore(name, lifetime_ms, base64.b64decode(payload), replace=True)
    return TimedStore(client, settings)


def test_every_waiting_job_keeps_what_it_was_submitted_with(old: TimedStore) -> None:
    assert upgrade(old) == 5
    # What plain RQ made is looked at first, and claimed the next time.
    claims = {claim.id: claim for claim in [*old.claim("w", 20), *old.claim("w", 20)]}
    assert claims.keys() == {"plain", "limited", "expiring", "owned", "byrq"}
    limits = {job_id: claim.timeout_seconds for job_id, claim in claims.items()}
    assert limits == {"plain": None, "limited": 7.5, "expiring": None, "owned": 9.0, "byrq": 44.0}
    assert claims["limited"].context.request_id == "r-limited"
    assert claims["limited"].context.traceparent == TRACEPARENT
    assert claims["plain"].context.request_id == "r-plain"
    assert claims["plain"].kwargs == {"prompt": "nothing unusual"}
    assert not any(claim.refusal for claim in claims.values())
    assert old.get("owned").owner == "alice"


def test_a_job_that_had_joined_gets_its_leaders_text_or_leads_itself(old: TimedStore) -> None:
    upgrade(old)
    (limited,) = [claim for claim in old.claim("w", 20) if claim.id == "limited"]
    assert old.get("joined").status is Status.QUEUED
    old.finish("w", [success(limited, "shared")])
    joined = old.get("joined")
    assert joined.result is not None
    assert (joined.status, joined.result.text, joined.cache) == (Status.SUCCEEDED, "shared", "join")


def test_a_group_that_a_new_api_made_before_takes_the_old_one_in(
    old: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_key = (old.client.hget(keys.job("limited"), "cache_key") or b"").decode()
    assert cache_key
    monkeypatch.setattr(NewJob, "cache_key", lambda *_: cache_key)
    old.submit_many([new_job("twin", job_id="twin")])
    upgrade(old)
    claims = {claim.id: claim for claim in old.claim("w", 20)}
    old.finish("w", [success(claims["limited"], "its own"), success(claims["twin"], "shared")])
    joined = old.get("joined")
    assert joined.result is not None
    assert (joined.status, joined.result.text) == (Status.SUCCEEDED, "shared")


def test_what_ran_on_a_worker_that_is_gone_runs_again_with_its_limit(old: TimedStore) -> None:
    upgrade(old)
    assert old.take_back("w-old").requeued == 1
    (again,) = [claim for claim in old.claim("w", 20) if claim.id == "running"]
    assert (again.attempts, again.timeout_seconds, again.context.request_id) == (2, 33.0, "r-running")


def test_ended_jobs_and_deadlines_are_as_they_were(old: TimedStore) -> None:
    upgrade(old)
    for job_id in ("done", "hit"):
        job = old.get(job_id)
        assert job.result is not None
        assert (job.status, job.result.text) == (Status.SUCCEEDED, "text")
    assert old.reap(float(old.client.zscore(keys.expiry(), "expiring") or 0) + 1).expired == 1
    assert old.get("expiring").status is Status.EXPIRED


def test_nothing_of_the_old_form_is_left_and_once_more_changes_nothing(old: TimedStore) -> None:
    upgrade(old)
    left = [key.decode() for key in old.client.scan_iter("*") if re.match(rb"promptq:(leaders|join)", key)]
    assert left == []
    for key in old.client.scan_iter(keys.job("*")):
        assert not {b"timeout_seconds", b"traceparent", b"request_id"} & old.client.hgetall(key).keys()
    assert old.client.get(keys.format()) == FORMAT.encode()
    assert upgrade(old) == 0


def test_data_that_cannot_be_read_is_left_to_be_refused(old: TimedStore) -> None:
    old.client.hset(keys.job("limited"), "data", "no call")
    assert upgrade(old) == 4
    (limited,) = [claim for claim in old.claim("w", 20) if claim.id == "limited"]
    assert limited.refusal is not None


def test_what_had_failed_keeps_its_limit_for_a_retry(old: TimedStore) -> None:
    key = keys.job("limited")
    old.client.hset(key, "status", "failed")
    old.client.zrem(keys.deferred("default"), "limited")
    for queue in PRIORITIES:
        old.client.lrem(keys.queue(queue), 0, "limited")
    old.client.zadd(keys.failed("default"), {"limited": 4e9})
    upgrade(old)
    old.retry("limited")
    (limited,) = [claim for claim in old.claim("w", 20) if claim.id == "limited"]
    assert limited.timeout_seconds == 7.5


def test_a_deployment_with_a_prefix_leaves_an_old_one_its_groups(old: TimedStore, settings: WorkerSettings) -> None:
    upgrade(TimedStore(old.client, settings.model_copy(update={"key_prefix": "other:"})))
    assert old.client.exists("promptq:leaders") == 1
    upgrade(old)
    assert old.client.exists("promptq:leaders") == 0


def test_the_scaler_upgrades_before_it_reaps(old: TimedStore) -> None:
    Housekeeping(old).run(0.0)
    assert old.client.get(keys.format()) == FORMAT.encode()


def test_a_job_whose_limit_cannot_be_read_keeps_nobody_from_being_upgraded(old: TimedStore) -> None:
    old.client.hset(keys.job("limited"), "timeout_seconds", "soon")
    assert upgrade(old) == 4
    assert old.client.get(keys.format()) == FORMAT.encode()
