"""promptq on a real Ray cluster: three nodes on this machine, which come and go. Skipped where Ray is not installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed here: make .venvs/ray/.installed")

from promptq.contract.job import Status  # noqa: E402
from promptq.queue.embedded import EmbeddedServer  # noqa: E402
from tests.extras.ray_clusters import add_node, start_cluster  # noqa: E402
from tests.fakes import TimedStore, submit  # noqa: E402
from tests.integration.apis import running as running_api  # noqa: E402
from tests.integration.scalers import Scaler, scaler  # noqa: E402
from tests.integration.streams import Stream, blocks  # noqa: E402
from tests.processes import ROOT, wait_until  # noqa: E402

pytestmark = pytest.mark.timeout(900)
JOBS = 500
SLOW_SECONDS = 240.0
"""Six actors start in seconds, unless the machine is busy with other things."""
API_PYTHON = ROOT / ".venv/bin/python"
ON_RAY = {
    "fleet": "ray", "min_workers": 0, "max_workers": 6, "slots": 4, "target_jobs_per_worker": 4, "lease_seconds": 15,
    "tick_seconds": 0.2, "zero_delay_seconds": 3, "down_window_seconds": 2, "least_stay_seconds": 0,
}  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without room, and three nodes for two workers each."""
    made = start_cluster(3, 2)
    yield made
    made.shutdown()


@pytest.fixture
def run(server: EmbeddedServer, store: TimedStore, cluster: Any) -> Iterator[Callable[..., Scaler]]:
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(scaler(server, ray_address=cluster.address, **ON_RAY | more))


def text_of(number: int) -> str:
    return " ".join(f"job{number}word{word}" for word in range(20))


def processes(node: Any) -> list[psutil.Process]:
    """Of a node: its raylet, Ray's workers, and ours."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def power_off(cluster: Any, node: Any) -> None:
    """Everything on it ends at once, and nothing says goodbye."""
    for process in processes(node):
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


def finished(store: TimedStore) -> int:
    return int(store.client.hget(store.keys.totals(), "succeeded") or 0)


def test_five_hundred_jobs_survive_a_node_that_goes_and_a_scale_from_zero_to_six_and_back(
    run: Callable[..., Scaler], store: TimedStore, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    ids = [submit(store, text_of(number), cache=False).job.id for number in range(JOBS)]
    running = run(echo_tokens_per_second=20)
    wait_until(lambda: len(running.workers()) == 6, SLOW_SECONDS, "six workers")
    six_after = time.monotonic() - started
    wait_until(lambda: finished(store) >= JOBS // 5, SLOW_SECONDS, "a fifth of the jobs")
    gone = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0]
    pids = {process.pid for process in processes(gone)}
    lost = {worker.name for worker in running.observer.workers() if worker.pid in pids}
    power_off(cluster, gone)
    removed = time.monotonic()
    wait_until(lambda: not lost & running.workers(), SLOW_SECONDS, "the lost workers to be forgotten")
    seen_after = time.monotonic() - removed
    record = wait_until(lambda: waits(running), SLOW_SECONDS, "workers that wait for room")
    add_node(cluster, 2)
    wait_until(lambda: finished(store) == JOBS, SLOW_SECONDS, "all jobs")
    done_after = time.monotonic() - started
    wait_until(lambda: not running.workers() and not pools(running), SLOW_SECONDS, "no workers")
    jobs = [store.get(job) for job in ids]
    assert [job.status for job in jobs] == [Status.SUCCEEDED] * JOBS
    assert [job.result.text for job in jobs] == [text_of(number) for number in range(JOBS)]
    assert {store.client.xlen(store.keys.results(job)) for job in ids} == {1}
    assert len(lost) == 2
    assert all("it needs 1 CPU, and 0 CPU is free" in why for why in record.values())
    decisions = running.decisions()
    assert decisions["up", "from_zero"] == 1
    assert decisions["down", "to_zero"] == 1
    assert running.value('promptq_worker_exits_total{reason="node_lost"}') == 2
    assert running.value("promptq_lease_expiries_total") == 0
    attempts = [job.attempts for job in jobs]
    with capsys.disabled():
        print(
            f"\n{JOBS} jobs: six workers after {six_after:.1f} s; node off: {len(lost)} workers, forgotten after "
            f"{seen_after:.2f} s; all done after {done_after:.1f} s; run twice: {attempts.count(2)}; decisions: "
            f"{ {key: count for key, count in decisions.items() if count} }"
        )


def pools(running: Scaler) -> int:
    """How many workers there are or come, by what the scaler says."""
    fleet = running.observer.fleet()
    return sum(pool.workers for pool in fleet.pools) if fleet else 0


def waits(running: Scaler) -> dict[str, str]:
    fleet = running.observer.fleet()
    return dict(fleet.waits) if fleet else {}


def test_a_watched_stream_from_a_node_that_goes_goes_on(
    run: Callable[..., Scaler], server: EmbeddedServer, store: TimedStore, cluster: Any, tmp_path: Path
) -> None:
    if not API_PYTHON.exists():
        pytest.skip("the API needs .venv")
    words = " ".join(f"wörd{number}" for number in range(60))
    run(echo_tokens_per_second=5, min_workers=2, checkpoint_seconds=1)
    with running_api(server, tmp_path, 1, python=API_PYTHON) as api:
        job_id = submit(store, words, cache=False).job.id
        wait_until(lambda: store.get(job_id).status is Status.RUNNING, SLOW_SECONDS, "the job to run")
        response = api.call("GET", f"/v1/jobs/{job_id}/events", stream=True)
        stream, reader = Stream(), None
        reader = Thread(target=lambda: stream.add_all(blocks(response)))
        reader.start()
        wait_until(lambda: len(stream.text) > 80, SLOW_SECONDS, "a few words")
        holder = store.client.hget(store.keys.job(job_id), "worker_name").decode()
        power_off(cluster, node_of(cluster, store, holder))
        reader.join(SLOW_SECONDS)
    assert stream.text == words
    assert "reset" not in stream.names
    assert stream.names[-1] == "end"
    assert store.get(job_id).attempts == 2


def taken_over(running: Scaler) -> bool:
    fleet = running.observer.fleet()
    return bool(fleet and fleet.leader.endswith(f"-{running.process.pid}") and fleet.pools[0].workers == 1)


def node_of(cluster: Any, store: TimedStore, name: str) -> Any:
    pid = int(store.client.hget(store.keys.worker(name), "pid"))
    return next(node for node in cluster.worker_nodes if pid in {process.pid for process in processes(node)})


def test_the_next_scaler_takes_the_workers_over(
    run: Callable[..., Scaler], server: EmbeddedServer, store: TimedStore, cluster: Any
) -> None:
    with scaler(server, ray_address=cluster.address, **ON_RAY | {"min_workers": 1}) as first:
        (worker,) = wait_until(first.workers, SLOW_SECONDS, "a worker")
    second = run(min_workers=1)
    wait_until(lambda: taken_over(second), SLOW_SECONDS, "the next scaler to have it")
    job = submit(store, "still here", cache=False).job.id
    wait_until(lambda: store.get(job).status is Status.SUCCEEDED, SLOW_SECONDS)
    assert second.workers() == {worker}
    (target,) = json.loads(second.get("/targets"))
    assert target["targets"][0].startswith(f"{cluster.head_node.node_ip_address}:")
