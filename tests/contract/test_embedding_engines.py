"""The laws that every engine with embeddings keeps. A new one is one more entry in ENGINES."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.engines.base import Engine, FinishReason, Row, RowEnd
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import GenerateRequest

SLOTS = 4
TEXTS = ("the river was near", "a", "wind at night and at day on the road to the sea", "it was far", "a town", "far")
NEAR = 1e-5


def encoder(folder: Path) -> Engine:
    from gpu_worker.engines.continuous.creation import create  # torch, only where it is asked for
    from promptq.contract.settings import WorkerSettings
    from tests.integration.tiny_encoders import save

    known = WorkerSettings(
        _env_file=None, model=str(save(folder)), slots=SLOTS, device="cpu", worker_threads=1, prefill_tokens=60
    )
    return create(known, lambda _: None)


def vllm(folder: Path) -> Engine:
    from tests.extras.vllm_engines import vllm_engine
    from tests.integration.tiny_encoders import save

    return vllm_engine(save(folder / "tiny", "wide bert"), folder, SLOTS)


@contextmanager
def behind_a_server(folder: Path) -> Iterator[Engine]:
    """Before a promptq whose worker embeds with the same model."""
    from tests.integration.tiny_encoders import PLACES, save
    from tests.integration.upstreams import embedding_upstream, engine_before

    model = save(folder / "model")
    with embedding_upstream(folder, model) as far:
        options = {"capabilities": ["embeddings", "token_prompts"]}
        entry = {"upstream_model": str(model), "context_length": PLACES, "slots": SLOTS}
        yield engine_before(far.url, folder, options, **entry)


ENGINES: dict[str, Callable[[Path], AbstractContextManager[Engine]]] = {
    "encoder": lambda folder: nullcontext(encoder(folder)),
    "upstream": behind_a_server,
}
if importlib.util.find_spec("vllm"):
    ENGINES["vllm"] = lambda folder: nullcontext(vllm(folder))


@pytest.fixture(scope="module", params=ENGINES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with ENGINES[request.param](tmp_path_factory.mktemp("model")) as engine:
        yield engine
        engine.close()


@pytest.fixture
def engine(made: Engine) -> Engine:
    assert made.live_rows() == 0, "left by another test"
    return made


def row(row_id: str, prompt: str | list[int] = TEXTS[0], deadline: float | None = None, **request: Any) -> Row:
    field = "prompt" if isinstance(prompt, str) else "prompt_token_ids"
    priority = request.pop("priority", "default")
    return Row(row_id, GenerateRequest(**{"task": "embed", field: prompt, **request}), deadline, priority)


def ends(engine: Engine, rows: Iterable[Row] = (), now: float = 0.0) -> dict[str, RowEnd]:
    """All rows in the engine, with these, to their ends."""
    engine.add(list(rows))
    found: dict[str, RowEnd] = {}
    while engine.live_rows():
        for event in engine.step(now).events:
            assert event.id not in found, "a row ends once"
            assert (event.text, event.token_ids) == ("", ())
            assert event.end
            found[event.id] = event.end
    return found


def test_it_says_what_it_is_and_what_it_can(engine: Engine) -> None:
    assert engine.info.slots == SLOTS
    assert engine.info.identity, "or the embeddings of an earlier model would answer"
    assert engine.info.capabilities.embeddings


def test_a_row_ends_once_with_an_embedding_and_is_gone(engine: Engine) -> None:
    found = ends(engine, [row(text, text) for text in TEXTS[:SLOTS]])
    assert set(found) == set(TEXTS[:SLOTS])
    assert engine.free_slots() == SLOTS
    assert len({len(end.embedding) for end in found.values()}) == 1
    for end in found.values():
        assert (end.reason, end.text, end.completion_tokens, end.error) == (FinishReason.STOP, "", 0, None)
        assert end.prompt_tokens > 0
        assert end.embedding
    assert engine.step(0.0).events == []


def test_no_more_rows_than_slots_and_no_id_twice(engine: Engine) -> None:
    engine.add([row("a"), row("b")])
    assert (engine.live_rows(), engine.free_slots()) == (2, SLOTS - 2)
    with pytest.raises(ValueError, match="already in"):
        engine.add([row("a")])
    with pytest.raises(ValueError, match="free slots"):
        engine.add([row(f"more {number}") for number in range(SLOTS - 1)])
    assert set(ends(engine)) == {"a", "b"}


def test_a_row_gives_in_company_what_it_gives_alone(engine: Engine) -> None:
    alone = {text: ends(engine, [row(text, text)])[text].embedding for text in TEXTS}
    assert len({tuple(embedding) for embedding in alone.values()}) == len(TEXTS)
    rng = random.Random(5)
    for _ in range(10):
        for text, end in ends(engine, [row(text, text) for text in rng.sample(TEXTS, SLOTS)]).items():
            assert end.embedding == pytest.approx(alone[text], abs=NEAR)


def test_its_size_may_be_asked_for_by_number(engine: Engine) -> None:
    embedding = ends(engine, [row("a")])["a"].embedding
    assert ends(engine, [row("a", dimensions=len(embedding))])["a"].embedding == pytest.approx(embedding, abs=NEAR)
    end = ends(engine, [row("a", dimensions=len(embedding) + 1)])["a"]
    assert end.error
    assert end.error[0] == "invalid_request"
    assert end.error[1].startswith("dimensions: ")


def test_what_is_wrong_with_one_row_is_nothing_to_the_others(engine: Engine) -> None:
    wrong = {"long": row("long", "far " * 5000), "unknown": row("unknown", [2**31 - 1])}
    wrong["dimensions"] = row("dimensions", dimensions=65_536)
    found = ends(engine, [*wrong.values(), row("fine")])
    assert found["fine"].embedding
    kinds = {name: end.error[0] for name, end in found.items() if end.error}
    assert kinds == {"long": "prompt_too_long", "unknown": "invalid_request", "dimensions": "invalid_request"}
    assert str(engine.info.context_length) in found["long"].error[1]


def test_a_cancelled_row_ends_so_and_its_id_may_be_used_again(engine: Engine) -> None:
    engine.add([row("a"), row("b")])
    engine.cancel(["a", "never heard of"])
    found = ends(engine)
    assert {name: end.reason for name, end in found.items()} == {"a": FinishReason.CANCELLED, "b": FinishReason.STOP}
    assert ends(engine, [row("a")])["a"].reason is FinishReason.STOP


def test_a_deadline_ends_a_row(engine: Engine) -> None:
    found = ends(engine, [row("late", deadline=5.0), row("in time", deadline=50.0)], now=10.0)
    assert [found[name].reason for name in ("late", "in time")] == [FinishReason.TIMEOUT, FinishReason.STOP]


def test_a_row_that_gives_way_is_gone_at_once(engine: Engine) -> None:
    if not engine.info.capabilities.preempt:
        pytest.skip("the engine gives no row up, and says so")
    engine.add([row("a"), row("b")])
    engine.cancel(["b"])
    assert engine.preempt(["a", "b", "unknown"]) == ["a"], "one that is to end stays"
    assert engine.free_slots() == SLOTS - 1
    assert ends(engine)["b"].reason is FinishReason.CANCELLED


def test_priorities_are_told_apart_and_all_are_served(engine: Engine) -> None:
    assert set(ends(engine, [row(name, priority=name) for name in PRIORITIES])) == set(PRIORITIES)


def test_batch_size_is_how_many_shared_a_step(engine: Engine) -> None:
    assert {end.batch_size for end in ends(engine, [row("a"), row("b")]).values()} == {2}
    assert ends(engine, [row("a")])["a"].batch_size == 1


def test_closing_twice_does_no_harm(engine: Engine) -> None:
    engine.add([row("a")])
    engine.close()
    engine.close()
