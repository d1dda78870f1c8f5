"""Spans of one pool under a real engine: what is moved and cleared is a row's own, and nothing beside it."""

from __future__ import annotations

import random

import pytest
import torch

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.kvcache import memory
from gpu_worker.engines.continuous.kvcache.base import KvCache, LayerShape
from gpu_worker.engines.continuous.kvcache.memory import KvMemory, allocate_spans
from gpu_worker.engines.continuous.kvcache.places import Places
from gpu_worker.engines.continuous.kvcache.slots import MEMORY_SHARE, SlotCache
from gpu_worker.engines.continuous.kvcache.spans import SpanCache
from promptq.contract.errors import EngineError
from promptq.contract.request import GenerateRequest
from tests.integration.tiny_engines import WAYS, Recorder, drive, limit_memory, tiny_engine, tiny_model

CPU = torch.device("cpu")
SHAPES = [LayerShape((2, 8), (2, 8), torch.float32)] * 2
pytestmark = pytest.mark.usefixtures("one_thread")


def caches() -> list[KvCache]:
    return [SlotCache(SHAPES, 4, 100, CPU), SpanCache(SHAPES, 4, 100, 512, CPU)]


@pytest.mark.parametrize("cache", caches(), ids=lambda cache: cache.layout)
def test_a_row_lies_where_its_start_and_the_head_stride_say(cache):
    slot = cache.whole_rows()[2]
    places = Places(torch.tensor([cache.start(slot)] * 3), torch.tensor([0, 5, 99]), cache.head_stride, cache.key_heads)
    store, new = cache.stores[1], torch.randn(3 * cache.key_heads, 8)
    store.keys.view(-1, 8)[places.vectors()] = new
    keys, values = cache.read(1, slot, 1, 100)
    assert torch.equal(keys[0][:, places.columns].transpose(0, 1).flatten(0, 1), new)
    assert keys.count_nonzero() == store.keys.count_nonzero() == new.numel()
    assert values.count_nonzero() == cache.stores[0].keys.count_nonzero() == 0
    cache.clear(slot, 100)
    assert store.keys.count_nonzero() == 0


def test_a_row_moves_whole_over_its_own_memory():
    """Down and up, by less than it is long."""
    cache = SpanCache(SHAPES, 4, 100, 512, CPU)
    for store in cache.stores:
        torch.nn.init.normal_(store.keys)
        torch.nn.init.normal_(store.values)
    for source, target, columns in ((64, 48, 100), (48, 80, 100), (80, 300, 50), (16, 0, 16)):
        before = [states.clone() for store in cache.stores for states in (store.keys, store.values)]
        cache.move(source, target, columns)
        after = [states for store in cache.stores for states in (store.keys, store.values)]
        for old, new in zip(before, after, strict=True):
            assert torch.equal(new[:, target : target + columns], old[:, source : source + columns])
            assert torch.equal(new[:, :target], old[:, :target])
            assert torch.equal(new[:, target + columns :], old[:, target + columns :])


def test_padding_has_a_place_that_no_row_has():
    cache = SpanCache(SHAPES, 4, 100, 512, CPU)
    assert cache.head_stride > cache.tokens == 512
    assert list(cache.whole_rows()) == [0, 128, 256, 384]


def test_the_pool_is_what_fits_and_at_least_one_row(monkeypatch):
    per_token = sum(shape.token_bytes for shape in SHAPES)
    for tokens, pool in ((10_000, 4 * 128), (300, 272)):
        free = int(tokens * per_token / MEMORY_SHARE) + 1
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        assert allocate_spans(SHAPES, 4, 100, CPU).tokens == pool
    monkeypatch.setattr(memory, "free_bytes", lambda _: 100 * per_token)
    with pytest.raises(EngineError, match="1 slots of 100 tokens need"):
        allocate_spans(SHAPES, 4, 100, CPU)


def test_spans_where_the_runner_loses_nothing_by_them():
    def layout(setting: str, *, is_faster: bool) -> str:
        return KvMemory(SHAPES, 4, 100, CPU, setting).by_start(is_faster=is_faster).layout

    assert [layout("auto", is_faster=faster) for faster in (True, False)] == ["spans", "slots"]
    assert [layout("spans", is_faster=False), layout("slots", is_faster=True)] == ["spans", "slots"]
    assert KvMemory(SHAPES, 4, 100, CPU, "spans").as_slots().layout == "slots"


@pytest.mark.parametrize("way", ["kernels", "operators"])
def test_rows_that_wait_for_room_end_as_they_do_alone(way, monkeypatch):
    """Six rows, and memory for about two; some are cancelled or given up, waiting or not, and go on later."""
    model, rng = tiny_model("llama"), random.Random(5)
    requests = {
        str(index): GenerateRequest(prompt="".join(rng.choices("abcdef", k=rng.randint(2, 60))), max_tokens=30)
        for index in range(6)
    }
    alone = {}
    for id, request in requests.items():
        recorder = Recorder()
        recorder.watch(engine := tiny_engine(model, **WAYS[way]))
        drive(engine, recorder, [Row(id, request)], [], rng)
        alone[id] = recorder.tokens[id]
    limit_memory(monkeypatch, model, 160)
    engine, recorder = tiny_engine(model, slots=8, layout="spans", **WAYS[way]), Recorder()
    recorder.watch(engine)
    engine.add([Row(id, request) for id, request in list(requests.items())[: engine.free_slots()]])
    waiting = [Row(id, request) for id, request in requests.items() if id not in engine._texts]
    crowded, given_up = 0, list[str]()
    while waiting or engine.live_rows():
        result = engine.step(0.0)
        recorder.take(result)
        tokens = result.stats.kv_tokens
        assert tokens.used <= tokens.reserved <= tokens.capacity == 160
        crowded += bool(engine._scheduler.crowded_out)
        for row in waiting[: engine.free_slots()]:
            engine.add([row])
            waiting.remove(row)
        running = [id for id in recorder.tokens if id in engine._texts and len(recorder.tokens[id]) > 5]
        if running and not given_up:
            given_up = engine.preempt(running[:1])
            waiting += [Row(id, requests[id], progress=tuple(recorder.tokens[id])) for id in given_up]
    assert crowded
    assert recorder.tokens == alone
    assert {end.reason for end in recorder.ends.values()} <= {FinishReason.LENGTH, FinishReason.STOP}


def test_a_row_that_fails_leaves_zeros_in_its_span_and_others_as_they_are(monkeypatch):
    model = tiny_model("llama")
    limit_memory(monkeypatch, model, 400)
    engine = tiny_engine(model, layout="spans", prefill_tokens=200, **WAYS["operators"])
    rows = [Row(id, GenerateRequest(prompt=id * 20, max_tokens=9)) for id in "abc"]
    engine.add(rows)
    engine.step(0.0)
    first, second, third = engine._scheduler.live
    cache = engine._runner.cache
    kept = [cache.read(0, row.slot, 1, row.computed)[0].clone() for row in (first, third)]
    engine._fail(second, ("engine_error", "as it were"))
    keys, values = cache.read(0, second.slot, 1, second.most_tokens)
    assert keys.count_nonzero() == values.count_nonzero() == 0
    assert all(
        torch.equal(cache.read(0, row.slot, 1, row.computed)[0], before)
        for row, before in zip((first, third), kept, strict=True)
    )
    assert second.most_tokens == 29
    assert engine._scheduler.kv_tokens.reserved == 2 * 32
    assert engine._scheduler.prefixes.best([*second.prompt, 1]) == (-1, 0)
