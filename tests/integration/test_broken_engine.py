"""An engine that is broken, not a row: its worker ends and says so, and the jobs are somebody else's."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
import torch

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.errors import EngineBroken
from promptq.contract.exit_codes import ExitCode
from promptq.contract.job import Status
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore, submit
from tests.integration.engine_rows import intercept
from tests.integration.test_poison import LEASE, replaced_workers
from tests.integration.tiny_engines import ALL_WAYS, byte_tokenizer, round_model, tiny_engine, tiny_model
from tests.processes import start, wait_until, worker

LOST = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


def rows(*texts: str) -> list[Row]:
    return [Row(text, GenerateRequest(prompt=text, max_tokens=4)) for text in texts]


def fail_with(engine: ContinuousEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, length: int = 0) -> None:
    """Make the runner fail for prompts of this length, or all."""
    run = engine._runner.run

    def failing(chunks):
        if not length or any(len(chunk.sequence.prompt) == length for chunk in chunks):
            raise error
        return run(chunks)

    monkeypatch.setattr(engine._runner, "run", failing)


def ends(engine: ContinuousEngine) -> dict[str, FinishReason]:
    found: dict[str, FinishReason] = {}
    while engine.live_rows():
        found |= {event.id: event.end.reason for event in engine.step(0.0).events if event.end}
    return found


def errors(engine: ContinuousEngine) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while engine.live_rows():
        found |= {event.id: event.end.error for event in engine.step(0.0).events if event.end}
    return found


def raising(error: Exception) -> Any:
    def fails(*_: object) -> None:
        raise error

    return fails


def test_rows_that_fail_alone_by_an_error_of_the_device_break_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_engine(tiny_model("llama"), slots=4)
    fail_with(engine, monkeypatch, RuntimeError(LOST))
    engine.add(rows("a", "bb", "ccc"))
    with pytest.raises(EngineBroken, match=r"device-side assert triggered$"):
        ends(engine)


@pytest.mark.parametrize(
    "error", [ValueError("bad row"), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_row_that_fails_alone_is_the_one_at_fault_where_a_known_prompt_does_not(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = tiny_engine(tiny_model("llama"), slots=4)
    fail_with(engine, monkeypatch, error, length=2)
    engine.add(rows("a", "bb", "ccc"))
    found = ends(engine)
    assert {id for id, reason in found.items() if reason is FinishReason.ERROR} == {"bb"}
    assert len(found) == 3


@pytest.mark.parametrize("how", ["fails", "gives other numbers"])
def test_where_a_known_prompt_fails_too_the_engine_is_broken(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    model = tiny_model("llama")
    engine = tiny_engine(model, slots=4)
    fail_with(engine, monkeypatch, ValueError("odd"))
    if how == "fails":
        monkeypatch.setattr(model, "forward", lambda *_, **__: 1 / 0)
    else:
        model.model.embed_tokens.weight.data.add_(1.0)
    engine.add(rows("a", "bb"))
    with pytest.raises(EngineBroken, match="ZeroDivisionError" if how == "fails" else "no longer computes"):
        ends(engine)


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_device_that_gives_no_numbers_any_more_fails_no_row(way: str) -> None:
    model = tiny_model("llama")
    engine = tiny_engine(model, slots=4, **ALL_WAYS[way])
    model.model.norm.weight.data.fill_(float("nan"))
    engine.add(rows("a", "bb"))
    with pytest.raises(EngineBroken, match="no longer computes"):
        ends(engine)


def test_an_error_of_the_device_breaks_the_engine_wherever_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA reports it with what is asked next: here a slot that is cleared, then what a row begins with."""
    engine = tiny_engine(tiny_model("llama"), slots=4)
    engine.add(rows(half_way := "a" * 60))
    engine.step(0.0)
    monkeypatch.setattr(engine._runner.cache, "clear", raising(torch.AcceleratorError(LOST)))
    with pytest.raises(EngineBroken, match=r"device-side assert triggered$"):
        engine.preempt([half_way])
    monkeypatch.setattr("gpu_worker.engines.continuous.row_starts.penalties.bias_for", raising(RuntimeError(LOST)))
    with pytest.raises(EngineBroken, match=r"device-side assert triggered$"):
        engine.add(rows("b"))


@pytest.mark.parametrize("source", ["prompt", "prompt_token_ids", "progress", "the model"])
def test_a_token_that_the_model_has_no_embedding_for_never_reaches_it(source: str) -> None:
    """There a CPU fails the row alone, and a GPU is lost to the process."""
    model = round_model()
    token, beyond = (byte_tokenizer()(text)["input_ids"][0] for text in "c~")
    embedded = model.get_input_embeddings().weight.data
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(embedded[:beyond]))
    if source == "the model":
        model.lm_head.weight.data[beyond] = embedded[token]
    engine = tiny_engine(model, slots=4)
    seen: list[int] = []
    intercept(engine, lambda chunks: seen.extend(each for chunk in chunks for each in chunk.tokens))
    wrong = {"prompt_token_ids": [1, beyond]} if source == "prompt_token_ids" else {"prompt": "c"}
    wrong = {"prompt": "c~"} if source == "prompt" else wrong
    progress = [beyond] if source == "progress" else []
    engine.add([Row("wrong", GenerateRequest(**wrong, max_tokens=4), progress=progress), *rows("d")])
    found = errors(engine)
    kind, message = found["wrong"]
    assert f"the model has no token {beyond}; its tokens are 0 to {beyond - 1}" in message
    is_request = source.startswith("prompt")
    assert (kind, message.startswith(f"{source}: ")) == (
        "invalid_request" if is_request else "engine_error",
        is_request,
    )
    assert max(seen) < beyond
    assert found["d"] is None or source == "the model"


@pytest.fixture
def short(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    return TimedStore(client, settings.model_copy(update={"lease_seconds": LEASE}))


def test_its_jobs_are_put_back_unharmed_and_the_worker_says_why_it_ends(
    server: EmbeddedServer, short: TimedStore
) -> None:
    """Where it would have won every claim, being idle at once, and failed it for good."""
    first = submit(short, "break", now=time.time(), cache=False).job
    mates = [submit(short, f"mate {i}", now=time.time(), cache=False).job for i in range(300)]
    process = start("tests.breaking_worker", server, lease_seconds=LEASE, worker_name="doomed")
    assert process.wait(60) == ExitCode.ENGINE_BROKEN
    assert {short.get(job.id).status for job in [first, *mates]} == {Status.QUEUED}
    tried = sum(short.get(job.id).attempts for job in mates)
    assert tried < 300  # those that were not begun have lost nothing
    assert short.client.zcard(short.keys.wip("default")) == 0
    with worker(server, lease_seconds=LEASE):
        ended = [first, *mates]
        wait_until(lambda: all(short.get(job.id).status is Status.SUCCEEDED for job in ended), 60, "every end")


def test_what_a_worker_held_that_ends_by_a_fault_of_ours_waits_for_no_lease(
    server: EmbeddedServer, settings: WorkerSettings, client: redis.Redis
) -> None:
    store = TimedStore(client, settings)
    jobs = [submit(store, prompt, now=time.time(), cache=False).job for prompt in ("hello", "crash")]
    process = start("tests.breaking_worker", server, lease_seconds=300, worker_name="doomed")
    assert process.wait(60) == 1
    assert {store.get(job.id).status for job in jobs} == {Status.QUEUED}
    assert store.client.zcard(store.keys.wip("default")) == 0


def test_a_job_that_breaks_every_engine_ends_as_worker_lost_and_takes_nobody_with_it(
    server: EmbeddedServer, short: TimedStore
) -> None:
    poison = submit(short, "break", now=time.time(), cache=False).job
    mates = [submit(short, f"mate {i}", now=time.time(), cache=False).job for i in range(6)]
    with replaced_workers(server, short, module="tests.breaking_worker") as deaths:
        ended = [poison, *mates]
        wait_until(lambda: all(short.get(job.id).status.is_terminal for job in ended), 90, "every end")
        # The last worker gives up its job before it ends itself.
        wait_until(lambda: len(deaths) >= 3, 30, "the last worker's end")
    lost = short.get(poison.id)
    assert (lost.status, lost.error.type, lost.attempts) == (Status.FAILED, "worker_lost", 3)
    assert {short.get(job.id).status for job in mates} == {Status.SUCCEEDED}
    assert deaths.count(ExitCode.ENGINE_BROKEN) == 3
