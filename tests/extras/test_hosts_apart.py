"""API, Redis and two worker hosts, each with an address of its own; one is cut off for longer than its lease."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import requests

from promptq.contract.job import Status
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import SAFE_OPTIONS, find_binary
from promptq.queue.observe import Observer
from promptq.queue.store import JobStore, connect
from tests.clocks import Clock, can_shift_clocks
from tests.fakes import SETTINGS
from tests.network_hosts import Network, cannot
from tests.processes import wait_until

pytestmark = [pytest.mark.skipif(bool(why := cannot()), reason=why), pytest.mark.timeout(600)]
JOBS = 200
LEASE = 3.0
HOUR = 3600.0
SLOW_SECONDS = 120.0


class Site:
    """The service on four hosts: `redis`, `api` (with the scaler, which starts nobody), `one` and `two`."""

    def __init__(self, network: Network, folder: Path, offset: float = 0.0) -> None:
        self.network = network
        self._folder = folder
        self.addresses = {name: self.network.add(name) for name in ("redis", "api", "one", "two")}
        self.url = f"redis://{self.addresses['redis']}:6379/0"
        self.api = f"http://{self.addresses['api']}:8000"
        self.common = {"redis_url": self.url, "engine": "echo", "lease_seconds": LEASE, "data_dir": folder}
        bind = ("--bind", self.addresses["redis"], "--protected-mode", "no", "--dir", str(folder))
        self.network.run("redis", [find_binary(), *SAFE_OPTIONS, *bind])
        self.client = connect(self.url, 5.0)
        wait_until(self._answers, SLOW_SECONDS, "the server")
        self.store = JobStore(self.client, WorkerSettings(_env_file=None, engine="echo"))
        self.observer = Observer(self.client, self.store.settings)
        self.network.program(
            "api", "api", api_host=self.addresses["api"], allow_open_bind=True, api_processes=1, **self.common
        )
        clock = Clock(folder, "two", offset).environment if offset else {}
        for name in ("one", "two"):
            self.worker(name, clock if name == "two" else {})
        wait_until(lambda: len(self.observer.workers()) == 2, SLOW_SECONDS, "both workers")
        # It counts the two hosts' workers, which are enough, and starts none.
        self.network.program(
            "api", "scaler", min_workers=2, target_jobs_per_worker=1000, target_wait_seconds=1000, **self.common
        )
        wait_until(self._is_up, SLOW_SECONDS, "the API")
        wait_until(self.observer.fleet, SLOW_SECONDS, "the scaler")

    def worker(self, name: str, clock: dict[str, str]) -> None:
        settings = self.common | {"slots": 8, "echo_tokens_per_second": 20}
        del settings["redis_url"]
        module = ("promptq", "worker", "--redis", self.url, "--name", f"host-{name}")
        self.network.program(name, *module, clock=clock, worker_metrics_host=self.addresses[name], **settings)

    def finished(self) -> int:
        return int(self.client.hget(SETTINGS.keys.totals(), "succeeded") or 0)

    def expired(self) -> int:
        return int(self.client.hget(SETTINGS.keys.totals(), "lease_expiries") or 0)

    def jobs_of(self, name: str) -> int:
        return next((one.jobs_finished for one in self.observer.workers() if one.name == f"host-{name}"), 0)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def _is_up(self) -> bool:
        try:
            return requests.get(f"{self.api}/livez", timeout=5).ok
        except requests.RequestException:
            return False


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    if getattr(request, "param", 0.0) and not can_shift_clocks():
        pytest.skip("no compiler (cc) for the library that shifts clocks")
    network = Network()
    try:
        yield Site(network, tmp_path, getattr(request, "param", 0.0))
    finally:
        network.close()


def text_of(number: int) -> str:
    return " ".join(f"job{number}word{word}" for word in range(20))


@pytest.mark.parametrize("site", [0.0, HOUR], indirect=True, ids=["same_clocks", "one_an_hour_ahead"])
def test_a_host_that_is_cut_off_for_longer_than_its_lease_loses_and_doubles_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    bodies = [{"prompt": text_of(number), "cache": False} for number in range(JOBS)]
    ids = [requests.post(f"{site.api}/v1/jobs", json=body, timeout=30).json()["id"] for body in bodies]
    wait_until(lambda: site.jobs_of("one") and site.jobs_of("two"), SLOW_SECONDS, "both to work")
    site.network.cut("one")
    before = site.finished()
    wait_until(site.expired, SLOW_SECONDS, "a lease to end")
    time.sleep(LEASE)
    site.network.join("one")
    joined, at_join = time.monotonic(), site.jobs_of("one")
    wait_until(lambda: site.jobs_of("one") > at_join or site.finished() == JOBS, SLOW_SECONDS, "it to work again")
    wait_until(lambda: site.finished() == JOBS, SLOW_SECONDS, "all jobs")
    jobs = [site.store.get(job) for job in ids]
    assert [job.status for job in jobs] == [Status.SUCCEEDED] * JOBS
    assert [job.result.text for job in jobs] == [text_of(number) for number in range(JOBS)]
    assert {site.client.xlen(SETTINGS.keys.results(job)) for job in ids} == {1}
    assert site.finished() == JOBS
    expired = site.expired()
    assert 0 < expired <= 2 * 8, "its rows, and those of a claim that was under way"
    assert before < JOBS
    attempts = [job.attempts for job in jobs]
    assert attempts.count(1) == JOBS - expired
    assert {worker.name for worker in site.observer.workers()} == {"host-one", "host-two"}
    fleet = site.observer.fleet()
    assert (fleet.pools[0].workers, fleet.pools[0].others) == (0, 2)
    with capsys.disabled():
        print(
            f"\n{JOBS} jobs in {time.monotonic() - started:.1f} s: {before} done when host-one was cut off, {expired} "
            f"leases ended, {attempts.count(2)} jobs run twice, host-one ended {site.jobs_of('one') - at_join} more "
            f"after it had joined again (looked at for {time.monotonic() - joined:.1f} s)"
        )
