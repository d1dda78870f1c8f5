"""A server that is down, or has too much to do, costs no job."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from promptq.contract.job import Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from tests.fakes import TimedStore, submit
from tests.faulty_server import faulty, stream, text
from tests.integration.upstreams import models_file, store_of, upstream, worker_before
from tests.processes import wait_until
from tests.upstream_outage import outage


def near(client: redis.Redis, models: Path) -> TimedStore:
    return store_of(client, models_file=str(models))


def test_a_server_that_is_killed_under_load_costs_no_job() -> None:
    figures = outage(jobs=60, kills=1, down_seconds=2.0)
    print(figures)
    assert (figures.ends, figures.wrong_texts) == ({"succeeded": 60}, 0)
    assert figures.requeued["requeued:upstream"] > 0, "the server was tried while it was down"
    assert set(figures.attempts) <= {1, 2}
    assert "next try with a job in" in figures.troubles[0]


@pytest.mark.parametrize("slots", [8, "auto"])
def test_a_server_that_takes_few_costs_no_job(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path, slots: int | str
) -> None:
    """It runs two at a time and lets two wait; more get 429."""
    with upstream(tmp_path, slots=2, pace=40.0, max_queue_jobs=2) as far:
        models = models_file(tmp_path, far.url, {"max_retry_seconds": 1.0}, slots=slots)
        store = near(client, models)
        with worker_before(server, models):
            ids = [submit(store, f"a b c d {number}", now=time.time(), cache=False).job.id for number in range(30)]
            wait_until(lambda: all(store.get(job_id).status.is_terminal for job_id in ids), 90, "the ends")
            jobs = store.get_many(ids)
    assert {(job.status, job.attempts) for job in jobs} == {(Status.SUCCEEDED, 1)}
    assert [job.result.text for job in jobs] == [f"a b c d {number}" for number in range(30)]
    totals = Observer(store.client, store.settings).totals()
    assert totals["requeued:upstream"] > 0
    assert "requeued:upstream_lost" not in totals


def test_a_text_that_breaks_off_each_time_fails_its_job_and_says_why(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    with faulty(stream(text("some"))) as far:
        models = models_file(tmp_path, far.url, {"max_retry_seconds": 0.1})
        store = near(client, models)
        with worker_before(server, models):
            job_id = submit(store, now=time.time(), cache=False).job.id
            job = wait_until(lambda: (job := store.get(job_id)).status.is_terminal and job, 30)
    assert (job.status, job.error.type, job.attempts) == (Status.FAILED, "upstream_lost", 3)
    assert "the stream ended before the text did" in job.error.message
    assert len(far.bodies) == 3


def test_while_a_server_is_down_jobs_wait_in_the_queue_where_they_can_be_cancelled(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    models = models_file(tmp_path, "http://127.0.0.1:9/v1")
    store = near(client, models)
    with worker_before(server, models):
        ids = [submit(store, now=time.time(), cache=False).job.id for _ in range(30)]
        wait_until(lambda: Observer(store.client, store.settings).workers()[0].trouble, what="trouble")
        wait_until(lambda: sum(store.get(job_id).status is Status.QUEUED for job_id in ids) >= 29, what="their return")
        store.cancel(ids[-1])
        assert store.get(ids[-1]).status is Status.CANCELLED
