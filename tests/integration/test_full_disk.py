"""A full disk: what cannot be stored is refused, and nothing dies of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.disks import SmallDisk, can_mount, small_disk
from tests.integration.apis import Api, running
from tests.processes import start, wait_until, worker


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not can_mount():
        pytest.skip("a disk of its own can only be mounted by root, where mounting is allowed")
    with small_disk(tmp_path / "disk", 16) as disk:
        yield disk


@pytest.fixture
def crowded(disk: SmallDisk) -> Iterator[EmbeddedServer]:
    """A server whose file is on that disk, as with `promptq up`."""
    server = EmbeddedServer(disk.folder / "valkey").start()
    yield server
    disk.free()
    server.stop(kill=True)


def children(api: Api) -> set[int]:
    return {child.pid for child in psutil.Process(api.process.pid).children()}


def refuses(api: Api) -> bool:
    answer = api.submit("word " * 2000)
    return answer.status_code == 503 and "Redis refuses" in answer.json()["error"]["message"]


def test_submits_are_refused_reads_go_on_and_nobody_dies(disk: SmallDisk, crowded: EmbeddedServer) -> None:
    with running(crowded, disk.folder / "data") as api, worker(crowded, data_dir=disk.folder / "data"):
        job = api.submit("one two").json()["id"]
        wait_until(lambda: api.call("GET", f"/v1/jobs/{job}").json()["status"] == "succeeded")
        before = children(api)
        disk.fill()
        wait_until(lambda: refuses(api), 30, "the server to find that its disk is full")
        for path in ("/livez", f"/v1/jobs/{job}", "/metrics"):
            assert api.call("GET", path).status_code == 200, path
        # Values that nobody had counted yet, in each process: pages that were not written before.
        assert {api.call(method, "/nowhere").status_code for method in ("GET", "PUT", "DELETE") for _ in range(20)} == {
            404
        }
        assert children(api) == before
        disk.free()
        wait_until(lambda: api.submit("three").status_code == 202, 30, "the queue to take jobs again")


def test_a_process_that_starts_while_the_disk_is_full_serves(disk: SmallDisk, crowded: EmbeddedServer) -> None:
    with running(crowded, disk.folder / "data", api_processes=1) as api:
        disk.fill()
        (old,) = children(api)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: children(api) - {old} and api.lives(), 30, "another process")
        for _ in range(50):
            assert api.call("GET", "/nowhere").status_code == 404
        assert api.call("GET", "/metrics").status_code == 200
        assert len(children(api)) == 1


def test_what_killed_apis_left_is_removed_and_what_runs_is_not(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    with running(server, tmp_path, api_processes=1) as first:
        with running(server, tmp_path, api_processes=1) as second:
            for child in psutil.Process(second.process.pid).children():
                child.kill()
            second.process.kill()
            second.process.wait()
        left = {path.name for path in tmp_path.glob("metrics/api-*")}
        assert len(left) == 2
        with running(server, tmp_path, api_processes=1) as third:
            found = {path.name for path in tmp_path.glob("metrics/api-*")}
            assert {name.rpartition("-")[2] for name in found} == {str(first.process.pid), str(third.process.pid)}
            assert first.call("GET", "/metrics").status_code == 200


@pytest.mark.parametrize("program", ["gpu_worker", "scaler", "api"])
def test_a_folder_for_metrics_that_is_missing_is_no_matter(
    server: EmbeddedServer, client: redis.Redis, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    if program == "api":
        with running(server, tmp_path / "data", api_processes=1) as api:
            assert api.call("GET", "/metrics").status_code == 200
        return
    options = {"worker_name": "w1"} if program == "gpu_worker" else {"scaler_port": 0, "min_workers": 1}
    process = start(program, server, data_dir=tmp_path / "data", **options)
    try:
        with connect(server.url) as redis_client:
            wait_until(lambda: redis_client.smembers("rq:workers") or process.poll() is not None, 30)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def test_what_grows_past_its_file_on_a_full_disk_stays_in_memory(disk: SmallDisk, tmp_path: Path) -> None:
    """In a process of its own, as the values of prometheus_client are one module's."""
    program = """
import os, sys
from api import metric_files
metric_files.take_blocks_beforehand()
from prometheus_client import Counter
counter = Counter("many", "of them", ["kind"])
for number in range(200):
    counter.labels(f"before-{number}").inc()
print("ready", flush=True)
sys.stdin.readline()
for number in range(3000):
    counter.labels(f"after-{number}").inc()
print(counter.labels("before-7")._value.get(), counter.labels("after-2999")._value.get())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(disk.folder)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    disk.fill()
    out, _ = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, "1.0 1.0\n")
