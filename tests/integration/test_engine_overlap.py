"""Steps that are submitted before the tokens of the last one are read: every row's text is what it is without."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import Any

import pytest

from gpu_worker.engines.base import FinishReason, Row, RowEnd
from gpu_worker.engines.continuous.engine import ContinuousEngine
from promptq.contract.request import GenerateRequest
from tests.integration.engine_rows import row, run, to_its_end
from tests.integration.tiny_engines import Recorder, drive, tiny_engine, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

MIXES = 6
PROMPTS = ["".join(chr(random.Random(index).randint(32, 126)) for _ in range(3 + 4 * index)) for index in range(12)]


MODEL = tiny_model("llama")
# The check at the start is made once, and kept for the other engines.
KEPT = TemporaryDirectory(prefix="checks-")


def graph_engine(**options) -> Any:
    return tiny_engine(MODEL, graphs=True, fingerprint="tiny", checks_folder=Path(KEPT.name), **options)


@cache
def engine_without_overlap() -> Any:
    engine = graph_engine(drafts=False, prefixes=False)
    engine._lookahead._overlapping = None
    return engine


@pytest.fixture
def ahead(monkeypatch) -> list[int]:
    """How many rows each step had that was submitted ahead."""
    rows: list[int] = []
    make = ContinuousEngine.__init__

    def made(engine, *args, **options):
        make(engine, *args, **options)
        submit = engine._runner.submit

        def counted(runner, chunks, after=None):
            if after:
                rows.append(len(chunks))
            return submit(chunks, after)

        engine._runner.submit = MethodType(counted, engine._runner)

    monkeypatch.setattr(ContinuousEngine, "__init__", made)
    return rows


@cache
def alone(request: str) -> tuple[tuple[int, ...], RowEnd]:
    """The row by itself, each step read before the next is planned."""
    tokens, end = to_its_end(engine_without_overlap(), Row("alone", GenerateRequest.model_validate_json(request)))
    return tuple(tokens), end


def random_request(rng: random.Random) -> GenerateRequest:
    """Mostly greedy; some drawn, some penalised, some with log probabilities; stops that do occur."""
    prompt, kind = rng.choice(PROMPTS), rng.random()
    fields: dict[str, Any] = {"max_tokens": rng.randint(1, 30), "seed": rng.randint(0, 3)}
    if rng.random() < 0.3:
        text = alone(GenerateRequest(prompt=prompt, max_tokens=30).model_dump_json())[1].text
        fields["stop"] = [text[place : place + 2] for place in (rng.randrange(max(1, len(text) - 1)),) if text]
    if kind < 0.1:
        fields["temperature"] = 1.0
    elif kind < 0.2:
        fields["frequency_penalty"] = 0.5
    elif kind < 0.3:
        fields["logprobs"] = True
    return GenerateRequest(prompt=prompt, **fields)


class Life:
    """Rows that come, are cancelled, and give way and come back, in random steps of one engine."""

    def __init__(self, engine: ContinuousEngine, rng: random.Random) -> None:
        self.engine, self.rng = engine, rng
        self.waiting = [Row(str(index), random_request(rng)) for index in range(rng.randint(3, 12))]
        self.rows = {row.id: row for row in self.waiting}
        self.tokens: dict[str, list[int]] = {id: [] for id in self.rows}
        self.ends: dict[str, RowEnd] = {}

    def run(self) -> None:
        while self.waiting or self.engine.live_rows():
            free = min(self.engine.free_slots(), len(self.waiting), self.rng.choice([0, 0, 1, 3]))
            self.engine.add(self.waiting[:free])
            del self.waiting[:free]
            for event in self.engine.step(0.0).events:
                self.tokens[event.id] += event.token_ids
                if event.end:
                    assert event.id not in self.ends
                    self.ends[event.id] = event.end
            self._disturb()

    def _disturb(self) -> None:
        id = self.rng.choice(list(self.rows))
        if self.rng.random() < 0.03:
            self.engine.cancel([id])
        elif self.rng.random() < 0.1:
            for gone in self.engine.preempt([id]):
                self.waiting.append(replace(self.rows[gone], progress=tuple(self.tokens[gone])))


@pytest.mark.parametrize("drafts", [True, False])
def test_every_text_is_what_it_is_alone(drafts, ahead):
    for seed in range(MIXES):
        rng = random.Random(seed)
        life = Life(graph_engine(slots=rng.randint(1, 5), prefill_tokens=rng.choice([9, 200]), drafts=drafts), rng)
        life.run()
        for id, ended in life.ends.items():
            tokens, end = alone(life.rows[id].request.model_dump_json())
            if ended.reason is FinishReason.CANCELLED:
                assert tuple(life.tokens[id]) == tokens[: len(life.tokens[id])]
            else:
                assert tuple(life.tokens[id]) == tokens
                assert (ended.reason, ended.text, ended.completion_tokens) == (
                    end.reason,
                    end.text,
                    end.completion_tokens,
                )
        assert life.ends.keys() == life.rows.keys()
    assert len(ahead) > 10 * MIXES


def test_a_row_that_is_cancelled_gives_no_token_more_of_the_step_on_its_way(ahead):
    engine = graph_engine(drafts=False)
    engine.add([row("a", max_tokens=30), row("b", "other", max_tokens=30)])
    seen = [event.token_ids for _ in range(3) for event in engine.step(0.0).events if event.id == "a"]
    assert ahead == [2, 2, 2]
    engine.cancel(["a"])
    events = {event.id: event for event in engine.step(0.0).events}
    assert events["a"].end.reason is FinishReason.CANCELLED
    assert events["a"].token_ids == []
    assert events["a"].end.completion_tokens == sum(map(len, seen))
    assert len(events["b"].token_ids) == 1
    assert ahead[3:] == [1]


def test_nothing_is_computed_behind_rows_that_all_left(ahead):
    engine = graph_engine(drafts=False)
    engine.add([row("a", max_tokens=30)])
    engine.step(0.0)
    engine.cancel(["a"])
    assert [event.end.reason for event in engine.step(0.0).events] == [FinishReason.CANCELLED]
    tokens, _ = to_its_end(engine, row("b", PROMPTS[3], max_tokens=5))
    assert tuple(tokens) == alone(row("b", PROMPTS[3], max_tokens=5).request.model_dump_json())[0]


def test_rows_with_few_tokens_are_not_run_beyond_their_last(ahead):
    """Their limit is known: a row is in no step that was certain to be in vain."""
    run(graph_engine(drafts=False), [row("a", max_tokens=2), row("b", "other", max_tokens=4)])
    assert ahead == [2, 1, 1]


def test_a_step_takes_as_long_as_the_device_was_at_it(ahead):
    """What the host did meanwhile is part of it: the device was computing."""
    engine = graph_engine(drafts=False)
    engine.add([row("a", max_tokens=9)])
    engine.step(0.0)
    begun = engine._lookahead._next.began
    before = time.perf_counter()
    assert begun < before
    assert engine.step(0.0).stats.decode_seconds >= before - begun


def fails_once(act, when):
    """The same, but the `when`-th call fails."""
    calls = iter(range(1000))

    def tried(*args, **options):
        if next(calls) == when:
            raise RuntimeError("a fault that goes by")
        return act(*args, **options)

    return tried


@pytest.mark.parametrize("when", range(1, 6))
def test_a_step_that_cannot_be_submitted_is_run_when_its_turn_comes(when, ahead, caplog):
    engine = graph_engine(drafts=False)
    rows = [row(id, PROMPTS[place], max_tokens=8) for place, id in enumerate("abc")]
    engine._runner.submit = fails_once(engine._runner.submit, when)
    recorder = run(engine, rows)
    assert "could not be submitted ahead: a fault that goes by" in caplog.text
    for each in rows:
        assert recorder.ends[each.id].text == alone(each.request.model_dump_json())[1].text


@pytest.mark.parametrize("when", range(3))
def test_a_step_that_fails_on_its_way_is_run_again(when, ahead):
    """And the one behind it, which went on with its tokens, is not read."""
    engine = graph_engine(drafts=False)
    rows = [row(id, PROMPTS[place], max_tokens=8) for place, id in enumerate("abc")]
    submit, left = engine._runner.submit, iter(range(1000))

    def submitted(chunks, after=None):
        pending = submit(chunks, after)
        if next(left) == when:
            pending.collect = fails_once(pending.collect, 0)
            engine._runner._chosen.fill_(0)  # the device's tokens are of no use either
        return pending

    engine._runner.submit = submitted
    recorder = run(engine, rows)
    for each in rows:
        assert recorder.ends[each.id].text == alone(each.request.model_dump_json())[1].text


def test_a_row_of_numbers_that_are_not_finite_ends_alone(ahead):
    engine = graph_engine(drafts=False)
    engine.add([row("a", max_tokens=20), row("b", PROMPTS[2], max_tokens=20)])
    recorder = Recorder()
    for _ in range(3):
        recorder.take(engine.step(0.0))
    (bad,) = [each for each in engine._scheduler.live if each.row.id == "a"]
    cache = engine._runner.cache
    for store in cache.stores:
        for head in range(cache.key_heads):
            first = cache.start(bad.slot) + head * cache.head_stride
            store.values.view(-1, store.values.shape[-1])[first : first + bad.computed] = float("nan")
    drive(engine, recorder, [row("c", PROMPTS[5], max_tokens=20)], [], random.Random(0))
    assert recorder.ends["a"].error == ("engine_error", "the model's output is not a finite number")
    for id, prompt in (("b", PROMPTS[2]), ("c", PROMPTS[5])):
        assert recorder.ends[id].text == alone(row(id, prompt, max_tokens=20).request.model_dump_json())[1].text
