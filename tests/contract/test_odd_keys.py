"""Keys that are not as our scripts write them: by a hand, by RQ's tools, by another program."""

from __future__ import annotations

import base64
import json

import pytest

from promptq.contract.job import Job, Status
from promptq.contract.settings import WorkerSettings
from tests.fakes import NOW, TimedStore, cancelled, failure, keys, new_job, submit, success


def test_a_member_of_the_registry_without_an_execution_keeps_nobody_from_being_taken_back(store: TimedStore) -> None:
    job = submit(store).job
    store.claim("w", 1, NOW)
    store.client.zadd(keys.wip("default"), {"bare-id": NOW})
    assert store.take_back("w", NOW).requeued == 1
    assert store.reap(NOW + 9999).requeued == 0
    assert store.get(job.id).status is Status.QUEUED


def test_a_key_that_is_no_job_keeps_no_job_from_being_read(store: TimedStore) -> None:
    job = submit(store).job
    store.finish("w", [success(claim) for claim in store.claim("w", 1, NOW)], NOW)
    store.client.set(keys.job("odd"), "x")
    store.client.delete(keys.results(job.id))
    store.client.set(keys.results(job.id), "no stream")
    seen, odd = store.get_many([job.id, "odd"])
    assert seen is not None
    assert (seen.status, seen.result, odd) == (Status.SUCCEEDED, None, None)


@pytest.mark.parametrize(
    "value", [[], {"usage": []}, {"model": "m", "usage": [], "output": {}, "timings": {}}, {"usage": {"a": 1}}, 7]
)
def test_what_another_program_returned_is_no_text(value: object) -> None:
    encoded = base64.b64encode(json.dumps(value).encode())
    fields = [b"finished", b"default", *[None] * 10]
    assert Job.from_fields("theirs", "model", fields, encoded).result is None


def test_a_group_whose_jobs_are_gone_goes_too(store: TimedStore) -> None:
    """RQ's tools delete jobs without asking us; a field for each would stay for ever."""
    for number in range(50):
        job = submit(store, str(number)).job
        store.client.delete(keys.job(job.id))
    for _ in range(30):
        store.reap(NOW)
    assert store.client.hlen(keys.groups()) == 0


def test_who_joined_far_behind_others_is_led_too(client, settings: WorkerSettings) -> None:
    """More wait for healthy leaders than a pass looks at."""
    store = TimedStore(client, settings.model_copy(update={"max_queue_jobs": 20_000}))
    submit(store, "healthy")
    store.submit_many([new_job("healthy") for _ in range(300)], NOW)
    leader, stuck = submit(store, "orphaned", now=NOW + 1).job, submit(store, "orphaned", now=NOW + 1).job
    store.client.delete(keys.job(leader.id))
    for _ in range(20):
        store.reap(NOW + 2)
    assert store.get(stuck.id).cache == "miss"


def test_a_pass_of_the_reaper_writes_no_group_that_is_as_it_should_be(client, settings: WorkerSettings) -> None:
    store = TimedStore(client, settings.model_copy(update={"max_queue_jobs": 20_000}))
    store.submit_many([new_job("same") for _ in range(200)], NOW)
    client.config_resetstat()
    store.reap(NOW)
    calls = client.info("commandstats")
    assert "cmdstat_hset" not in calls
    assert calls["cmdstat_hget"]["calls"] < 10


def test_a_cancelled_job_is_not_counted_as_its_worker_s_success(store: TimedStore) -> None:
    store.client.hset(keys.worker("w"), "state", "busy")
    for number in range(3):
        submit(store, str(number), cache=False)
    how = (success, failure, cancelled)
    claims = store.claim("w", 3, NOW)
    store.finish("w", [ending(claim) for ending, claim in zip(how, claims, strict=True)], NOW)
    counts = store.client.hmget(keys.worker("w"), "successful_job_count", "failed_job_count")
    assert counts == [b"1", b"1"]
