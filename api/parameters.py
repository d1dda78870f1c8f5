"""What comes beside the body: headers, path and query."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from werkzeug.http import parse_dict_header

_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)


def _wait_preference(header: str) -> float | None:
    """The seconds in `Prefer: wait=N` (RFC 7240); other preferences are not ours to judge."""
    preferences = {name.lower(): value for name, value in parse_dict_header(header).items()}
    if "wait" not in preferences:
        return None
    seconds = (preferences["wait"] or "").split(";")[0].strip(' "')
    if not _SECONDS.fullmatch(seconds):
        raise ValueError("wait must be a number of seconds, as in `Prefer: wait=10`")
    return float(seconds)


_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _day(text: str) -> date:
    if not _DAY.fullmatch(text):
        raise ValueError("it must be a day, as 2026-01-31")
    return date.fromisoformat(text)


Day = Annotated[date, BeforeValidator(_day)]


class UsageQuery(BaseModel):
    """The query of `GET /v1/usage`."""

    start: Day | None = Field(None, description="The first day, in UTC; without it 29 days before `end`.")
    end: Day | None = Field(None, description="The last day, which is included; without it today.")


WaitPreference = Annotated[
    float | None, BeforeValidator(_wait_preference), WithJsonSchema({"type": "string", "example": "wait=10"})
]


class WaitHeader(BaseModel):
    """Headers of a call that may wait for the job's end."""

    prefer_wait: WaitPreference = Field(
        None, alias="Prefer", description="`wait=N`: answer when the job ends, at the latest after N seconds."
    )


IDEMPOTENCY_KEY = r"^[\x20-\x7e]{1,255}$"


def _idempotency_key(description: str) -> Any:
    return Field("", alias="Idempotency-Key", pattern=IDEMPOTENCY_KEY, description=description)


class KeyHeader(BaseModel):
    """Headers of a call that makes a job and waits for it."""

    idempotency_key: str = _idempotency_key("The same key with the same body gives the same job, for a day.")


class SubmitHeaders(WaitHeader):
    """Headers of `POST /v1/jobs`."""

    idempotency_key: str = _idempotency_key("The same key with the same body gives the same job, for a day.")


class BatchHeaders(BaseModel):
    """Headers of `POST /v1/jobs:batch`."""

    idempotency_key: str = _idempotency_key(
        "Gives each prompt without an `idempotency_key` this one, a colon and its place, counted from 0."
    )


class NewJobPath(BaseModel):
    """A client's own job id."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")


class JobPath(BaseModel):
    """A job's id; what cannot be one is simply not found."""

    id: str


class WorkerPath(BaseModel):
    """A worker's name, as `GET /v1/workers` has it."""

    name: str


class WaitQuery(BaseModel):
    """Query of `GET /v1/jobs/{id}`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    wait: float = Field(default=0, ge=0, description="Answer when the job ends, at the latest after so many seconds.")


MAX_IDS = 100
"""What fits into the 4 kB of a request line, and into one script that leaves Redis free for others soon."""


POSITION = r"^([0-9]{1,9})(?:-([0-9]{1,9}))?$"
"""A place in a job's text: characters, and after a start over how often there was one."""


class EventsHeader(BaseModel):
    """Headers of `GET /v1/jobs/{id}/events`."""

    last_event_id: str = Field(
        "", alias="Last-Event-ID", pattern=POSITION, description="The id of the last event that was received."
    )


class EventsQuery(BaseModel):
    """Query of `GET /v1/jobs/{id}/events`."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(default=None, pattern=POSITION, description="As `Last-Event-ID`, before which it goes.")


class ListQuery(BaseModel):
    """Query of `GET /v1/jobs`: either `ids`, or the dead-letter list."""

    model_config = ConfigDict(extra="forbid")

    ids: str | None = Field(
        default=None,
        pattern=rf"^[^,]+(,[^,]+){{0,{MAX_IDS - 1}}}$",
        description=f"Up to {MAX_IDS} ids with commas between: these jobs, in this order.",
    )
    status: Literal["failed", "expired"] = Field(default="failed", description="How the jobs ended.")
    limit: int = Field(default=20, ge=1, le=100, description="The most jobs to list.")
