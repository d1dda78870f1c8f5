"""The scenarios: what is asked of the service, where it is made to fail, and what may come of it at most.

Each is small and ends in seconds: one moment of a crash, chosen by a failpoint. What several faults do together,
`python -m tests.chaos` and `python -m tests.batch_chaos` look for at random.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from promptq.contract.job import Status
from promptq.queue.batches import BatchRecords
from tests.chaos.calls import Calls, UploadedBatch
from tests.chaos.rig import CHECKPOINT_SECONDS, WORDS_PER_SECOND, Rig
from tests.chaos.told import Told
from tests.chaos.work import WORDS, Batch, ExpiredFile, Jobs, ReadJobs, Work

WORKER, SCALER = "tests.chaos.witness_worker", "tests.chaos.witness_scaler"
END_SECONDS: Final = 300.0
"""On a machine that has much else to do; by itself a scenario takes a few seconds."""
ONE_CHECKPOINT: Final = round(2 * CHECKPOINT_SECONDS * WORDS_PER_SECOND)
"""Tokens: those of an interval, of the time until the next look, and some for a machine that is busy elsewhere."""
ONE_FLUSH: Final = 4
"""Tokens of a row that somebody reads, as above."""
Disturb = Callable[[Rig, Work], None]


@dataclass(frozen=True)
class Scenario:
    """One of them.

    Attributes:
        work: makes what is asked for.
        failpoints: by program, of its first process.
        programs: that run, by name, with their modules.
        disturb: what happens beside failpoints, once the work has been asked for.
        crashes: how often a program must have died, or the scenario has shown nothing.
        most_doubled: tokens of a job that may be generated twice.
        most_attempts: that a job may have had.
        quick: is among those that every test run makes.
    """

    name: str
    work: Callable[[], Work]
    failpoints: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=lambda: {"worker": WORKER})
    disturb: Disturb = lambda _rig, _work: None
    crashes: int = 1
    most_doubled: int = 0
    most_attempts: int = 2
    quick: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def _runs(rig: Rig, work: Work) -> None:
    """Until the jobs of a work run."""
    assert isinstance(work, Jobs)
    first = work.ids[0]
    assert rig.wait(lambda: rig.store.get(first).status is Status.RUNNING, END_SECONDS), "no job runs"
    time.sleep(0.3)


def drain(rig: Rig, work: Work) -> None:
    """A worker is told to go while all its slots are taken; another one comes."""
    _runs(rig, work)
    rig.retire("worker")
    rig.start("worker-2", WORKER)


def drain_and_die(rig: Rig, work: Work) -> None:
    """A worker that its failpoint kills while it drains."""
    _runs(rig, work)
    rig.signal("worker", signal.SIGTERM)


def urgent(rig: Rig, work: Work) -> None:
    """A more urgent job comes while all slots are taken."""
    _runs(rig, work)
    assert isinstance(work, Jobs)
    work.add(rig, 1000, priority="high")


def kill_worker(rig: Rig, work: Work) -> None:
    """SIGKILL, wherever the worker is."""
    _runs(rig, work)
    rig.signal("worker", signal.SIGKILL)


def kill_redis(rig: Rig, work: Work) -> None:
    """Redis dies, and comes back with what its file has."""
    _runs(rig, work)
    rig.server.stop(kill=True)
    rig.server.start()


def second_worker(rig: Rig, work: Work) -> None:
    """Another worker comes, once the first one has claimed."""
    _runs(rig, work)
    rig.start("worker-2", WORKER)


def stop_dispatcher(rig: Rig, work: Work) -> None:
    """A dispatcher is stopped between a part and its commit, until another one holds its batch."""
    assert isinstance(work, Batch)
    assert rig.wait(lambda: "dispatcher.part_written" in rig.sprung(), END_SECONDS), "nothing was written"
    rig.signal("dispatcher", signal.SIGSTOP)
    lease = rig.store.keys.lease(f"batch:{work.id}")
    before = rig.store.client.get(lease)
    rig.start("dispatcher-2", "dispatcher", lease_seconds=1)
    rig.wait(lambda: rig.store.client.get(lease) not in (before, None), END_SECONDS)
    rig.signal("dispatcher", signal.SIGCONT)


def retry_cancelled(rig: Rig, work: Work) -> None:
    """A batch is cancelled before any of it has run, and then all of its lines are to run again."""
    assert isinstance(work, Batch)
    batches = BatchRecords(rig.store)

    def has(status: str) -> bool:
        record = batches.get(work.id)
        return record is not None and record.status == status

    assert rig.wait(lambda: has("in_progress"), END_SECONDS), "nobody runs the batch"
    batches.cancel(work.id)
    assert rig.wait(lambda: has("cancelled"), END_SECONDS), "it is not cancelled"
    record = batches.get(work.id)
    assert record
    assert batches.retry(record, "*") == "done"
    rig.start("worker", WORKER)


def _worker(name: str, trap: str, work: Callable[[], Work] = Jobs, **fields: Any) -> Scenario:
    return Scenario(name, work, {"worker": trap}, **fields)


def _scaler(name: str, trap: str, **fields: Any) -> Scenario:
    return Scenario(name, Jobs, {"scaler": trap}, {"scaler": SCALER}, settings={"lease_seconds": 2}, **fields)


def _dispatcher(name: str, trap: str, work: Callable[[], Work] = Batch, **fields: Any) -> Scenario:
    programs = {"dispatcher": "dispatcher", "worker": WORKER}
    settings = {"echo_tokens_per_second": 0, "slots": 16}
    return Scenario(name, work, {"dispatcher": trap}, programs, settings=settings, **fields)


def _api(name: str, trap: str, work: Callable[[], Work], **fields: Any) -> Scenario:
    programs = {"api": "api", "worker": WORKER, **fields.pop("more", {})}
    return Scenario(name, work, {"api": trap}, programs, settings={"echo_tokens_per_second": 0}, **fields)


SCENARIOS: Final[tuple[Scenario, ...]] = (
    # A worker dies.
    _worker("worker-claimed", "worker.claimed=kill"),
    _worker("worker-started", "worker.started=kill"),
    _worker("worker-stepped", "worker.stepped=kill@15", most_doubled=ONE_CHECKPOINT, quick=True),
    _worker("worker-progress-sending", "worker.progress_sending=kill@2", most_doubled=ONE_CHECKPOINT),
    _worker("worker-progress-kept", "worker.progress_kept=kill@2", most_doubled=ONE_FLUSH),
    _worker("worker-finished", "worker.finished=kill", most_doubled=ONE_CHECKPOINT),
    _worker("worker-stored", "worker.stored=kill", quick=True),
    _worker("worker-read-stepped", "worker.stepped=kill@20", ReadJobs, most_doubled=ONE_FLUSH, quick=True),
    _worker("worker-read-kept", "worker.progress_kept=kill@20", ReadJobs, most_doubled=ONE_FLUSH),
    Scenario("worker-killed", Jobs, disturb=kill_worker, most_doubled=ONE_CHECKPOINT),
    Scenario("worker-killed-without-checkpoints", Jobs, disturb=kill_worker, most_doubled=WORDS,
             settings={"checkpoint_seconds": 0}),
    # A worker goes, in order or not.
    Scenario("drain", lambda: Jobs(4), disturb=drain, crashes=0, most_attempts=1, quick=True),
    Scenario("drain-without-checkpoints", lambda: Jobs(4), disturb=drain, crashes=0, most_attempts=1,
             settings={"checkpoint_seconds": 0}),
    _worker("drain-releasing", "worker.releasing=kill", disturb=drain_and_die),
    _worker("drain-released", "worker.released=kill", disturb=drain_and_die, most_attempts=1),
    # Rows give way.
    _worker("urgent-gave-way", "worker.gave_way=kill", lambda: Jobs(2, priority="low"), disturb=urgent,
            most_doubled=ONE_CHECKPOINT, settings={"slots": 2}),
    _worker("urgent-put-back", "worker.put_back=kill", lambda: Jobs(2, priority="low"), disturb=urgent,
            most_doubled=ONE_CHECKPOINT, settings={"slots": 2}),
    # A worker goes on, with something gone wrong.
    _worker("worker-paused", "worker.renewing=sleep(3)@2", lambda: Jobs(words=3 * WORDS), disturb=second_worker,
            crashes=0, most_doubled=3 * WORDS, most_attempts=3, settings={"lease_seconds": 1}),
    _worker("worker-keeping-fails", "worker.progress_sending=raise@2", crashes=0, most_attempts=1),
    _worker("worker-keeping-unanswered", "worker.progress_kept=unavailable@2", crashes=0, most_attempts=1),
    _worker("worker-storing-unanswered", "worker.stored=unavailable", crashes=0, most_attempts=1),
    _worker("worker-storing-fails", "worker.stored=raise", crashes=0, most_attempts=1),
    _worker("worker-step-fails", "worker.stepped=raise@15", most_doubled=ONE_CHECKPOINT),
    _worker("worker-giving-up-unanswered", "worker.put_back=unavailable", lambda: Jobs(2, priority="low"),
            disturb=urgent, crashes=0, most_attempts=1, settings={"slots": 2}),
    # Redis.
    Scenario("redis-killed", Jobs, disturb=kill_redis, crashes=0, most_attempts=1),
    # The dispatcher.
    _dispatcher("dispatcher-submitting", "dispatcher.submitting=kill@2"),
    _dispatcher("dispatcher-submitted", "dispatcher.submitted=kill", quick=True),
    _dispatcher("dispatcher-part-synced", "storage.synced=kill"),
    _dispatcher("dispatcher-part-written", "dispatcher.part_written=kill", quick=True),
    _dispatcher("dispatcher-committed", "dispatcher.committed=kill"),
    _dispatcher("dispatcher-assembled", "dispatcher.assembled=kill"),
    _dispatcher("dispatcher-batch-ended", "dispatcher.batch_ended=kill"),
    _dispatcher("dispatcher-stopped", "dispatcher.part_written=sleep(1)", disturb=stop_dispatcher, crashes=0),
    Scenario("dispatcher-redrive-written", Batch, {"dispatcher": "dispatcher.redrive_written=kill"},
             {"dispatcher": "dispatcher"}, retry_cancelled, settings={"echo_tokens_per_second": 0, "slots": 16}),
    Scenario("dispatcher-file-deleted", ExpiredFile, {"dispatcher": "dispatcher.file_deleted=kill"},
             {"dispatcher": "dispatcher"}),
    _dispatcher("dispatcher-commit-unanswered", "dispatcher.committed=unavailable", crashes=0),
    _dispatcher("dispatcher-submit-unanswered", "dispatcher.submitted=unavailable", crashes=0),
    _dispatcher("dispatcher-commit-fails", "dispatcher.part_written=raise", crashes=0),
    _dispatcher("dispatcher-ends-noted", "dispatcher.ends_noted=kill", Told),
    _dispatcher("dispatcher-sent", "dispatcher.sent=kill@3", Told, quick=True),
    _dispatcher("dispatcher-noting-fails", "dispatcher.sent=raise@3", Told, crashes=0),
    # The scaler.
    _scaler("scaler-spawned", "scaler.spawned=kill", most_doubled=ONE_CHECKPOINT),
    _scaler("scaler-exit-seen", "scaler.exit_seen=kill;worker.stepped=kill@15", most_doubled=ONE_CHECKPOINT),
    _scaler("scaler-taken-back", "scaler.taken_back=kill;worker.stepped=kill@15", most_doubled=ONE_CHECKPOINT),
    # The API.
    _api("api-submitted", "api.submitted=kill@3", lambda: Calls(3), quick=True),
    _api("api-many-submitted", "api.many_submitted=kill@2", lambda: Calls(4, at_once=4)),
    _api("api-file-stored", "api.file_stored=kill@2", UploadedBatch, more={"dispatcher": "dispatcher"}),
    _api("api-batch-created", "api.batch_created=kill@2", UploadedBatch, more={"dispatcher": "dispatcher"}),
)  # fmt: skip
