"""A real worker process against a real server: woken, drained, stopped, killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
import urllib.request

import pytest
import redis

from promptq.contract.exit_codes import ExitCode
from promptq.contract.job import Job, Status
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.observe import Observer
from tests.fakes import SETTINGS, TimedStore, keys, submit
from tests.processes import start, wait_until, worker

SLOW = {"echo_tokens_per_second": 5}
NEVER = {"echo_tokens_per_second": 0.001}
SHORT_LEASE = {"lease_seconds": 1}


def put(store: TimedStore, prompt: str = "one two three", **fields: object) -> Job:
    return submit(store, prompt, now=time.time(), cache=False, **fields).job


def reaches(store: TimedStore, job: Job, status: Status, seconds: float = 30) -> Job:
    return wait_until(lambda: (seen := store.get(job.id)).status is status and seen, seconds, f"{job.id} {status}")


@pytest.fixture
def short(client: redis.Redis, store: TimedStore) -> TimedStore:
    """The store with the short lease that the test's workers have."""
    return TimedStore(client, store.settings.model_copy(update=SHORT_LEASE))


def test_an_idle_worker_is_woken_by_the_submit(server: EmbeddedServer, store: TimedStore) -> None:
    with worker(server, lease_seconds=600, echo_tokens_per_second=0):
        time.sleep(0.5)
        waits = []
        for _ in range(20):
            seen = reaches(store, put(store), Status.SUCCEEDED)
            assert seen.result is not None
            waits.append(seen.result.queue_seconds)
    assert sorted(waits)[10] < 0.25


def test_rows_run_together_and_each_keeps_its_own_parameters(server: EmbeddedServer, store: TimedStore) -> None:
    jobs = [put(store, "a b c d e f", max_tokens=1 + i % 6) for i in range(12)]
    with worker(server, echo_tokens_per_second=20, slots=8):
        done = [reaches(store, job, Status.SUCCEEDED) for job in jobs]
    assert [len(job.result.text.split()) for job in done] == [1 + i % 6 for i in range(12)]
    assert max(job.result.batch_size for job in done) == 8


def test_a_worker_that_is_told_to_stop_while_it_starts_ends_at_once(
    server: EmbeddedServer, capfd: pytest.CaptureFixture[str]
) -> None:
    process, said = start("gpu_worker", server, echo_start_seconds=600), []

    def starts() -> bool:
        said.append(capfd.readouterr().err)
        return "the start takes 600 s" in "".join(said)

    try:
        wait_until(starts, 60, "the start")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == ExitCode.OK
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("mode", "largest"), [("off", 1), ("static", 4)])
def test_other_batching_modes(server: EmbeddedServer, store: TimedStore, mode: str, largest: int) -> None:
    jobs = [put(store, "a b", max_tokens=2) for _ in range(4)]
    with worker(server, batching=mode, slots=4, echo_tokens_per_second=50):
        done = [reaches(store, job, Status.SUCCEEDED) for job in jobs]
    assert max(job.result.batch_size for job in done) == largest


def test_a_killed_workers_jobs_are_run_by_another(server: EmbeddedServer, short: TimedStore) -> None:
    with worker(server, "doomed", **NEVER, **SHORT_LEASE) as process:
        job = put(short)
        reaches(short, job, Status.RUNNING)
        process.kill()
    killed = time.monotonic()
    with worker(server, "heir", **SHORT_LEASE):
        wait_until(lambda: short.reap(time.time()).requeued)
        recovery = time.monotonic() - killed
        seen = reaches(short, job, Status.SUCCEEDED)
    assert (seen.attempts, seen.result.text) == (2, "one two three")
    assert recovery < 1 + 3


def test_a_paused_worker_is_fenced_off(server: EmbeddedServer, short: TimedStore) -> None:
    with worker(server, "paused", **SLOW, **SHORT_LEASE) as process:
        job = put(short)
        reaches(short, job, Status.RUNNING)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: short.reap(time.time()).requeued)
        with worker(server, "other", **SHORT_LEASE):
            seen = reaches(short, job, Status.SUCCEEDED)
            process.send_signal(signal.SIGCONT)
            time.sleep(1.5)
        again = short.get(job.id)
        assert (again, again.attempts) == (seen, 2)
        reaches(short, put(short, "still alive"), Status.SUCCEEDED)


def test_a_worker_that_gets_its_own_job_back_goes_on_with_it(server: EmbeddedServer, short: TimedStore) -> None:
    with worker(server, "paused", **SLOW, **SHORT_LEASE) as process:
        job = put(short)
        reaches(short, job, Status.RUNNING)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: short.reap(time.time()).requeued)
        process.send_signal(signal.SIGCONT)
        seen = reaches(short, job, Status.SUCCEEDED)
        assert seen.result.text == "one two three"
        reaches(short, put(short, "still alive"), Status.SUCCEEDED)


def test_after_sigterm_the_next_worker_goes_on_at_the_same_token(
    server: EmbeddedServer, client: redis.Redis, store: TimedStore
) -> None:
    words = " ".join(map(str, range(20)))
    with worker(server, slots=2, checkpoint_seconds=0, **SLOW) as process:
        jobs = [put(store, words) for _ in range(3)]
        # A claimed job runs in Redis's eyes before its row is in the engine.
        wait_until(lambda: [seen.busy_slots for seen in Observer(client, SETTINGS).workers()] == [2], what="both rows")
        time.sleep(0.7)
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == ExitCode.OK
        assert time.monotonic() - asked < 2
    assert Observer(client, SETTINGS).workers() == []
    assert [store.get(job.id).attempts for job in jobs] == [0, 0, 0]
    kept = [sum(map(len, entries_of(client, job.id))) for job in jobs]
    with worker(server, slots=2, echo_tokens_per_second=1000):
        results = [reaches(store, job, Status.SUCCEEDED).result for job in jobs]
    assert [result.text for result in results] == [words] * 3
    assert [(result.completion_tokens, result.moves, result.resumed_tokens) for result in results] == [
        (20, 1, kept[0]), (20, 1, kept[1]), (20, 0, 0),
    ]  # fmt: skip
    assert kept[0] > 0
    assert kept[2] == 0


def test_after_sigkill_the_next_worker_goes_on_where_the_last_checkpoint_was(
    server: EmbeddedServer, client: redis.Redis, short: TimedStore
) -> None:
    words = " ".join(map(str, range(30)))
    with worker(server, checkpoint_seconds=0.2, **SLOW, **SHORT_LEASE) as process:
        job = put(short, words)
        wait_until(lambda: len(entries_of(client, job.id)) >= 2, what="two checkpoints")
        process.kill()
        process.wait(10)
    kept = sum(map(len, entries_of(client, job.id)))
    wait_until(lambda: short.reap(time.time()).requeued)
    with worker(server, echo_tokens_per_second=1000):
        result = reaches(short, job, Status.SUCCEEDED).result
    assert (result.text, result.completion_tokens, result.moves) == (words, 30, 1)
    assert 2 <= result.resumed_tokens == kept


def entries_of(client: redis.Redis, job_id: str) -> list[list[bytes]]:
    """The token ids of each entry of a job's progress."""
    return [values[b"tokens"].split() for _, values in client.xrange(SETTINGS.keys.progress(job_id))]


def test_what_a_drain_puts_back_is_first_in_line(server: EmbeddedServer, store: TimedStore) -> None:
    with worker(server, slots=2, **NEVER) as process:
        jobs = [put(store) for _ in range(3)]
        reaches(store, jobs[1], Status.RUNNING)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == ExitCode.OK
    claims = store.claim("next", 3, time.time())
    assert [claim.id for claim in claims] == [job.id for job in jobs]
    assert [claim.attempts for claim in claims] == [1, 1, 1]


def test_a_second_signal_kills(server: EmbeddedServer, store: TimedStore) -> None:
    with worker(server, **NEVER) as process:
        reaches(store, put(store), Status.RUNNING)
        store.client.client_pause(4000)  # a drain takes no longer than its words with Redis
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == ExitCode.KILLED


def test_a_running_job_is_cancelled_with_its_partial_text(server: EmbeddedServer, store: TimedStore) -> None:
    with worker(server, lease_seconds=600, **SLOW):
        job = put(store, "word " * 50)
        wait_until(lambda: reaches(store, job, Status.RUNNING))
        time.sleep(1)
        store.cancel(job.id, time.time())
        asked = time.monotonic()
        seen = reaches(store, job, Status.CANCELLED)
    assert time.monotonic() - asked < 2
    assert 1 <= seen.result.completion_tokens < 50
    assert seen.result.text.startswith("word")


def test_a_run_over_its_time_limit_fails_and_keeps_its_text(server: EmbeddedServer, store: TimedStore) -> None:
    with worker(server, **SLOW):
        seen = reaches(store, put(store, "word " * 50, timeout_seconds=1.0), Status.FAILED)
    assert seen.error.type == "timeout"
    assert seen.result.text.startswith("word")


def test_redis_stopped_and_started_again_loses_nothing(own_server: EmbeddedServer, store: TimedStore) -> None:
    from promptq.queue.store import connect

    store = TimedStore(connect(own_server.url), store.settings)
    with worker(own_server, **SLOW) as process:
        jobs = [put(store, "word " * 6) for _ in range(3)]
        reaches(store, jobs[2], Status.RUNNING)
        own_server.stop()
        time.sleep(2)  # longer than the jobs take: their ends cannot be told
        own_server.start()
        for job in jobs:
            assert reaches(store, job, Status.SUCCEEDED).attempts == 1
        reaches(store, put(store), Status.SUCCEEDED)
        assert process.poll() is None
        assert [seen.name for seen in Observer(store.client, store.settings).workers()] == ["w1"]


def test_a_wrong_setting_ends_with_one_line(server: EmbeddedServer) -> None:
    process = start("gpu_worker", server, slots=0)
    assert process.wait(30) == ExitCode.SETTINGS


def test_a_metrics_port_in_use_ends_with_one_line(server: EmbeddedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start("gpu_worker", server, worker_metrics_port=taken.getsockname()[1])
        assert process.wait(30) == ExitCode.SETTINGS


def test_a_name_is_used_once(server: EmbeddedServer, client: redis.Redis) -> None:
    with worker(server, "twin"):
        assert start("gpu_worker", server, worker_name="twin").wait(30) == ExitCode.SETTINGS


def test_no_redis_is_said_in_one_line() -> None:
    class Nowhere:
        url = "redis://127.0.0.1:1/0"

    process = start("gpu_worker", Nowhere())
    assert process.wait(30) == ExitCode.REDIS_UNAVAILABLE


def test_the_worker_exports_its_metrics(server: EmbeddedServer, client: redis.Redis, store: TimedStore) -> None:
    with worker(server):
        for _ in range(3):
            reaches(store, put(store), Status.SUCCEEDED)
        (record,) = Observer(client, SETTINGS).workers()
        with urllib.request.urlopen(record.metrics_url, timeout=5) as answer:
            shown = answer.read().decode()
    assert 'promptq_jobs_finished_total{model="echo",status="succeeded"} 3.0' in shown
    assert 'promptq_tokens_total{model="echo",type="completion"} 9.0' in shown
    assert 'promptq_draft_tokens_total{model="echo",outcome="right"} 0.0' in shown
    assert 'promptq_prompt_tokens_reused_total{model="echo"} 0.0' in shown
    for name in (
        "promptq_job_queue_wait_seconds", "promptq_job_duration_seconds", "promptq_time_to_first_token_seconds",
        "promptq_inter_token_latency_seconds", "promptq_batch_size", "promptq_decode_step_seconds",
    ):  # fmt: skip
        assert f"{name}_count" in shown, name
    assert client.hget(keys.worker("w1"), "successful_job_count") == b"3"


def test_the_worker_says_what_it_runs(server: EmbeddedServer, client: redis.Redis) -> None:
    with worker(server, slots=5):
        (record,) = Observer(client, SETTINGS).workers()
        assert (record.model, record.slots, record.state) == ("echo", 5, "idle")
        assert isinstance(record.pid, int)
        assert subprocess.run(["kill", "-0", str(record.pid)], check=False).returncode == 0
