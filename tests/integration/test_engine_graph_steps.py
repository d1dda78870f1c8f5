"""The runner for CUDA graphs, on a CPU: its attention, its steps of fixed shapes, its memory, how many operations.

What is launched on a GPU is in test_engine_cuda.py.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.kvcache.slots import SlotCache
from gpu_worker.engines.continuous.runners.graph import runner as runner_module
from gpu_worker.engines.continuous.runners.graph.attention import QueryRows, plain_attention
from gpu_worker.engines.continuous.runners.graph.runner import GraphRunner
from gpu_worker.engines.continuous.runners.graph.store_views import spare_vector, store_views
from gpu_worker.engines.continuous.runners.layer_shapes import layer_shapes
from gpu_worker.engines.continuous.runners.load_check import difference
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from promptq.contract.request import GenerateRequest
from tests.integration.tiny_engines import CONTEXT, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = ["llama", "llama3", "qwen2", "qwen3", "phi3"]
LAYERS = 3
# Of one decode step on CUDA, views left out.
LAYER_OPERATIONS = 14
HEAD_NORM_OPERATIONS = 2
OTHER_OPERATIONS = 13


def runner_for(model, slots: int = 5) -> GraphRunner:
    return GraphRunner(model, SlotCache(layer_shapes(model, CONTEXT), slots, CONTEXT, model.device))


def row_at(slot: int, prompt: list[int], **fields: Any) -> SequenceState:
    request = GenerateRequest(prompt="x", **fields)
    return SequenceState(Row(str(slot), request), prompt, limit=CONTEXT, slot=slot)


def computed(runner: GraphRunner, rows: list[SequenceState]) -> None:
    """Prompts, all in one step."""
    chosen = runner.run([Chunk(row, 0, len(row.prompt)) for row in rows])
    for row, token in zip(rows, chosen.tokens, strict=True):
        row.computed = len(row.prompt)
        row.append(token)


def next_chunks(rows: list[SequenceState]) -> list[Chunk]:
    return [Chunk(row, row.computed, row.computed + 1) for row in rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_it_passes_the_check_at_the_start(name, dtype):
    model = tiny_model(name).to(dtype)
    assert difference(model, runner_for(model), CONTEXT) is None


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_plain_attention_sees_each_rows_own_keys_and_no_later_ones(heads):
    """Rows at random places of a poisoned memory, in no order."""
    torch.manual_seed(heads[1])
    (query_heads, key_heads), dim, stride = heads, 8, 64
    store = torch.full((3, key_heads, stride, dim), torch.nan)
    rows = [(2, 20, 40, 3), (0, 0, 64, 7), (1, 5, 1, 1), (2, 3, 5, 1)]  # slot, first column, keys, queries
    for slot, at, length, _ in rows:
        store[slot, :, at : at + length] = torch.randn(key_heads, length, dim)
    _, _, lengths, queries = zip(*rows, strict=True)
    first = [0, *accumulate(queries)]
    starts = [slot * key_heads * stride + at for slot, at, _, _ in rows]
    ends, begins, counts = (torch.tensor(numbers).int() for numbers in (first, [*starts, 0], lengths))
    given = QueryRows(ends, begins, counts, 7, 64)
    query = torch.randn(sum(queries), query_heads, dim)
    view = store.view(-1, dim).as_strided(
        (3 * key_heads * stride - (key_heads - 1) * stride, key_heads, dim), (dim, stride * dim, 1)
    )
    out = plain_attention(query, view, view, given)
    for (slot, at, length, count), begin in zip(rows, first, strict=False):
        for index in range(count):
            seen = store[slot, :, at : at + length - count + index + 1].repeat_interleave(query_heads // key_heads, 0)
            scores = (query[begin + index][:, None] @ seen.transpose(1, 2)).mul(dim**-0.5).softmax(-1)
            torch.testing.assert_close(out[begin + index], (scores @ seen)[:, 0])


def test_padding_changes_nothing_that_a_row_reads():
    """The same rows in a bucket that they fill and in one that they do not; the spare vector alone may be written."""
    model = tiny_model("llama")
    runner = runner_for(model)
    rows = [row_at(slot, [slot + 1] * 5) for slot in (0, 2, 3)]
    computed(runner, rows)
    before = [store.keys.clone() for store in runner.cache.stores]
    logits = runner.logits(next_chunks(rows))
    for store, kept in zip(runner.cache.stores, before, strict=True):
        written = (store.keys != kept).any(-1)
        for row in rows:
            written[row.slot, :, row.computed] = False
        spare, heads = spare_vector(runner.cache), torch.arange(runner.cache.key_heads) * runner.cache.head_stride
        assert set(written.flatten().nonzero()[:, 0].tolist()) <= set((spare + heads).tolist())
    torch.testing.assert_close(runner.logits(next_chunks(rows[:2])), logits[:2])


def test_a_step_follows_one_whose_tokens_the_host_has_not_seen():
    model = tiny_model("qwen2")
    texts = []
    for overlaps in (False, True):
        runner = runner_for(model)
        rows = [row_at(slot, [slot + 9] * 4) for slot in (1, 3)]
        computed(runner, rows)
        first = next_chunks(rows)
        second = [Chunk(row, row.computed + 1, row.computed + 2) for row in reversed(rows)]
        if overlaps:
            pending = runner.submit(first)
            following = runner.submit(second, pending)
            tokens = [*pending.collect().tokens, *following.collect().tokens]
        else:
            tokens = runner.run(first).tokens
            for row, token in zip(rows, tokens, strict=True):
                row.append(token)
            tokens = [*tokens, *runner.run(second).tokens]
        texts.append(tokens)
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_more_rows_than_the_largest_bucket_run_too(monkeypatch):
    monkeypatch.setattr(runner_module, "bucket_for", lambda tokens: None)
    model = tiny_model("llama")
    assert difference(model, runner_for(model), CONTEXT) is None


@torch.inference_mode()
def inference_runner(model) -> GraphRunner:
    return runner_for(model)


def test_a_model_that_was_joined_in_inference_mode_can_be_used_outside_it():
    model = tiny_model("llama")
    inference_runner(model)
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_weights_are_joined_and_not_held_twice():
    model = tiny_model("llama")
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        wanted = model(ids).logits
    runner_for(model)
    layer = model.model.layers[0]
    stores = {
        name: module.weight.untyped_storage().data_ptr()
        for name, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert stores["self_attn.q_proj"] == stores["self_attn.k_proj"] == stores["self_attn.v_proj"]
    assert stores["mlp.gate_proj"] == stores["mlp.up_proj"] != stores["mlp.down_proj"]
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, wanted)


class Operations(TorchDispatchMode):
    """Counts what does work: in inference mode a norm and a product are one each, as on CUDA."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MODELS)
def test_a_decode_step_takes_few_operations(name):
    """Counted on torch's device without memory, where the operators that CUDA runs, flash attention included, check
    their arguments and compute nothing.
    """
    model = tiny_model(name)
    shapes = layer_shapes(model, CONTEXT)
    runner = GraphRunner(model.to("meta"), SlotCache(shapes, 4, CONTEXT, torch.device("meta")))
    line: Tensor = runner._idle(4).to("meta")
    with torch.inference_mode(), Operations() as operations:
        runner._running(4, line)
    more = HEAD_NORM_OPERATIONS if name == "qwen3" else 0
    assert sum(operations.counts.values()) <= LAYERS * (LAYER_OPERATIONS + more) + OTHER_OPERATIONS
    assert operations.counts["aten._flash_attention_forward.default"] == LAYERS


def test_flash_attention_is_called_as_every_torch_since_2_5_has_it():
    """The operator has got more arguments since, which are left at their defaults."""
    old = torch._C.parse_schema(
        "aten::_flash_attention_forward(Tensor query, Tensor key, Tensor value, Tensor? cum_seq_q, Tensor? cum_seq_k,"
        " SymInt max_q, SymInt max_k, float dropout_p, bool is_causal, bool return_debug_mask, *, float? scale=None,"
        " SymInt? window_size_left=None, SymInt? window_size_right=None, Tensor? seqused_k=None,"
        " Tensor? alibi_slopes=None) -> (Tensor output, Tensor softmax_logsumexp, Tensor rng_state, Tensor unused,"
        " Tensor debug_attn_mask)"
    )
    schema: Any = torch.ops.aten._flash_attention_forward.default._schema
    assert schema.is_backward_compatible_with(old)


def test_a_store_is_seen_by_token_whatever_its_row():
    cache = SlotCache(layer_shapes(tiny_model("llama"), CONTEXT), 3, CONTEXT, torch.device("cpu"))
    keys = cache.stores[1].keys
    keys.copy_(torch.arange(keys.numel()).view(keys.shape))
    views = store_views(cache)[1]
    for slot, column in ((0, 0), (1, 17), (2, CONTEXT - 1)):
        assert torch.equal(views.read_keys[cache.start(slot) + column], keys[slot, :, column])
