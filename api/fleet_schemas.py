"""Queues, workers and pools as the API shows them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from api.schemas import Time


class QueueResource(BaseModel):
    """One queue, counted in jobs."""

    model: str
    name: str = Field(description="Its priority.")
    queued: int
    running: int
    joined: int = Field(description="Waiting for the text of an identical job.")
    succeeded: int
    dead: int = Field(description="Failed and kept.")
    oldest_age_seconds: float


class QueueList(BaseModel):
    """Every queue: those of one model together, in the order of priority."""

    queues: list[QueueResource]


class WorkerResource(BaseModel):
    """One worker."""

    name: str
    state: str = Field(description="starting, idle, busy or draining.")
    pid: int = 0
    host: str = ""
    device: str = ""
    dtype: str = ""
    model: str = ""
    slots: int = Field(default=0, description="Rows that it generates together.")
    busy_slots: int = 0
    jobs_finished: int = 0
    jobs_failed: int = 0
    started_at: Time | None = None
    last_heartbeat: Time | None = None
    metrics_url: str = ""
    trouble: str = Field(
        default="", description="Why it takes no jobs though it runs, or what it waits for to start: a node."
    )


class Draining(BaseModel):
    """A worker that was asked to drain."""

    name: str
    state: str = "draining"


class PoolResource(BaseModel):
    """One model's workers, as the scaler last saw them."""

    name: str
    min_workers: int
    max_workers: int
    wanted: int
    workers: int = Field(description="That are there or coming.")
    others: int = Field(description="Workers of the model that somebody else started; they count as capacity.")
    reason: str = Field(description="Of the scaler's last decision.")
    waiting: str = Field(description="What it waits for, where it cannot have the workers that it wants.")
    trouble: str = Field(description="Why its workers do not start, or an empty string.")
    start_seconds: float = Field(description="What its next worker is expected to take to start.")
    cold_seconds: float = Field(description="What a start takes that begins anew; 0: not seen yet.")
    spare_seconds: float = Field(description="What a start takes from the warm spare; 0: not seen yet.")
    arrivals: float = Field(description="Jobs a second, now.")
    expected: float = Field(description="Jobs a second that a worker that is started now is to find.")
    service_seconds: float = Field(description="A job's mean time in service; 0: not known yet.")
    slots: float = Field(description="Of one worker; before one has registered, what it is taken to have.")
    need: int = Field(description="Workers that the arrivals and the backlog need.")
    why: str = Field(description="The reason in words.")
    queued: dict[str, int] = Field(description="Waiting jobs, by priority.")
    running: int
    coming: list[float] = Field(description="For each worker that starts, the seconds until it is expected.")


class ScalerResource(BaseModel):
    """What the scaler last said: of all models together, and of each."""

    min_workers: int
    max_workers: int
    wanted: int
    leader: str = Field(description="Host and process of the scaler that says so; others wait to take over.")
    trouble: str = Field(description="Why workers do not start, or an empty string.")
    retry_at: Time | None
    pools: list[PoolResource]


class WorkerList(BaseModel):
    """Every worker, those that are starting included."""

    workers: list[WorkerResource]
    scaler: ScalerResource | None = Field(description="Null when no scaler runs.")
