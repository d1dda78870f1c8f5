"""Reads for people and for the scaler: queues, workers, totals. Changes no job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import chain, islice
from operator import itemgetter
from typing import Any, TypeVar

import redis

from promptq.contract.job import from_iso
from promptq.contract.queues import QueueName
from promptq.contract.settings import CommonSettings
from promptq.queue.connection import answering
from promptq.queue.observations import FleetRecord, PoolRecord, QueueState, Snapshot, WorkerRecord

__all__ = ["FleetRecord", "Observer", "PoolRecord", "QueueState", "Snapshot", "WorkerRecord"]

DRAIN_RATE_SECONDS = 60
FLEET_SECONDS = 15
HEADS = 8
"""How far into a queue the oldest job is looked for: each key's is its first one, and keys take turns."""
Record = TypeVar("Record")


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
        """Queues, workers and totals, in three round trips beside one for the workers' hashes."""
        return Snapshot(self.queues(), self.workers(), self.totals(), self.model_totals())

    def totals(self) -> dict[str, int]:
        """What has been counted since the server's beginning."""
        with answering():
            return _counts(self.client.hgetall(self._keys.totals()))

    def model_totals(self) -> dict[str, dict[str, int]]:
        """What has been counted of each model's jobs: submitted, hits, and how they ended."""
        models = list(self._settings.catalogue.by_name)
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for model in models:
                pipe.hgetall(self._keys.model_totals(model))
            return dict(zip(models, map(_counts, pipe.execute()), strict=True))

    def queues(self) -> list[QueueState]:
        """Every queue, in the order of priority."""
        keys, catalogue = self._keys, self._settings.catalogue
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for name in catalogue.rq_names:
                pipe.llen(keys.queue(name))
                for registry in (keys.wip, keys.deferred, keys.finished, keys.failed):
                    pipe.zcard(registry(name))
                pipe.lrange(keys.queue(name), 0, HEADS - 1)
            replies: list[Any] = pipe.execute()
        rows = [replies[i : i + 6] for i in range(0, len(replies), 6)]
        ages = self._oldest([heads for *_, heads in rows])
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

    def publish_drain_rates(self, jobs_per_second: Mapping[str, float]) -> None:
        """Tell submits how fast each model's queues drain."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for model, rate in jobs_per_second.items():
                pipe.set(self._keys.drain_rate(model), f"{rate:.6f}", ex=DRAIN_RATE_SECONDS)
            pipe.execute()

    def publish_fleet(self, fleet: FleetRecord) -> None:
        """Say that the scaler lives, and what it runs."""
        with answering():
            self.client.set(self._keys.fleet(), json.dumps(asdict(fleet)), ex=FLEET_SECONDS)

    def fleet(self) -> FleetRecord | None:
        """What the scaler last said, or None when it is silent."""
        with answering():
            raw = self.client.get(self._keys.fleet())
        if not raw:
            return None
        said = json.loads(raw)
        return replace(_known(FleetRecord, said), pools=[_known(PoolRecord, pool) for pool in said.get("pools", ())])

    def cache_entries(self) -> int:
        """Cached texts; some may be past their lifetime: those go together, once in a lifetime."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for places in (self._keys.cache_new, self._keys.cache_old):
                pipe.hlen(places())
            return sum(pipe.execute())

    def stranded(self, models: Collection[str]) -> dict[str, int]:
        """Jobs that wait or run, by models that are not these: nobody starts workers for them."""
        with answering():
            members: Any = self.client.smembers(self._keys.queue_names())
            names = [self._keys.queue.suffix_of(member) for member in members]
            queues = {name: QueueName.parse(name, self._settings.default_model) for name in names}
            others = sorted(name for name, queue in queues.items() if queue.model not in models)
            with self.client.pipeline(transaction=False) as pipe:
                for name in others:
                    pipe.exists(self._keys.model_totals(queues[name].model))
                    pipe.llen(self._keys.queue(name))
                    pipe.zcard(self._keys.wip(name))
                replies = pipe.execute()
        counts: Counter[str] = Counter()
        # Another RQ application's queues may have such names; ours have had a job of ours.
        for name, is_ours, *jobs in zip(others, replies[::3], replies[1::3], replies[2::3], strict=True):
            counts[queues[name].model] += sum(jobs) * is_ours
        return {model: jobs for model, jobs in counts.items() if jobs}

    def _rq_names(self) -> list[str]:
        return self._settings.catalogue.rq_names

    def _oldest(self, heads: Sequence[Sequence[bytes]]) -> list[float]:
        """How long the oldest of some jobs of each queue has waited."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for job_id in chain.from_iterable(heads):
                pipe.hmget(self._keys.job(job_id.decode()), "queued_at", "enqueued_at")
            pipe.time()
            *stamps, (seconds, microseconds) = pipe.execute()
        given = self._clock()
        now = seconds + microseconds / 1e6 if given is None else given
        ages = iter([max(0.0, now - _stamp(queued_at, enqueued_at, now)) for queued_at, enqueued_at in stamps])
        return [max(islice(ages, len(some)), default=0.0) for some in heads]

    def _forget(self, worker_keys: Sequence[str]) -> None:
        if not worker_keys:
            return
        with answering(), self.client.pipeline() as pipe:
            for registry in (self._keys.workers(), *map(self._keys.workers_of, self._rq_names())):
                pipe.srem(registry, *worker_keys)
            pipe.execute()


def _known(record: type[Record], said: Mapping[str, Any]) -> Record:
    """A record of what was said; a scaler of a later version may say more."""
    names = {each.name for each in fields(record)}  # type: ignore[arg-type]  # both are dataclasses
    return record(**{name: value for name, value in said.items() if name in names})


def _counts(totals: Any) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in totals.items()}


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
