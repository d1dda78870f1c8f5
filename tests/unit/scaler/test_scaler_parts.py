"""The scaler's small parts: rates, back-off, GPUs, targets, the reaper's rounds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from promptq.contract.settings import ScalerSettings
from promptq.queue.observe import WorkerRecord
from promptq.queue.store import Reaped
from scaler.__main__ import warn_of_retired
from scaler.allocation import Share
from scaler.backoff import STABLE_SECONDS, Backoff, is_stable
from scaler.fleets.base import Exit
from scaler.fleets.gpus import Gpu, Gpus, place
from scaler.metrics_server import GpuCollector, targets
from scaler.rates import Rate, Rates
from scaler.reaper import Reaper, reap
from scaler.reasons import Reason
from tests.processes import ROOT

GIB = 2**30


def test_a_rate_is_growth_by_time() -> None:
    rate = Rate()
    for second in range(10):
        rate.update(second * 5, second)
    assert rate.per_second == pytest.approx(5)


def test_a_rate_follows_a_change_in_about_ten_seconds() -> None:
    rate = Rate()
    for second in range(10):
        rate.update(0, second)
    for second in range(10, 20):
        rate.update((second - 9) * 10, second)
    assert 6 < rate.per_second < 7


def test_a_total_that_starts_anew_is_no_negative_rate() -> None:
    rate = Rate()
    for second, total in enumerate([10, 20, 0, 10]):
        rate.update(total, second)
    assert rate.per_second == pytest.approx(10)


def test_an_idle_time_does_not_lower_the_drain_rate() -> None:
    rates = Rates()
    for second in range(10):
        rates.update({"submitted": 4 * second, "succeeded": 3 * second, "failed": second}, True, second)
    for second in range(10, 100):
        rates.update({"submitted": 36, "succeeded": 27, "failed": 9}, False, second)
    assert rates.drain.per_second == pytest.approx(4)
    assert rates.arrivals.per_second < 0.01


def test_what_the_cache_answers_is_no_drain_and_no_arrival() -> None:
    rates = Rates()
    for second in range(10):
        totals = {"submitted": 104 * second, "hits": 100 * second, "succeeded": 104 * second}
        rates.update(totals, True, second)
    assert rates.drain.per_second == pytest.approx(4)
    assert rates.arrivals.per_second == pytest.approx(4)


def test_the_back_off_doubles_to_a_minute() -> None:
    backoff, now, delays = Backoff(), 100.0, []
    for _ in range(9):
        backoff.fail(now)
        delays.append(backoff.retry_at - now)
        now = backoff.retry_at
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_workers_that_crash_together_count_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.fail(100.0)
    assert (backoff.failures, backoff.retry_at) == (1, 101.0)


def test_after_a_crash_one_worker_probes_for_all() -> None:
    backoff = Backoff()
    assert backoff.room(3, 100.0) is None
    backoff.fail(100.0)
    assert [backoff.room(starting, now) for starting, now in [(0, 100.5), (0, 101.0), (1, 101.0)]] == [0, 1, 0]


def test_only_a_worker_spawned_after_the_crash_proves_that_it_is_over() -> None:
    backoff = Backoff()
    backoff.fail(100.0)
    backoff.proved(spawned_at=50.0)
    assert backoff.failures == 1
    backoff.proved(spawned_at=102.0)
    assert (backoff.failures, backoff.room(0, 100.0)) == (0, None)


@pytest.mark.parametrize(
    ("registered", "finished", "stable"),
    [(None, 0, False), (0.5, 0, False), (0.5, 1, True), (STABLE_SECONDS - 1, 0, False), (STABLE_SECONDS, 0, True)],
)
def test_a_worker_is_stable_once_it_has_worked_or_lasted(registered: float | None, finished: int, stable: bool) -> None:
    assert is_stable(registered, finished) is stable


def test_an_exit_reads_as_one_line() -> None:
    assert str(Exit("w", "engine", 4, "no model")) == "w exited with code 4 (engine): no model"
    assert str(Exit("w", "killed", -9, "")) == "w was ended by SIGKILL (killed)"


class FakeNvml:
    """Two GPUs; the first is fuller and says nothing of its utilization."""

    class NVMLError(Exception):
        """As in pynvml."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def nvmlInit(self) -> None:
        """Nothing to do."""

    def nvmlDeviceGetCount(self) -> int:
        if self.broken:
            raise self.NVMLError("lost")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=(4 - handle) * GIB, total=16 * GIB)

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}abc"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H100"

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        raise self.NVMLError("not supported")

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if handle == 0:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=40)


@pytest.mark.parametrize(
    ("allowed", "indices"),
    [(None, [0, 1]), ("", []), ("-1", []), ("1", [1]), ("0,1", [0, 1]), ("GPU-1a", [1]), ("GPU-1abc, 0", [0, 1])],
)
def test_the_users_choice_of_gpus_is_kept(allowed: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in Gpus(allowed, FakeNvml()).read()] == indices


def test_gpus_are_read_in_base_units() -> None:
    first, second = Gpus(None, FakeNvml()).read()
    assert (first.utilization, second.utilization) == (0.0, 0.4)
    assert (second.memory_used, second.memory_total, second.memory_free) == (3 * GIB, 16 * GIB, 13 * GIB)


def test_a_machine_without_nvml_has_no_gpus() -> None:
    assert Gpus().read() == []
    assert Gpus(None, FakeNvml(broken=True)).read() == []


def test_gpus_are_told_as_they_are_at_the_scrape() -> None:
    registry = CollectorRegistry()
    gpus = [Gpu(3, "a", 0.5, 7, 10)]
    registry.register(GpuCollector(lambda: gpus))
    gpus.append(Gpu(4, "b", 0.25, 1, 20))
    told = [
        [registry.get_sample_value(name, {"gpu": index}) for index in ("3", "4")]
        for name in ("promptq_gpu_utilization_ratio", "promptq_gpu_memory_used_bytes", "promptq_gpu_memory_total_bytes")
    ]
    assert told == [[0.5, 0.25], [7, 1], [10, 20]]


def test_workers_go_to_the_gpu_with_fewest_workers_and_most_memory() -> None:
    gpus = [Gpu(0, "a", 0, 5, 10), Gpu(1, "b", 0, 1, 10), Gpu(2, "c", 0, 2, 10)]
    used: list[str] = []
    for _ in range(4):
        used += [gpu.uuid for gpu in place(gpus, used)]
    assert used == ["b", "c", "a", "b"]
    assert [gpu.uuid for gpu in place(gpus, used, 2)] == ["c", "a"]
    assert place([], []) == []


def test_targets_name_each_worker_under_the_advertised_host() -> None:
    seen = [
        WorkerRecord("near", "idle", metrics_url="http://127.0.0.1:4001/metrics"),
        WorkerRecord("any", "busy", metrics_url="http://0.0.0.0:4002/metrics"),
        WorkerRecord("far", "busy", metrics_url="http://gpu7:4003/metrics"),
        WorkerRecord("foreign", "idle"),
    ]
    assert targets(seen, "scaler") == [
        {"targets": ["scaler:4001"], "labels": {"worker": "near"}},
        {"targets": ["scaler:4002"], "labels": {"worker": "any"}},
        {"targets": ["gpu7:4003"], "labels": {"worker": "far"}},
    ]
    assert targets([], "scaler") == []


def test_targets_have_ipv6_addresses_in_brackets_and_one_bad_record_hides_no_other() -> None:
    seen = [
        WorkerRecord("bad", "idle", metrics_url="http://::1:4000/metrics"),
        WorkerRecord("near", "idle", metrics_url="http://[::1]:4001/metrics"),
        WorkerRecord("any", "busy", metrics_url="http://[::]:4002/metrics"),
        WorkerRecord("far", "busy", metrics_url="http://[2001:db8::7]:4003/metrics"),
    ]
    found = {target["labels"]["worker"]: target["targets"] for target in targets(seen, "2001:db8::1")}
    assert found == {"near": ["[2001:db8::1]:4001"], "any": ["[2001:db8::1]:4002"], "far": ["[2001:db8::7]:4003"]}


class FakeStore:
    """A store whose reaper finds so many jobs."""

    def __init__(self, jobs: int = 0, uptime: float = 9999) -> None:
        self.jobs = jobs
        self.passes = 0
        self.uptime = uptime
        self.spared: list[bool] = []
        self.settings = scaler_settings(lease_seconds=10)

    def uptime_seconds(self) -> float:
        return self.uptime

    def reap(self, *, spare_leases: bool = False) -> Reaped:
        self.passes += 1
        self.spared.append(spare_leases)
        done = min(100, self.jobs)
        self.jobs -= done
        return Reaped(done, 0, 0, 0)


@pytest.mark.parametrize(("jobs", "passes"), [(0, 1), (99, 1), (100, 2), (250, 3)])
def test_the_reaper_goes_on_while_batches_are_full(jobs: int, passes: int) -> None:
    store = FakeStore(jobs)
    assert reap(store).requeued == jobs
    assert store.passes == passes


def test_after_an_outage_leases_are_spared_for_one_lease() -> None:
    reaper = Reaper(store := FakeStore())
    reaper.reap(100)
    reaper.note_outage()
    reaper.note_outage()
    for at in (150, 159, 160, 161):
        reaper.reap(at)
    assert store.spared == [False, True, True, False, False]


def test_a_server_that_has_just_started_counts_as_an_outage() -> None:
    reaper = Reaper(store := FakeStore(uptime=4))
    for at in (100, 105, 106):
        reaper.reap(at)
    assert store.spared == [True, True, False]


def scaler_settings(**fields: object) -> ScalerSettings:
    return ScalerSettings(_env_file=None, **fields)


@pytest.mark.parametrize("reason", [*Reason, *Share])
def test_every_reason_is_in_the_docs(reason: str) -> None:
    assert f"| `{reason}` |" in (ROOT / "docs/scaler.md").read_text()


def test_settings_of_the_earlier_policy_are_read_with_a_line_that_says_what_replaced_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROMPTQ_UP_DELAY_SECONDS", "2")
    monkeypatch.setenv("PROMPTQ_TARGET_JOBS_PER_WORKER", "5")
    assert ScalerSettings.load().target_jobs_per_worker == 5
    warn_of_retired()
    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in told] == ["PROMPTQ_TARGET_JOBS_PER_WORKER", "PROMPTQ_UP_DELAY_SECONDS"]
    assert "PROMPTQ_SLOTS" in told[0]
