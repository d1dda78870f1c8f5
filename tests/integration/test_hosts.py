"""A worker that somebody starts by hand, beside a scaler that counts it and leaves it alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from promptq.contract.environment import child_environment
from promptq.queue.draining import drain_worker
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.scalers import all_succeed, put, scaler
from tests.processes import ROOT, wait_until


@pytest.fixture
def host(server: EmbeddedServer) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "promptq", "worker", "--redis", server.url, "--name", "gpu-host-0"]
    settings = {"PROMPTQ_ENGINE": "echo", "PROMPTQ_ECHO_TOKENS_PER_SECOND": "0", "PROMPTQ_SLOTS": "8"}
    process = subprocess.Popen(command, env=child_environment(**settings), cwd=ROOT)
    yield process
    process.kill()
    process.wait()


def test_a_worker_of_another_host_is_counted_and_drained_by_name_and_never_killed(
    server: EmbeddedServer, store: TimedStore, host: subprocess.Popen[bytes]
) -> None:
    wait_until(lambda: store.client.exists(store.keys.worker("gpu-host-0")), 60, "the host's worker to join")
    with scaler(server, lease_seconds=15) as running:
        all_succeed(store, put(store, 20))
        wait_until(running.observer.fleet, 30, "the scaler to have looked")
        assert running.workers() == {"gpu-host-0"}
        (pool,) = running.observer.fleet().pools
        assert (pool.workers, pool.others, pool.wanted) == (0, 1, 0)
        drain_worker(store, "gpu-host-0")
        assert host.wait(10) == 0
        (own,) = running.has(1)
        drain_worker(store, own)
        wait_until(lambda: own not in running.workers(), 30, "its own to end")
        assert running.has(1) != {own}
