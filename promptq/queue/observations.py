"""What is seen of queues, workers and the scaler at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from promptq.contract.queues import QueueName


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one moment. Counts are jobs.

    Attributes:
        joined: waiting for the text of an identical job.
        dead: failed and kept, the dead-letter list.
        oldest_age_seconds: how long the oldest of the first few jobs has waited; 0 when none waits.
    """

    queue: QueueName
    queued: int
    running: int
    joined: int
    succeeded: int
    dead: int
    oldest_age_seconds: float

    @property
    def name(self) -> str:
        """What clients call the queue: its priority."""
        return self.queue.priority


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker. `state` is starting, idle, busy or draining; times are wall seconds.

    Attributes:
        trouble: why it takes no jobs though it runs, or an empty string.
    """

    name: str
    state: str
    pid: int = 0
    host: str = ""
    device: str = ""
    dtype: str = ""
    model: str = ""
    slots: int = 0
    busy_slots: int = 0
    jobs_finished: int = 0
    jobs_failed: int = 0
    started_at: float | None = None
    last_heartbeat: float | None = None
    metrics_url: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """What the scaler says of one model's workers.

    Attributes:
        workers: that are there or coming.
        reason: of the last decision.
        waiting: what it waits for, if it cannot have the workers that it wants.
        others: that somebody else started; their capacity counts.
        start_seconds: what its next worker is expected to take to start; those that began anew, and from the spare,
            took `cold_seconds` and `spare_seconds`; 0: not seen yet.
        arrivals: jobs a second, now; `expected`: those that a worker that is started now is to find.
        service_seconds: a job's mean time in service; 0: not known yet.
        slots: of one worker; 0: not known yet.
        need: workers that the forecast and the backlog ask for; `why`: in words.
        queued: waiting jobs, by priority; `running`: jobs that run.
        coming: for each worker that starts, the seconds until it is expected.
    """

    name: str
    min_workers: int = 0
    max_workers: int = 0
    wanted: int = 0
    workers: int = 0
    reason: str = ""
    waiting: str = ""
    trouble: str = ""
    start_seconds: float = 0.0
    others: int = 0
    cold_seconds: float = 0.0
    spare_seconds: float = 0.0
    arrivals: float = 0.0
    expected: float = 0.0
    service_seconds: float = 0.0
    slots: float = 0.0
    need: int = 0
    why: str = ""
    queued: Mapping[str, int] = field(default_factory=dict)
    running: int = 0
    coming: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class FleetRecord:
    """What the scaler says of itself: sums over all models, and each model's pool.

    Attributes:
        starting: names of workers spawned and not yet registered.
        waits: what those of them wait for that cannot start yet, such as a node.
        trouble: the last reason why workers do not start, or an empty string.
        retry_at: wall time of the next try after a crash, or None.
        leader: the name of the scaler that says so.
    """

    min_workers: int
    max_workers: int
    wanted: int
    starting: Sequence[str] = ()
    trouble: str = ""
    retry_at: float | None = None
    pools: Sequence[PoolRecord] = ()
    leader: str = ""
    waits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The facts that the scaler decides on, read together."""

    queues: Sequence[QueueState]
    workers: Sequence[WorkerRecord]
    totals: Mapping[str, int] = field(default_factory=dict)
    model_totals: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, model: str) -> Snapshot:
        """The part that is about one model."""
        queues = [queue for queue in self.queues if queue.queue.model == model]
        workers = [worker for worker in self.workers if worker.model == model]
        return Snapshot(queues, workers, self.model_totals.get(model, {}))

    @property
    def queued(self) -> int:
        """Jobs waiting, over all queues; those that joined another need no worker."""
        return sum(queue.queued for queue in self.queues)

    @property
    def running(self) -> int:
        """Jobs leased to a worker."""
        return sum(queue.running for queue in self.queues)

    @property
    def oldest_age_seconds(self) -> float:
        """The longest present wait."""
        return max((queue.oldest_age_seconds for queue in self.queues), default=0.0)
