"""Whether the engine's texts are the model's: each row in company, held against that row alone in float32.

The reference is transformers' own forward pass over a row's prompt and text. Of each token it says how far its logit
lies below the largest: 0 where it is the one that `generate` would have chosen. In float32 a token may be off by a tie,
in bfloat16 by what that rounds; and steps of one shape give a row the same bits in any company.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.gpu.engine_runs import Run, drive, make_engine, row, runner_of
from benchmarks.gpu.hardware import device_of, free_memory
from benchmarks.gpu.models import random_model
from benchmarks.gpu.paths import Path, paths
from benchmarks.gpu.plan import Task
from benchmarks.gpu.report import Report
from benchmarks.gpu.rows import filled_cache, running_rows, step_chunks
from benchmarks.gpu.shapes import shape_named
from gpu_worker.engines.base import Row

LAW = {torch.float32: 1e-4, torch.bfloat16: 0.25}
"""How far below the largest logit, by the reference, a greedy token's may lie."""
COMPANIES = ((3, 4), (5, 8), (17, 32), (65, 128))
"""Numbers of rows that steps of fixed shapes compute alike."""


def run(task: Task, report: Report) -> None:
    device, shape = device_of(task), shape_named("135M", task.short)
    context = 64 if task.short else 512
    exact = random_model(shape, device, torch.float32, context)
    rows = _rows(shape.vocabulary, 6 if task.short else 24, 6 if task.short else 24, context // 2)
    for dtype in LAW:
        # The numbers of the one in 16 bits are numbers of the other too, so that both are the same model.
        model = exact if dtype is torch.float32 else copy.deepcopy(exact).to(dtype)
        reference = exact if dtype is torch.float32 else copy.deepcopy(model).float()
        for path in paths(device, dtype):
            name = f"{path.name} {str(dtype).removeprefix('torch.')}"
            report.attempt(
                name, lambda path=path, model=model, reference=reference: _laws(path, model, reference, rows)
            )
        report.attempt(f"bits {dtype}", lambda model=model, dtype=dtype: _bits(model, context, dtype, task.short))
        free_memory(device)


def _rows(vocabulary: int, count: int, tokens: int, longest: int) -> list[Row]:
    """Half of them greedy, half drawn by a seed; every third prompt begins like the one before."""
    rng = random.Random(5)
    rows: list[Row] = []
    before: list[int] = []
    for index in range(count):
        ids = [rng.randrange(vocabulary) for _ in range(rng.randint(2, longest))]
        ids = (before[: len(before) * 3 // 4] + ids)[:longest] if index % 3 == 2 else ids
        before = ids
        drawn = {"temperature": 1.0, "seed": index} if index % 2 else {}
        rows.append(row(f"{'drawn' if drawn else 'greedy'}-{index}", ids, tokens, **drawn))
    return rows


def _laws(path: Path, model: PreTrainedModel, reference: PreTrainedModel, rows: Sequence[Row]) -> dict[str, Any]:
    """Few slots, so that rows come and go beside others; then each drawn row by itself."""
    context = model.config.max_position_embeddings
    engine = make_engine(model, max(2, len(rows) // 2), context, prefill_tokens=48, **path.options)
    together = drive(engine, rows)
    gaps = torch.cat([_gaps(reference, each, together) for each in rows if each.id.startswith("greedy")])
    alone = make_engine(model, 1, context, **path.options)
    drawn = [each for each in rows if each.id.startswith("drawn")]
    same = [drive(alone, [each]).tokens == {each.id: together.tokens[each.id]} for each in drawn]
    law = LAW[model.dtype]
    return {
        "runner": runner_of(engine),
        "tokens": together.count,
        "errors": together.errors,
        "largest_gap": float(gaps.max()),
        "beyond": int((gaps > law).sum()),
        "off": int((gaps > 0).sum()),
        "law": law,
        "drawn_rows": len(drawn),
        "drawn_alike": sum(same),
        # In 16 bits a prompt and the step beside others round differently, so that draws may go another way.
        "holds": not together.errors and bool((gaps <= law).all()) and (all(same) or model.dtype is not torch.float32),
    }


@torch.inference_mode()
def _gaps(reference: Any, row: Row, run: Run) -> Tensor:
    """How far each token of the row's text lies below the likeliest one, [tokens]."""
    prompt, text = list(row.request.prompt_token_ids or ()), run.tokens[row.id]
    ids = torch.tensor([prompt + text], device=reference.device)
    logits = reference(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    own = logits.gather(-1, ids[0, len(prompt) :, None])[:, 0]
    return logits.amax(-1) - own


def _bits(model: PreTrainedModel, context: int, dtype: torch.dtype, short: bool) -> dict[str, Any]:
    """Whether rows have the same logits, bit for bit, beside fewer and more rows of the same bucket."""
    cache = filled_cache(model, 8 if short else 128, context)
    found: dict[str, Any] = {}
    for path in paths(model.device, dtype):
        runner = path.runner(model, cache)
        rows = running_rows([(slot * 37) % (context // 2) + 1 for slot in range(cache.slots)], model.vocab_size)
        differences = []
        for few, many in COMPANIES[: 2 if short else None]:
            alone, beside = (runner.logits(step_chunks(rows[:count]))[:few].float() for count in (few, many))
            differences.append(float((alone - beside).abs().max()))
        found[path.name] = differences
    return found | {"holds": max(found.get("graph", [0.0])) == 0 or model.device.type == "cpu"}
