"""The law of 16-bit formats, on a CPU and on a GPU; and what only a GPU can run: the kernel, and recorded steps.

Without a GPU the latter are skipped: then nothing here says that they work.
"""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.kvcache.slots import SlotCache
from gpu_worker.engines.continuous.runners.graph import runner as runner_module
from gpu_worker.engines.continuous.runners.graph.attention import QueryRows, flash_attention, plain_attention
from gpu_worker.engines.continuous.runners.graph.buckets import BUCKETS
from gpu_worker.engines.continuous.runners.graph.runner import GraphRunner
from gpu_worker.engines.continuous.runners.layer_shapes import layer_shapes
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState
from promptq.contract.request import GenerateRequest
from tests.integration.tiny_engines import CONTEXT, Recorder, byte_tokenizer, drive, tiny_engine, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

ON_GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs a GPU with flash attention, compute capability 8.0 or newer",
)
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
MOST_BELOW = 0.25
ROWS = 8


@cache
def model_on(device: str):
    """In bfloat16, its logits scaled to where rounding is well below the bound and another token far above it."""
    model = tiny_model("llama").to(torch.bfloat16)
    model.lm_head.weight.data.mul_(0.25)
    return model.to(device)


def running_rows(runner: GraphRunner, count: int = 4) -> list[SequenceState]:
    """Rows of different lengths whose prompts are computed."""
    rows = []
    for slot in range(count):
        prompt = [slot + 1, *range(40, 43 + 7 * slot)]
        row = SequenceState(Row(str(slot), GenerateRequest(prompt="x")), prompt, limit=CONTEXT, slot=slot)
        row.append(runner.run([Chunk(row, 0, len(prompt))]).tokens[0])
        row.computed = len(prompt)
        rows.append(row)
    return rows


def next_chunks(rows: list[SequenceState]) -> list[Chunk]:
    return [Chunk(row, row.computed, row.computed + 1) for row in rows]


def runner_on(device: str, slots: int = 5) -> GraphRunner:
    model = model_on(device)
    return GraphRunner(model, SlotCache(layer_shapes(model, CONTEXT), slots, CONTEXT, model.device))


@pytest.mark.parametrize("device", DEVICES)
def test_each_token_is_nearly_the_likeliest_in_float32(device):
    """Rows in random company; the same weights in float32 judge each token behind the tokens before it."""
    rng, recorder = random.Random(5), Recorder()
    engine = tiny_engine(model_on(device), graphs=True, slots=4)
    recorder.watch(engine)
    prompts = ["".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 50))) for _ in range(ROWS)]
    rows = [Row(str(index), GenerateRequest(prompt=text, max_tokens=24)) for index, text in enumerate(prompts)]
    drive(engine, recorder, rows, [], rng)
    exact, tokenizer = tiny_model("llama").to(torch.bfloat16).float(), byte_tokenizer()
    exact.lm_head.weight.data.mul_(0.25)
    for index, text in enumerate(prompts):
        tokens, ids = recorder.tokens[str(index)], tokenizer(text)["input_ids"]
        with torch.inference_mode():
            logits = exact(torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1]
        below = logits.amax(-1) - logits[torch.arange(len(tokens)), tokens]
        assert float(below.max()) <= MOST_BELOW


@pytest.mark.parametrize("device", DEVICES)
def test_within_a_bucket_a_rows_numbers_do_not_depend_on_its_company(device, monkeypatch):
    """Bit for bit: alone, with others, and at another place among them."""
    runner = runner_on(device)
    rows = running_rows(runner)
    monkeypatch.setattr(runner_module, "bucket_for", lambda tokens: 4)
    alone = runner.logits(next_chunks(rows[:1]))[0]
    assert torch.equal(runner.logits(next_chunks(rows))[0], alone)
    assert torch.equal(runner.logits(next_chunks([rows[2], rows[0]]))[1], alone)


@ON_GPU
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "key_heads"), [(8, 8), (8, 2), (9, 3)])
@pytest.mark.parametrize("most_queries", [1, 70])
def test_flash_attention_gives_what_the_plain_one_gives(dtype, heads, key_heads, most_queries):
    """Rows at random starts of a memory that is poisoned elsewhere."""
    rng, generator, dim, stride = random.Random(1), torch.Generator("cuda").manual_seed(1), 64, 1024
    store = torch.full((12 * key_heads * stride, dim), torch.nan, dtype=dtype, device="cuda")
    slots = rng.sample(range(12), 8)
    lengths = [1, 2, stride, *(rng.randint(1, stride) for _ in range(5))]
    queries = [min(length, rng.randint(1, most_queries)) for length in lengths]
    starts = [slot * key_heads * stride + rng.randint(0, stride - n) for slot, n in zip(slots, lengths, strict=True)]
    for start, length in zip(starts, lengths, strict=True):
        for head in range(key_heads):
            at = start + head * stride
            store[at : at + length] = torch.randn(length, dim, generator=generator, device="cuda").to(dtype)
    first = torch.tensor([0, *queries], device="cuda").cumsum(0).int()
    rows = QueryRows(
        first,
        torch.tensor([*starts, 0], device="cuda").int(),
        torch.tensor(lengths, device="cuda").int(),
        most_queries,
        stride,
    )
    view = store.as_strided((len(store) - (key_heads - 1) * stride, key_heads, dim), (dim, stride * dim, 1))
    query = torch.randn(sum(queries), heads, dim, generator=generator, device="cuda").to(dtype)
    exact = plain_attention(query.float(), view.float(), view.float(), rows)
    torch.testing.assert_close(flash_attention(query, view, view, rows).float(), exact, atol=0.02, rtol=0.02)


@ON_GPU
def test_a_recorded_step_is_the_step():
    """Each bucket: recorded, launched again with other numbers, and run operation by operation."""
    runner = runner_on("cuda", slots=4)
    rows = running_rows(runner)
    for bucket in BUCKETS:
        for chosen in (rows[:1], rows[-bucket:], rows[: min(bucket, 4)]):
            numbers = runner._layout.running(next_chunks(chosen), {}, bucket)
            line = numbers.line(pinned=True)
            assert runner._captures is not None
            launched = runner._captures.run(bucket, line).logits.clone()
            with torch.inference_mode():
                assert torch.equal(runner._running(bucket, line.cuda()).logits, launched)


@ON_GPU
def test_a_recording_leaves_what_the_step_before_chose():
    """The first step of a bucket may be one that goes on with tokens that the host has not seen."""
    runner = runner_on("cuda")
    rows = running_rows(runner, 2)
    pending = runner.submit(next_chunks(rows))
    behind = [Chunk(row, row.computed + 1, row.computed + 2) for row in rows[:1]]
    ahead = runner.submit(behind, pending).collect().tokens
    for row, token in zip(rows, pending.collect().tokens, strict=True):
        row.append(token)
    assert runner.run(behind).tokens == ahead
