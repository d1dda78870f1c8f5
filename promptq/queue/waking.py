"""Waking workers: by a message to each of as many as there are jobs."""

from __future__ import annotations

from promptq.contract.queues import QueueName, queues_of
from promptq.queue.store import JobStore


def pass_on(store: JobStore, queue: QueueName) -> None:
    """Have another worker woken for a job in this queue: one that was has no room any more.

    Raises:
        RedisUnavailable: nobody is woken; workers look by themselves, later.
    """
    default = store.settings.default_model
    names = [one.rq_name(default) for one in queues_of(queue.model)]
    store.scripts.run("pass_on", [queue.rq_name(default), *names])
