"""The RQ-facing part: a long-lived RQ worker that neither forks nor imports what a job names."""

from __future__ import annotations

import os
import socket
from typing import Any

import redis
from rq.serializers import JSONSerializer
from rq.utils import now as rq_now
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import register

from gpu_worker.engines.base import EngineInfo
from promptq.contract import keys
from promptq.contract.errors import SettingsError
from promptq.queue import model_facts
from promptq.queue.store import answering

REGISTRATION_LEASES = 3
"""A worker that stops beating is forgotten after this many leases, and RQ's own minute."""


class WorkerRegistration(BaseWorker):
    """RQ's worker as RQ's tools see it; `gpu_worker.worker_loop` does the work.

    Of RQ's worker only the registration is used: the name, the hash, the sets. Jobs are claimed,
    run and finished by promptq's own scripts, so RQ's `work`, `execute_job` and `perform_job` never run.
    """

    def __init__(
        self, client: redis.Redis, name: str, lease_seconds: float, info: EngineInfo, metrics_url: str
    ) -> None:
        with answering():
            super().__init__(
                list(keys.QUEUES),
                name=name or f"{socket.gethostname()}-{os.getpid()}",
                connection=client,
                serializer=JSONSerializer,
                worker_ttl=max(1, int(REGISTRATION_LEASES * lease_seconds)),
            )
        self.info = info
        self._facts = (
            model_facts.ModelFacts.of(info.context_length, info.tokenizer_json) if info.tokenizer_json else None
        )
        self.metrics_url = metrics_url

    def execute_job(self, job: Any, queue: Any) -> None:
        """Never: a promptq worker runs no function."""
        raise NotImplementedError("a promptq worker generates; it runs no function that a job names")

    def appear(self) -> None:
        """Register, as `rq info` and `/v1/workers` show it.

        Raises:
            SettingsError: a live worker has this name.
        """
        try:
            with answering():
                self.register_birth()  # type: ignore[no-untyped-call]
        except ValueError:
            raise SettingsError(f"PROMPTQ_WORKER_NAME: a worker named {self.name!r} is registered already") from None
        self.beat("idle", 0)

    def beat(self, phase: str, busy_slots: int) -> None:
        """Write the state and stay registered, in one round trip; comes back after Redis lost its data.

        The tokenizer is sent only where Redis has none, or another.

        Args:
            phase: idle, busy or draining.
        """
        self.last_heartbeat = rq_now()
        state = WorkerStatus.IDLE if phase == "idle" else WorkerStatus.BUSY
        rq_fields: dict[str, Any] = self.serialize()
        mapping: Any = rq_fields | self._ours() | {"state": state.value, "phase": phase, "busy_slots": busy_slots}
        with answering(), self.connection.pipeline() as pipe:
            pipe.hset(self.key, mapping=mapping)
            register(self, pipe)
            pipe.expire(self.key, self.worker_ttl + 60)
            if self._facts:
                model_facts.renew(pipe, self.info.model, self._facts)
            published = pipe.execute()[-1]
        if self._facts and published != self._facts.sha256.encode():
            model_facts.publish(self.connection, self.info.model, self._facts)

    def disappear(self) -> None:
        """Unregister."""
        with answering():
            self.register_death()  # type: ignore[no-untyped-call]

    def _ours(self) -> dict[str, Any]:
        info = self.info
        return {
            "device": info.device, "dtype": info.dtype, "model": info.model, "slots": info.slots,
            "context_length": info.context_length, "metrics_url": self.metrics_url,
        }  # fmt: skip
