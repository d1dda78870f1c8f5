"""Jobs as the caller of the present request may see them: with API keys in use, each key sees its own jobs only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from api.current import client_has_left, owner, services
from promptq.contract.admission import MAX_PARAM_CHARS
from promptq.contract.errors import JobNotFound, RedisUnavailable
from promptq.contract.job import Job, Status
from promptq.queue.expected_wait import Wait, expected_wait
from promptq.runtime import logs

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


def read(job_id: str) -> Job:
    """The job with this id, which may be any text that a client sent.

    Raises:
        JobNotFound: there is none, or it is another key's; the error does not tell which.
    """
    if not is_readable_id(job_id):
        raise JobNotFound(job_id[:MAX_PARAM_CHARS])
    logs.add(job_id=job_id)
    job = services().store.get(job_id)
    if not _is_visible(job):
        raise JobNotFound(job_id)
    return job


def wait_for(job_id: str, seconds: float) -> Job:
    """The job once it has ended, or as it stands after so many seconds, at most the limit of the settings.

    Raises:
        JobNotFound: as `read`.
    """
    if seconds <= 0:
        return read(job_id)
    parts = services()
    return parts.waiters.wait_for(job_id, min(seconds, parts.settings.wait_limit_seconds), read, client_has_left)


def read_many(ids: Sequence[str]) -> list[Job | None]:
    """These jobs, read in one round trip; None for one that does not exist, or is another key's."""
    return [job if job and _is_visible(job) else None for job in services().store.get_many(ids)]


def wait_of(job: Job) -> Wait | None:
    """Why a queued job waits; None for any other one, and where no scaler says anything of its model."""
    if job.status is not Status.QUEUED:
        return None
    try:
        fleet = services().fleet_view.read()
    except RedisUnavailable:  # the job has been read: that is the answer
        return None
    pools = (pool for pool in (fleet.pools if fleet else ()) if pool.name == job.queue.model)
    return next((expected_wait(pool, job.priority, job.queue_position) for pool in pools), None)


def is_readable_id(job_id: str) -> bool:
    """Whether the text may be one of RQ's ids. No other text gets to be part of a Redis key."""
    return bool(_JOB_ID.fullmatch(job_id))


def _is_visible(job: Job) -> bool:
    return services().access.may_see(owner(), job)
