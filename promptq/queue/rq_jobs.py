"""Jobs that plain RQ put in beside ours: for whom they are, and what of RQ's features becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import redis

from promptq.contract.call import FUNCTION, called_function
from promptq.contract.job import encode_traceback
from promptq.contract.keys import Keys
from promptq.queue.connection import answering

if TYPE_CHECKING:
    from promptq.queue.store import JobStore

log = logging.getLogger(__name__)

AT_MOST = 100
_DEPENDENT = "promptq runs no RQ dependencies (depends_on); submit the job when the other one has ended."
_REFUSAL = ("invalid_request", _DEPENDENT, encode_traceback(f"invalid_request: {_DEPENDENT}"))


def note_calls(client: redis.Redis, keys: Keys, calls: Mapping[bytes, bytes]) -> None:
    """Write on each job which function it calls, so that scripts know whether it is for us; workers look again.

    Args:
        calls: the jobs' data, by id.
    """
    functions = {job_id.decode(): called_function(data) for job_id, data in calls.items()}
    with answering(), client.pipeline(transaction=False) as pipe:
        for job_id, function in functions.items():
            pipe.hset(keys.job(job_id), "calls", function)
        pipe.publish(keys.wake_channel, "")
        pipe.execute()
    for job_id, function in functions.items():
        if function != FUNCTION:
            log.warning(
                "Job %s of plain RQ calls %r: it is left where it is. Another RQ application needs a database of its "
                "own, or promptq a PROMPTQ_KEY_PREFIX.", job_id, function,
            )  # fmt: skip


def reap_rq(store: JobStore) -> None:
    """Queue what RQ's enqueue_in put aside until now, and refuse what depends on another job."""
    arguments = [store.settings.failure_ttl_seconds, AT_MOST, *_REFUSAL, *store.rq_names()]
    queued, refused, unknown = store.scripts.run("reap_rq", arguments)
    if queued or refused:
        log.info("Jobs of plain RQ: %d were due, %d with depends_on refused.", queued, refused)
    if unknown:
        note_calls(store.client, store.keys, dict(zip(unknown[::2], unknown[1::2], strict=True)))
        reap_rq(store)
