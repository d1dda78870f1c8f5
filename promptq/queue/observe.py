"""Reads for people and for the scaler: queues, workers, totals. Changes no job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from operator import itemgetter
from typing import Any

import redis

from promptq.contract.job import from_iso
from promptq.contract.queues import QueueName
from promptq.contract.settings import CommonSettings
from promptq.queue.connection import answering

DRAIN_RATE_SECONDS = 60
FLEET_SECONDS = 15


@dataclass(frozen=True, slots=True)
class QueueState:
    """One queue at one moment. Counts are jobs.

    Attributes:
        joined: waiting for the text of an identical job.
        dead: failed and kept, the dead-letter list.
        oldest_age_seconds: how long the job at the head has waited; 0 when none waits.
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
class FleetRecord:
    """What the scaler says of itself.

    Attributes:
        starting: names of workers spawned and not yet registered.
        trouble: the last reason why workers do not start, or an empty string.
        retry_at: wall time of the next try after a crash, or None.
    """

    min_workers: int
    max_workers: int
    wanted: int
    starting: Sequence[str] = ()
    trouble: str = ""
    retry_at: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The facts that the scaler decides on, read together."""

    queues: Sequence[QueueState]
    workers: Sequence[WorkerRecord]
    totals: Mapping[str, int] = field(default_factory=dict)

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


class Observer:
    """Reads the state of queues and workers. Raises RedisUnavailable as the store does.

    Args:
        clock: for tests, as the store's.
    """

    def __init__(
        self, client: redis.Redis, settings: CommonSettings, clock: Callable[[], float | None] = lambda: None
    ) -> None:
        self.client = client
        self._clock = clock
        self._keys = settings.keys
        self._settings = settings

    def snapshot(self) -> Snapshot:
        """Queues, workers and totals, in two round trips beside one for the workers' hashes."""
        return Snapshot(self.queues(), self.workers(), self.totals())

    def totals(self) -> dict[str, int]:
        """What has been counted since the server's beginning."""
        with answering():
            totals: Any = self.client.hgetall(self._keys.totals())
        return {name.decode(): int(value) for name, value in totals.items()}

    def queues(self) -> list[QueueState]:
        """Every queue, in the order of priority."""
        keys, catalogue = self._keys, self._settings.catalogue
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for name in catalogue.rq_names:
                pipe.llen(keys.queue(name))
                for registry in (keys.wip, keys.deferred, keys.finished, keys.failed):
                    pipe.zcard(registry(name))
                pipe.lindex(keys.queue(name), 0)
            replies: list[Any] = pipe.execute()
        rows = [replies[i : i + 6] for i in range(0, len(replies), 6)]
        ages = self._ages([head for *_, head in rows])
        return [_queue(queue, row, age) for queue, row, age in zip(catalogue.queues, rows, ages, strict=True)]

    def dead(self, limit: int) -> list[str]:
        """Ids of failed and expired jobs over all queues, the one kept longest first."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for name in self._rq_names():
                pipe.zrange(self._keys.failed(name), 0, limit - 1, desc=True, withscores=True)
            replies: list[Any] = pipe.execute()
        entries = sorted(chain.from_iterable(replies), key=itemgetter(1), reverse=True)
        return [job_id.decode() for job_id, _ in entries[:limit]]

    def workers(self) -> list[WorkerRecord]:
        """Every registered worker of our queues whose heartbeats have not stopped; forgets those that are gone."""
        with answering():
            members: Any = self.client.sunion([self._keys.workers_of(name) for name in self._rq_names()])
            names = sorted(key.decode() for key in members)
            with self.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(name)
                hashes = dict(zip(names, pipe.execute(), strict=True))
        self._forget([name for name, found in hashes.items() if not found])
        # Another RQ application's workers say nothing of their metrics.
        ours = {name: found for name, found in hashes.items() if b"metrics_url" in found}
        return [_worker(name.removeprefix(self._keys.worker()), found) for name, found in ours.items()]

    def forget_worker(self, name: str) -> None:
        """Drop the registration of a worker that is known to be dead."""
        with answering():
            self.client.delete(self._keys.worker(name))
        self._forget([self._keys.worker(name)])

    def publish_drain_rate(self, jobs_per_second: float) -> None:
        """Tell submits how fast the queue drains."""
        with answering():
            self.client.set(self._keys.drain_rate(), f"{jobs_per_second:.6f}", ex=DRAIN_RATE_SECONDS)

    def publish_fleet(self, fleet: FleetRecord) -> None:
        """Say that the scaler lives, and what it runs."""
        with answering():
            self.client.set(self._keys.fleet(), json.dumps(asdict(fleet)), ex=FLEET_SECONDS)

    def fleet(self) -> FleetRecord | None:
        """What the scaler last said, or None when it is silent."""
        with answering():
            raw = self.client.get(self._keys.fleet())
        known = {each.name for each in fields(FleetRecord)}
        # A scaler of a later version may say more.
        return FleetRecord(**{name: value for name, value in json.loads(raw).items() if name in known}) if raw else None

    def cache_entries(self) -> int:
        """Cached texts; some may be past their lifetime: those go together, once in a lifetime."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for places in (self._keys.cache_new, self._keys.cache_old):
                pipe.hlen(places())
            return sum(pipe.execute())

    def _rq_names(self) -> list[str]:
        return self._settings.catalogue.rq_names

    def _ages(self, heads: Sequence[Any]) -> list[float]:
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for head in heads:
                pipe.hmget(self._keys.job(head.decode() if head else ""), "queued_at", "enqueued_at")
            pipe.time()
            *stamps, (seconds, microseconds) = pipe.execute()
        given = self._clock()
        now = seconds + microseconds / 1e6 if given is None else given
        return [max(0.0, now - _stamp(queued_at, enqueued_at, now)) for queued_at, enqueued_at in stamps]

    def _forget(self, worker_keys: Sequence[str]) -> None:
        if not worker_keys:
            return
        with answering(), self.client.pipeline() as pipe:
            for registry in (self._keys.workers(), *map(self._keys.workers_of, self._rq_names())):
                pipe.srem(registry, *worker_keys)
            pipe.execute()


def _queue(queue: QueueName, row: Sequence[Any], age: float) -> QueueState:
    queued, running, joined, succeeded, dead = (int(count) for count in row[:5])
    return QueueState(queue, queued, running, joined, succeeded, dead, age)


def _stamp(queued_at: bytes | None, enqueued_at: bytes | None, now: float) -> float:
    if queued_at:
        return float(queued_at)
    return from_iso(enqueued_at.decode()) or now if enqueued_at else now


TEXTS = ("device", "dtype", "model", "metrics_url", "trouble")
"""What a worker's hash has as text, under the names of its record."""


def _worker(name: str, fields: Mapping[bytes, bytes]) -> WorkerRecord:
    text = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}

    def whole(field: str) -> int:
        return int(text.get(field) or 0)

    known: dict[str, Any] = {field: text.get(field, "") for field in TEXTS}
    return WorkerRecord(
        name=name, state=text.get("phase") or text.get("state", "idle"), pid=whole("pid"),
        host=text.get("hostname", ""), slots=whole("slots"), busy_slots=whole("busy_slots"),
        jobs_finished=whole("successful_job_count"), jobs_failed=whole("failed_job_count"),
        started_at=from_iso(text.get("birth")), last_heartbeat=from_iso(text.get("last_heartbeat")), **known,
    )  # fmt: skip
