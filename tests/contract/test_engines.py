"""The laws that every engine keeps, whatever it generates with. A new engine is one more entry in ENGINES."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.engines.base import Capabilities, Engine, FinishReason, Row, RowEnd
from gpu_worker.engines.echo import EchoEngine
from promptq.contract.capabilities import needed
from promptq.contract.queues import PRIORITIES
from promptq.contract.request import GenerateRequest
from tests.contract.engine_runs import Run
from tests.integration.upstreams import Upstream, engine_before, upstream

SLOTS = 4
PROMPTS = ("one two three four five six", "a b c d e f g", "x y", "the same again the same again", "1 2 3", "z")


def continuous(packed: bool) -> Engine:
    from tests.integration.tiny_engines import tiny_engine, tiny_model  # torch, only where it is asked for

    return tiny_engine(tiny_model("llama"), packed=packed)


def vllm(folder: Path) -> Engine:
    from tests.extras.vllm_engines import tiny_llama, vllm_engine

    return vllm_engine(tiny_llama(folder / "tiny"), folder)


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "echo": lambda _: EchoEngine(SLOTS, tokens_per_second=1.0, sleep=lambda _: None),
    "continuous, packed": lambda _: continuous(packed=True),
    "continuous, any model": lambda _: continuous(packed=False),
}
if importlib.util.find_spec("vllm"):
    ENGINES["vllm"] = vllm


BEHIND_A_SERVER = "upstream"
"""The one engine that needs more than itself: a promptq with an echo worker."""


def row(row_id: str, prompt: str = PROMPTS[0], deadline: float | None = None, **request: Any) -> Row:
    return Row(row_id, GenerateRequest(prompt=prompt, **({"max_tokens": 5} | request)), deadline=deadline)


@pytest.fixture(scope="module")
def server_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("elsewhere"), pace=25.0) as up:
        yield up


@pytest.fixture(params=[*ENGINES, BEHIND_A_SERVER])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == BEHIND_A_SERVER:
        up: Upstream = request.getfixturevalue("server_elsewhere")
        made: Engine = engine_before(up.url, tmp_path, slots=SLOTS)
    else:
        made = ENGINES[request.param](tmp_path)
    yield made
    made.close()


def skip_without(engine: Engine, *capabilities: str) -> None:
    """An engine that cannot do something says so."""
    if not set(capabilities) <= set(engine.info.capabilities.names):
        pytest.skip("the engine cannot do it, and says so")


@pytest.fixture
def run(engine: Engine) -> Run:
    return Run(engine)


def test_it_says_what_it_is_and_what_it_can(engine: Engine) -> None:
    assert engine.info.model is not None
    assert engine.info.slots == SLOTS
    assert engine.info.identity, "or the texts of an earlier model would answer"
    assert {each.name for each in fields(Capabilities)} == {
        "text", "resume", "preempt", "logprobs", "json_schema", "penalties", "logit_bias", "token_prompts", "tools",
        "adapters", "embeddings", "streaming",
    }  # fmt: skip
    assert engine.info.capabilities.streaming


def test_a_row_ends_once_and_is_gone(run: Run) -> None:
    run.all(row(prompt, prompt) for prompt in PROMPTS[:SLOTS])
    assert set(run.ends) == set(PROMPTS[:SLOTS])
    assert (run.engine.live_rows(), run.engine.free_slots()) == (0, SLOTS)
    run.step()
    assert set(run.ends) == set(PROMPTS[:SLOTS])


def test_pieces_add_up(run: Run) -> None:
    run.all(row(prompt, prompt) for prompt in PROMPTS[:SLOTS])
    for row_id, end in run.ends.items():
        assert (run.texts[row_id], len(run.token_ids[row_id])) == (end.text, end.completion_tokens)
        assert end.prompt_tokens > 0
    assert sum(map(len, run.token_ids.values())) >= sum(stats.rows for stats in run.stats) > 0


def test_a_streaming_engine_gives_text_before_the_end(run: Run) -> None:
    run.engine.add([row("a", max_tokens=6)])
    while not run.ends and not run.texts["a"]:
        run.step()
    assert run.texts["a"]
    assert not run.ends


def test_no_more_rows_than_slots_and_no_id_twice(engine: Engine) -> None:
    engine.add([row("a"), row("b")])
    assert (engine.live_rows(), engine.free_slots()) == (2, SLOTS - 2)
    with pytest.raises(ValueError, match="already in"):
        engine.add([row("a")])
    with pytest.raises(ValueError, match="already in"):
        engine.add([row("c"), row("c")])
    with pytest.raises(ValueError, match="free slots"):
        engine.add([row(f"more {number}") for number in range(SLOTS - 1)])
    assert engine.live_rows() == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_max_tokens_ends_a_row(run: Run, limit: int) -> None:
    end = run.all([row("a", max_tokens=limit)]).ends["a"]
    assert (end.reason, end.completion_tokens) == (FinishReason.LENGTH, limit)


def same_end(end: RowEnd) -> RowEnd:
    """Without what depends on the rows beside it, and before: a row that goes on at its end makes no step."""
    return replace(end, batch_size=0, reused_tokens=0)


WAYS_TO_ASK: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "seed": 7},
    "drawn from few": {"temperature": 2.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 8},
    "penalised": {"presence_penalty": 1.0, "frequency_penalty": 1.0, "repetition_penalty": 1.3},
    "biased": {"logit_bias": {"65": 2.0, "66": -100.0}},
}


def asks(engine: Engine, how: str, **fields: Any) -> dict[str, Any]:
    """A row's fields; what an engine cannot do it is never asked for."""
    asked = {**WAYS_TO_ASK[how], **fields}
    skip_without(engine, *needed(GenerateRequest(prompt="a", **asked)).values())
    return asked


@pytest.mark.parametrize("how", WAYS_TO_ASK)
def test_a_row_goes_on_at_any_token_as_if_it_had_never_stopped(engine: Engine, how: str) -> None:
    skip_without(engine, "resume")
    asked = asks(engine, how, max_tokens=6)
    whole = Run(engine).all([row("whole", **asked)])
    end, ids = whole.ends["whole"], whole.token_ids["whole"]
    for cut in range(len(ids) + 1):
        rest = Run(engine).all([replace(row("rest", **asked), progress=ids[:cut])])
        assert (same_end(rest.ends["rest"]), rest.token_ids["rest"]) == (same_end(end), ids[cut:]), cut
        assert end.text.endswith(rest.texts["rest"])


def test_a_stop_string_may_lie_across_the_place_where_a_row_goes_on(engine: Engine) -> None:
    skip_without(engine, "resume")
    whole = Run(engine).all([row("whole", max_tokens=6)])
    text, ids = whole.ends["whole"].text, whole.token_ids["whole"]
    for start in range(1, len(text) - 2):
        stop = [text[start : start + 3]]
        end = Run(engine).all([row("cut", max_tokens=6, stop=stop)]).ends["cut"]
        for cut in range(end.completion_tokens + 1):
            rest = Run(engine).all([replace(row("rest", max_tokens=6, stop=stop), progress=ids[:cut])])
            assert same_end(rest.ends["rest"]) == same_end(end), (stop, cut)


def test_a_stop_string_cuts_the_text_wherever_it_lies(run: Run) -> None:
    whole = run.all([row("whole", max_tokens=6)]).ends["whole"].text
    for start in range(1, len(whole) - 1):
        stop = whole[start : start + 2]
        end = run.all([row(f"stop {start}", max_tokens=6, stop=[stop])]).ends[f"stop {start}"]
        assert (end.reason, end.text) == (FinishReason.STOP, whole[: whole.index(stop)])
        assert run.texts[f"stop {start}"] == end.text, "what belongs to the stop string was never passed on"


def test_a_row_that_gives_way_frees_its_slot_at_once_and_ends_elsewhere_as_it_would_have(engine: Engine) -> None:
    skip_without(engine, "resume", "preempt")
    rows = [row(prompt, prompt) for prompt in PROMPTS[:SLOTS]]
    whole = {id: same_end(end) for id, end in Run(engine).all(rows).ends.items()}
    run = Run(engine)
    engine.add(rows)
    while not all(run.token_ids[each.id] for each in rows[:2]):
        run.step()
    gone = [each.id for each in rows[:2] if each.id not in run.ends]
    assert engine.preempt([*gone, "unknown"]) == gone
    assert engine.preempt(gone) == []
    assert engine.free_slots() >= len(gone) > 0
    run.all(replace(each, progress=run.token_ids[each.id]) for each in rows if each.id in gone)
    assert {id: same_end(end) for id, end in run.ends.items()} == whole
    assert {id: run.texts[id] for id in whole} == {id: end.text for id, end in whole.items()}


def test_a_row_that_is_to_end_does_not_give_way(run: Run) -> None:
    run.engine.add([row("a", max_tokens=6)])
    run.step()
    run.engine.cancel(["a"])
    assert run.engine.preempt(["a"]) == []
    run.step()
    assert run.ends["a"].reason is FinishReason.CANCELLED


def test_a_cancelled_row_ends_with_what_it_has(run: Run) -> None:
    whole = run.all([row("whole", max_tokens=6)]).ends["whole"].text
    run.engine.add([row("a", max_tokens=6), row("b", PROMPTS[1])])
    while not run.texts["a"]:
        run.step()
    run.engine.cancel(["a", "never heard of"])
    while run.engine.live_rows():
        run.step()
    end = run.ends["a"]
    assert end.reason is FinishReason.CANCELLED
    assert whole.startswith(end.text)
    assert run.texts["a"] == end.text
    assert run.ends["b"].reason is FinishReason.LENGTH
    run.all([row("a", max_tokens=6)]) if run.ends.pop("a") else None
    assert run.ends["a"].reason is not FinishReason.CANCELLED, "an id may be used again"


def test_a_deadline_ends_a_row_with_what_it_has(run: Run) -> None:
    run.engine.add([row("late", deadline=run.now + 2.5, max_tokens=50, prompt="w " * 20), row("in time", PROMPTS[1])])
    while run.engine.live_rows():
        run.step()
    assert run.ends["late"].reason is FinishReason.TIMEOUT
    assert run.texts["late"] == run.ends["late"].text
    assert run.ends["in time"].reason is FinishReason.LENGTH


@pytest.mark.parametrize("how", ["greedy", "penalised", "biased"])
def test_a_row_gives_in_company_what_it_gives_alone(engine: Engine, how: str) -> None:
    asked = asks(engine, how, max_tokens=4)

    def texts(companions: list[str], order: random.Random | None) -> dict[str, str]:
        run = Run(engine)
        waiting = [row(prompt, prompt, **asked) for prompt in companions]
        while waiting or engine.live_rows():
            count = min(len(waiting), engine.free_slots(), order.randint(0, 3) if order else 1)
            engine.add(waiting[:count])
            del waiting[:count]
            run.step()
        return {row_id: end.text for row_id, end in run.ends.items()}

    alone = {prompt: texts([prompt], None)[prompt] for prompt in PROMPTS}
    assert texts(list(PROMPTS), random.Random(5)) == alone


def test_priorities_are_told_apart_and_all_are_served(run: Run) -> None:
    rows = [Row(name, GenerateRequest(prompt=PROMPTS[0], max_tokens=2), priority=name) for name in PRIORITIES]
    assert set(run.all(rows).ends) == set(PRIORITIES)


def test_batch_size_is_how_many_shared_a_step(run: Run) -> None:
    run.all([row("a"), row("b", PROMPTS[1])])
    assert {end.batch_size for end in run.ends.values()} == {2}
    assert run.all([row("alone")]).ends["alone"].batch_size == 1


def test_closing_twice_does_no_harm(run: Run) -> None:
    run.engine.add([row("a")])
    run.step()
    run.engine.close()
    run.engine.close()
