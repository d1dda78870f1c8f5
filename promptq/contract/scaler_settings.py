"""Settings of the scaler."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from promptq.contract.setting_types import CountOrNone, Host, NotNegative, Port, Seconds

RETIRED: Final = {
    "target_jobs_per_worker": "is still used; in the next release a worker is always for as many jobs as it registers "
    "slots (PROMPTQ_SLOTS)",
    "up_delay_seconds": "has no effect any more: workers are added when arrivals have risen beyond chance",
    "down_window_seconds": "has no effect any more: workers are kept for as long as a start takes, as measured",
}
"""Settings of an earlier policy, which the next release refuses, and what replaced them."""


class RetiredScalerSettings(BaseSettings):
    """Read for one release more, so that nobody's scaler stops at an update."""

    target_jobs_per_worker: Seconds | Literal["auto"] = Field(
        "auto", description="Goes with the next release. Jobs that one worker is for; `auto`: as many as it has slots."
    )
    up_delay_seconds: NotNegative = Field(0, description="Goes with the next release. No effect any more.")
    down_window_seconds: Seconds = Field(30, description="Goes with the next release. No effect any more.")


class OwnScalerSettings(RetiredScalerSettings):
    """Of the scaler alone; a base beside `CommonSettings`."""

    scaler_host: Host = Field("127.0.0.1", description="Address of the scaler's /metrics and /targets.")
    scaler_port: Port = Field(9100, description="Port of the scaler's /metrics and /targets.")
    advertised_host: Host = Field("127.0.0.1", description="Host that Prometheus finds the workers under.")
    min_workers: CountOrNone = Field(1, description="Workers kept when nothing is queued.")
    max_workers: CountOrNone = Field(0, description="Most workers; 0: one per GPU, or 1.")
    target_wait_seconds: Seconds = Field(1, description="95 % of the jobs are to begin within this time.")
    zero_delay_seconds: Seconds = Field(300, description="Idle time before the last worker goes (min_workers=0).")
    least_stay_seconds: NotNegative = Field(
        30, description="How long a model keeps a worker, at least, while another one waits for its room."
    )
    tick_seconds: Seconds = Field(1, description="Time between two decisions.")
    drain_seconds: Seconds = Field(30, description="After SIGTERM: time for running rows before they are put back.")
    start_timeout_seconds: Seconds = Field(600, description="A worker not registered by then is killed.")
    spare_worker: bool = Field(
        True,
        description="Keep one more process, its imports done, for the next start; not for `echo`, which starts fast.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max_workers and self.min_workers > self.max_workers:
            raise ValueError(f"min_workers={self.min_workers} is above max_workers={self.max_workers}")
        return self
