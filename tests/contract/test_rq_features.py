"""What plain RQ can do with a queue, and what becomes of another RQ application beside us."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from rq import Queue, Worker
from rq.job import Job as RqJob
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from promptq.contract.errors import JobNotFound, SettingsError
from promptq.contract.job import Status
from promptq.contract.redis_server import Grade
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.rq_jobs import reap_rq
from promptq.queue.server_check import examine, look
from tests.fakes import NOW, TimedStore, failure, keys, places, submit, success, with_settings
from tests.processes import wait_until, worker

FUNCTION = "promptq.generate"


@pytest.fixture
def store(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    """On the real server alone, which RQ shares."""
    return TimedStore(client, settings)


@pytest.fixture
def queue(client: redis.Redis) -> Queue:
    return Queue("default", connection=client, serializer=JSONSerializer)


def fetch(store: TimedStore, job_id: str) -> RqJob:
    return RqJob.fetch(job_id, connection=store.client, serializer=JSONSerializer)


class TestForeignJobs:
    @pytest.fixture(params=["JSONSerializer", "pickle"])
    def foreign(self, request: pytest.FixtureRequest, client: redis.Redis) -> Queue:
        """The queue of another application, with either serializer."""
        serializer = {"serializer": JSONSerializer} if request.param == "JSONSerializer" else {}
        return Queue("default", connection=client, **serializer)

    def test_they_stay_where_they_are_and_as_they_are(self, store: TimedStore, foreign: Queue) -> None:
        theirs = [foreign.enqueue("their.function", number).id for number in range(3)]
        before = [store.client.hgetall(keys.job(job_id)) for job_id in theirs]
        ours = submit(store, cache=False).job.id
        assert [claim.id for claim in store.claim("w", 8)] == [ours]
        assert store.claim("w", 8) == []
        assert [job_id.decode() for job_id in store.client.lrange(keys.queue("default"), 0, -1)] == theirs
        after = [store.client.hgetall(keys.job(job_id)) for job_id in theirs]
        assert [fields | {b"calls": b"their.function"} for fields in before] == after

    def test_a_worker_runs_none_and_says_so(
        self, server: EmbeddedServer, store: TimedStore, foreign: Queue, tmp_path: Path
    ) -> None:
        target = tmp_path / "touched"
        theirs = foreign.enqueue("os.system", f"touch {target}")
        ours = submit(store, "one two", cache=False).job
        with worker(server):
            store.wake()
            wait_until(lambda: store.get(ours.id).status is Status.SUCCEEDED)
            wait_until(lambda: store.client.hget(keys.job(theirs.id), "calls") == b"os.system")
        assert foreign.job_ids == [theirs.id]
        assert theirs.get_status() == "queued"
        assert not target.exists()

    def test_those_that_are_for_us_are_claimed_from_between_them(self, store: TimedStore, queue: Queue) -> None:
        ids = [queue.enqueue(name, prompt="x").id for name in ("a.b", FUNCTION, "c.d", FUNCTION, "e.f")]
        assert [claim.id for claim in store.claim("w", 8)] == [ids[1], ids[3]]
        assert queue.job_ids == [ids[0], ids[2], ids[4]]

    def test_what_their_worker_runs_is_not_taken_back(self, store: TimedStore, queue: Queue) -> None:
        theirs = queue.enqueue("their.function")
        store.client.lrem(keys.queue("default"), 1, theirs.id)
        theirs.set_status("started")
        store.client.zadd(keys.wip("default"), {f"{theirs.id}:their-execution": time.time() + 60})
        assert store.reap().requeued == 0
        assert store.client.zcard(keys.wip("default")) == 1
        assert theirs.get_status() == "started"

    def test_nobody_can_cancel_or_retry_them_here(self, store: TimedStore, foreign: Queue) -> None:
        waiting, failed = (foreign.enqueue("their.function", number).id for number in range(2))
        store.claim("w", 8)
        store.client.hset(keys.job(failed), "status", "failed")
        for act, job_id in ((store.cancel, waiting), (store.retry, failed)):
            with pytest.raises(JobNotFound):
                act(job_id)

    def test_theirs_that_are_put_aside_stay_aside(self, store: TimedStore, foreign: Queue) -> None:
        first = foreign.enqueue("their.function")
        aside = [
            foreign.enqueue("their.function", depends_on=first),
            foreign.enqueue_in(timedelta(0), "their.function"),
        ]
        reap_rq(store)
        assert [job.get_status() for job in aside] == ["deferred", "scheduled"]


def test_beside_a_worker_of_another_application_nothing_starts(store: TimedStore, client: redis.Redis) -> None:
    theirs = Worker(["low"], connection=client, name="theirs")
    theirs.register_birth()
    (trouble,) = [each for each in look(client, keys) if each.grade is Grade.REFUSED]
    assert "worker theirs takes jobs from our queues" in trouble.reason
    with pytest.raises(SettingsError, match="PROMPTQ_KEY_PREFIX"):
        examine(client, keys)
    theirs.register_death()
    assert not any("another RQ application" in text for text in examine(client, keys))


def test_a_worker_of_another_application_on_its_own_queues_is_no_trouble(client: redis.Redis) -> None:
    Worker(["mails"], connection=client, name="theirs").register_birth()
    assert not any("another RQ application" in trouble.reason for trouble in look(client, keys))


def test_while_rq_is_suspended_nothing_is_claimed(store: TimedStore, client: redis.Redis) -> None:
    running, waiting = (submit(store, cache=False).job for _ in range(2))
    (claim,) = store.claim("w", 1, NOW)
    suspend(client)
    assert store.claim("w", 1, NOW) == []
    assert any("rq resume" in text for text in examine(client, keys))
    assert store.finish("w", [success(claim)], NOW) == [True]
    resume(client)
    assert [claim.id for claim in store.claim("w", 1, NOW)] == [waiting.id]
    assert store.get(running.id).status is Status.SUCCEEDED


def test_a_job_for_later_is_run_when_it_is_due(store: TimedStore, queue: Queue) -> None:
    job = queue.enqueue_in(timedelta(seconds=30), FUNCTION, prompt="later")
    now = time.time()
    store.at = now + 25
    reap_rq(store)
    assert (store.get(job.id).status, store.claim("w", 1, now + 25)) == (Status.QUEUED, [])
    store.at = now + 31
    reap_rq(store)
    (claim,) = store.claim("w", 1, now + 31)
    assert (claim.id, claim.kwargs) == (job.id, {"prompt": "later"})
    assert claim.waited_seconds < 1


def test_a_job_for_later_can_be_cancelled(store: TimedStore, queue: Queue) -> None:
    job = queue.enqueue_in(timedelta(seconds=30), FUNCTION, prompt="later")
    assert store.cancel(job.id) is Status.CANCELLED
    assert queue.scheduled_job_registry.count == 0


def test_jobs_that_depend_on_another_are_refused_with_the_reason(store: TimedStore, queue: Queue) -> None:
    """Before, five of them filled a bound of five for ever."""
    store = with_settings(store, max_queue_jobs=5)
    first = queue.enqueue(FUNCTION, prompt="first")
    dependent = [queue.enqueue(FUNCTION, prompt="then", depends_on=first) for _ in range(5)]
    reap_rq(store)
    for job in dependent:
        seen = store.get(job.id)
        assert (seen.status, places(store, job.id)) == (Status.FAILED, [keys.failed("default")])
        assert "depends_on" in seen.error.message
        assert "depends_on" in str(fetch(store, job.id).latest_result().exc_string)
    assert not list(store.client.scan_iter(keys.job("*:depend*")))
    assert [submit(store, str(number)).outcome for number in range(4)] == ["new"] * 4


@pytest.mark.parametrize(("result_ttl", "lifetime"), [(-1, {-1}), (0, {-2}), (60, {59, 60})])
def test_a_result_is_kept_as_long_as_rq_was_told(
    store: TimedStore, queue: Queue, result_ttl: int, lifetime: set[int]
) -> None:
    job = queue.enqueue(FUNCTION, prompt="x", result_ttl=result_ttl)
    store.finish("w", [success(claim) for claim in store.claim("w", 1)])
    assert store.client.ttl(keys.job(job.id)) in lifetime
    assert store.client.ttl(keys.results(job.id)) in lifetime
    if result_ttl == -1:
        store.reap(time.time() + 10 * 365 * 86400)
        assert queue.finished_job_registry.get_job_ids(cleanup=False) == [job.id]


def test_a_limit_that_rq_adds_to_our_job_is_none(store: TimedStore, queue: Queue) -> None:
    """`rq requeue` writes its default, which nobody asked for, on a job that had none."""
    job = submit(store).job
    store.finish("w", [failure(claim) for claim in store.claim("w", 1)])
    queue.failed_job_registry.requeue(job.id)
    assert fetch(store, job.id).timeout == 180
    (claim,) = store.claim("w", 1)
    assert (claim.id, claim.timeout_seconds) == (job.id, None)


def test_a_limit_of_a_job_that_rq_made_counts(store: TimedStore, queue: Queue) -> None:
    queue.enqueue(FUNCTION, prompt="x", job_timeout=7)
    assert [claim.timeout_seconds for claim in store.claim("w", 1)] == [7]


def test_an_id_that_rq_put_into_two_queues_is_claimed_once(store: TimedStore) -> None:
    job = submit(store).job
    store.client.rpush(keys.queue("low"), job.id)
    assert [claim.id for claim in store.claim("w", 8, NOW)] == [job.id]
    assert places(store, job.id) == [keys.wip("default")]
