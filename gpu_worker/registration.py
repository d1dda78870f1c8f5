"""The worker as RQ's tools see it: a long-lived RQ worker that neither forks nor imports what a job names."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import redis
from rq.serializers import JSONSerializer
from rq.utils import now as rq_now
from rq.worker import BaseWorker, WorkerStatus

from gpu_worker.engines.base import EngineInfo
from promptq.contract.errors import SettingsError
from promptq.contract.queues import queues_of
from promptq.contract.settings import WorkerSettings
from promptq.queue import model_facts
from promptq.queue.connection import answering
from promptq.queue.store import JobStore

REGISTRATION_LEASES = 3
"""A worker that stops beating is forgotten after this many leases, and RQ's own minute."""
RQ_MINUTE = 60
ASKED_TO_DRAIN = 2
"""What the script that registers replies then."""
LOOK_SECONDS = 0.2
"""Between two looks whether a worker of the same name lives."""


class WorkerRegistration(BaseWorker):
    """Keeps the worker registered; `gpu_worker.worker_loop` does the work.

    Of RQ's worker only its description is used: the name and the fields of its hash. Jobs are claimed, run and
    finished by our own scripts, so RQ's `work`, `execute_job` and `perform_job` never run. Sets and hash are written
    by ours too: RQ's own functions know no key prefix, and would write over who has taken the name.
    """

    def __init__(self, store: JobStore, settings: WorkerSettings, info: EngineInfo, metrics_url: str) -> None:
        rq_names = [queue.rq_name(settings.default_model) for queue in queues_of(settings.model_name)]
        with answering():
            super().__init__(
                rq_names,
                # In containers hosts may have one name, and every process the id 1.
                name=settings.worker_name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
                connection=store.client,
                serializer=JSONSerializer,
                worker_ttl=max(1, int(REGISTRATION_LEASES * settings.lease_seconds)),
            )
        self.info = info
        self.is_asked_to_drain = False
        """By somebody, through Redis; known since the last beat."""
        self._instance = secrets.token_hex(8)
        self._lease_seconds = settings.lease_seconds
        self.metrics_url = metrics_url
        self._keys = settings.keys
        self._key = self._keys.worker(self.name)
        self._queues = rq_names
        self._scripts = store.scripts
        facts = model_facts.ModelFacts.of(info.context_length, info.tokenizer_json)
        self._facts = facts if info.tokenizer_json else None

    def execute_job(self, job: Any, queue: Any) -> None:
        """Never: a promptq worker runs no function."""
        raise NotImplementedError("a promptq worker generates; it runs no function that a job names")

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """As it is given. RQ would wait for each answer for longer than a lease lasts, to make room for reads that
        block, of which there are none here; and while a beat waits, no lease is renewed."""
        return connection

    def appear(self, is_stopping: Callable[[], bool] = lambda: False) -> bool:
        """Register, as `rq info` and `/v1/workers` show it.

        A name whose worker has not beaten its heart for a lease is taken over: that worker is dead, or, should it come
        back, finds that it has been replaced.

        Args:
            is_stopping: whether to wait for no lease any more.

        Returns:
            Whether the name was a dead worker's.

        Raises:
            SettingsError: a live worker has this name.
        """
        with answering():
            was_silent = self._await_silence(is_stopping)
        self.birth_date = rq_now()
        # First what its model can do: whoever sees the worker may ask for that.
        self._announce()
        self._register("idle", 0, takes_over=True)
        return was_silent

    def beat(self, phase: str, busy_slots: int, trouble: str = "") -> bool:
        """Write the state and stay registered; comes back after Redis lost its data.

        Args:
            phase: idle, busy or draining.
            trouble: why it takes no jobs now, if so.

        Returns:
            Whether the name is still this worker's. If another has taken it over, nothing is written.
        """
        if not self._register(phase, busy_slots, trouble):
            return False
        # One that drains runs no new job, so what it has says nothing of those to come.
        if phase != "draining":
            self._announce()
        return True

    def disappear(self) -> None:
        """Unregister. RQ's tools see for a minute that the worker has died."""
        self._scripts.run("unregister", [self.name, self._instance, RQ_MINUTE, *self._queues])

    def _await_silence(self, is_stopping: Callable[[], bool]) -> bool:
        """Wait while the name's last worker may still live. Tells whether there was one that did not say goodbye."""
        first = self._last_beat()
        until = time.monotonic() + self._lease_seconds
        while (seen := self._last_beat()) is not None and time.monotonic() < until and not is_stopping():
            if seen != first:
                message = f"PROMPTQ_WORKER_NAME: a worker named {self.name!r} is registered already"
                raise SettingsError(message)
            time.sleep(LOOK_SECONDS)
        return first is not None

    def _last_beat(self) -> Sequence[bytes | None] | None:
        """What changes with each heartbeat of the name's worker; None: it has none, or said goodbye."""
        beat: Any = self.connection.hmget(self._key, "instance", "last_heartbeat", "death", "birth")
        return beat if beat[2] is None and beat[3] is not None else None

    def _register(self, phase: str, busy_slots: int, trouble: str = "", takes_over: bool = False) -> bool:
        """Whether the name is this worker's; else nothing is written."""
        self.last_heartbeat = rq_now()
        state = WorkerStatus.IDLE if phase == "idle" else WorkerStatus.BUSY
        rq_fields: dict[str, Any] = self.serialize()
        own = self._own_fields() | {"state": state.value, "phase": phase, "busy_slots": busy_slots}
        own["trouble"] = trouble
        keep_seconds, queues = self.worker_ttl + RQ_MINUTE, self._queues
        fields = chain.from_iterable((rq_fields | own).items())
        terms = (self.name, self._instance, "1" if takes_over else "", keep_seconds, len(queues))
        reply = self._scripts.run("register", [*terms, *queues, *fields])
        self.is_asked_to_drain = reply == ASKED_TO_DRAIN
        return bool(reply)

    def _announce(self) -> None:
        """Tell what the model can do. The tokenizer is sent only where Redis has none, or another."""
        key, facts = self._keys.model(self.info.model), self._facts
        with answering(), self.connection.pipeline() as pipe:
            model_facts.announce(pipe, key, self.info.identity, self.info.capabilities.names)
            if facts:
                model_facts.renew(pipe, key, facts)
            published = pipe.execute()[-1]
        if facts and published != facts.sha256.encode():
            model_facts.publish(self.connection, key, facts)

    def _own_fields(self) -> dict[str, Any]:
        info = self.info
        return {
            "device": info.device, "dtype": info.dtype, "model": info.model, "slots": info.slots,
            "context_length": info.context_length, "metrics_url": self.metrics_url,
            "identity": info.identity,
        }  # fmt: skip
