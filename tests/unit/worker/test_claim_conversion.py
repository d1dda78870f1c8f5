"""A claim becomes a row, and a row's end an ending."""

from __future__ import annotations

from typing import Any

import pytest

from gpu_worker import claim_conversion
from gpu_worker.claim_conversion import Run
from gpu_worker.engines.base import Capabilities, EngineInfo, FinishReason, Row, RowEnd
from promptq.contract.call import NO_CONTEXT, JobContext
from promptq.contract.errors import InvalidRequest
from promptq.contract.job import Status
from promptq.contract.queues import Priority, QueueName
from promptq.queue.store import Claim

NOW = 1000.0


def claim(priority: Priority = "default", timeout_seconds: float | None = None, **fields: Any) -> Claim:
    context = JobContext(timeout_seconds=timeout_seconds)
    return Claim("id", QueueName("m", priority), "e-0", **{"kwargs": {"prompt": "hi"}, "context": context, **fields})


def as_row(run: Run, **able: bool) -> Row:
    return claim_conversion.row(run, 600, EngineInfo("m", "cpu", "none", 4, 0, capabilities=Capabilities(**able)))


def test_a_claim_becomes_a_row() -> None:
    row = as_row(Run(claim("low", timeout_seconds=9.0), NOW + 5))
    assert (row.id, row.request.prompt, row.deadline, row.priority) == ("id", "hi", NOW + 14, "low")
    assert as_row(Run(claim(), NOW)).deadline == NOW + 600


def test_a_row_goes_on_behind_what_earlier_runs_generated() -> None:
    run = Run(claim(progress=(4, 5), moves=2), NOW, 2)
    assert as_row(run).progress == (4, 5)
    result = claim_conversion.ending(run, RowEnd(FinishReason.STOP, "text", 3, 4, 2, None, 1), "m", NOW + 3).result
    assert result is not None
    assert (result.resumed_tokens, result.moves, result.completion_tokens, result.cached_tokens) == (2, 2, 4, 1)


def test_an_embedding_is_part_of_the_result_and_is_asked_of_no_engine_without() -> None:
    run = Run(claim(kwargs={"prompt": "hi", "task": "embed"}), NOW)
    assert as_row(run, embeddings=True, text=False).request.task == "embed"
    end = RowEnd(FinishReason.STOP, "", 3, 0, 2, embedding=[0.5, 0.25])
    result = claim_conversion.ending(run, end, "m", NOW + 3).result
    assert result is not None
    assert result.as_dict()["output"] == {"text": "", "finish_reason": "stop", "embedding": [0.5, 0.25]}
    with pytest.raises(InvalidRequest, match="cannot do embeddings"):
        as_row(run)
    with pytest.raises(InvalidRequest, match="generates no text"):
        as_row(Run(claim(), NOW), embeddings=True, text=False)


def test_every_run_of_a_job_draws_the_same() -> None:
    def seed(context: JobContext = NO_CONTEXT, **kwargs: object) -> int | None:
        drawn = claim(kwargs={"prompt": "hi", **kwargs}, context=context)
        return as_row(Run(drawn, NOW)).request.seed

    assert seed() is None, "greedy"
    assert seed(JobContext(seed=5), temperature=1.0) == 5
    assert seed(JobContext(seed=5), temperature=1.0, seed=7) == 7
    assert seed(temperature=1.0) == seed(temperature=1.0) is not None, "what plain RQ made is drawn by its id"


@pytest.mark.parametrize(
    "fields",
    [
        {"refusal": InvalidRequest("has webhooks")},
        {"kwargs": {"prompt": "hi", "max_tokens": "many"}},
        {"kwargs": {}},
    ],
)
def test_what_cannot_run_says_why(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        as_row(Run(claim(**fields), NOW))


def test_what_the_engine_cannot_do_is_refused_by_name() -> None:
    asked = Run(claim(kwargs={"prompt": "hi", "presence_penalty": 0.5}), NOW)
    with pytest.raises(InvalidRequest, match=r"The engine of the model m cannot do presence_penalty\."):
        as_row(asked)
    assert as_row(asked, penalties=True).request.presence_penalty == 0.5


@pytest.mark.parametrize(
    ("reason", "state", "error"),
    [
        (FinishReason.STOP, Status.SUCCEEDED, None), (FinishReason.LENGTH, Status.SUCCEEDED, None),
        (FinishReason.CANCELLED, Status.CANCELLED, None), (FinishReason.TIMEOUT, Status.FAILED, "timeout"),
        (FinishReason.ERROR, Status.FAILED, "oom"),
    ],
)  # fmt: skip
def test_endings(reason: FinishReason, state: Status, error: str | None) -> None:
    finished = RowEnd(reason, "text", 3, 4, 2, ("oom", "too big") if error == "oom" else None)
    ending = claim_conversion.ending(
        Run(claim(waited_seconds=1.0), NOW + 1, first_token_at=NOW + 2), finished, "m", NOW + 3
    )
    assert ending.state is state
    assert (ending.error.type if ending.error else None) == error
    if error != "oom":
        assert ending.result is not None
        timings = (
            ending.result.queue_seconds,
            ending.result.time_to_first_token_seconds,
            ending.result.run_seconds,
        )
        assert timings == (1.0, 1.0, 2.0)
