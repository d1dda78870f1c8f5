"""The answer of `GET /v1/usage`, as the OpenAPI page shows it."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UsageCounts(BaseModel):
    """Jobs that ended, and the tokens that were computed for them."""

    jobs: int = Field(default=0, description="All that ended: the sum of the next four.")
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    cache_hits: int = Field(default=0, description="Of the jobs, those that the result cache answered: no tokens.")
    joins: int = Field(default=0, description="Of the jobs, those that had an identical job's text: no tokens.")
    prompt_tokens: int = 0
    cached_tokens: int = Field(default=0, description="Of the prompt tokens, those that the engine had in memory.")
    completion_tokens: int = 0


class UsageDay(UsageCounts):
    """The usage of one model on one day."""

    day: str = Field(description="YYYY-MM-DD, UTC.")
    model: str


class UsageReport(BaseModel):
    """The caller's usage by day and model."""

    start: str = Field(description="The first day.")
    end: str = Field(description="The last day, which is included.")
    days: list[UsageDay] = Field(description="By day, then model; a day without ended jobs is not listed.")
    total: UsageCounts
