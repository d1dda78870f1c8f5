"""What a job was asked as one of OpenAI's responses: kept beside it, read with its prompt, and deleted with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from promptq.contract.call import decode_call
from promptq.contract.errors import InvalidRequest, JobNotFound
from promptq.queue.connection import answering
from promptq.queue.store import JobStore

FIELD = "response"
"""Of the job's hash."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a response's job was asked.

    Attributes:
        fields: those of the request that the response shows.
        messages: the chat that it answers, its instructions included.
    """

    fields: dict[str, Any]
    messages: list[dict[str, Any]]


def asked(store: JobStore, job_id: str) -> Asked:
    """What this job was asked.

    Raises:
        JobNotFound: there is none, or it is no response.
    """
    with answering():
        found: Any = store.client.hmget(store.keys.job(job_id), [FIELD, "data"])
    note, data = found
    if not note or not data:
        raise JobNotFound(job_id)
    try:
        messages = decode_call(data).kwargs.get("messages") or []
    except InvalidRequest:
        raise JobNotFound(job_id) from None
    return Asked(json.loads(note), messages)


def delete(store: JobStore, job_id: str) -> bool:
    """Delete a job that has ended, with its text. One that has not is a response no more, and goes after its end.

    Returns whether it had ended.

    Raises:
        JobNotFound: there is none.
    """
    outcome = store.scripts.run("delete", [job_id])
    if outcome == b"missing":
        raise JobNotFound(job_id)
    return bool(outcome == b"deleted")
