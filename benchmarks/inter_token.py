"""How long running rows wait for their next token while prompts of 96 tokens keep arriving.

`python -m benchmarks.inter_token` prints it. The bar: the 95th percentile at most 2.5 times the median.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.peers import row
from benchmarks.workloads import Words
from gpu_worker.engines.continuous.creation import kernels_for
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.loading.loader import load
from promptq.contract.settings import WorkerSettings

PROMPT_TOKENS = 96
NEW_TOKENS = 8
BAR = 2.5


def main() -> None:
    """Measure every mix of running rows and pace of arrivals, and print one line each."""
    options = _options()
    settings = WorkerSettings(device="cpu", kernels=options.kernels)
    model, tokenizer = load(settings)
    kernels = kernels_for(settings, model)
    words = Words(tokenizer)
    print("running rows, steps between arrivals: median ms, 95th percentile ms, ratio")
    for rows in options.rows:
        for every in options.every:
            engine = ContinuousEngine(
                model, tokenizer, slots=rows + 16, context=2048, prefill_tokens=options.prefill_tokens, kernels=kernels
            )
            engine._starts._rules.ends = frozenset()
            seconds = list(measure(engine, words, rows, every, options.steps))
            median, late = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
            verdict = "" if late <= BAR * median else f"  above {BAR}"
            print(f"{rows:4}{every:4}: {median * 1e3:7.1f} {late * 1e3:7.1f} {late / median:5.2f}{verdict}", flush=True)


def measure(engine: Any, words: Words, rows: int, every: int, steps: int) -> Iterator[float]:
    """Seconds between the tokens of the running rows. All get one a step, so a step counts once for all of them."""
    rng = random.Random(1)
    warm_up = 2 * max(every, rows)
    engine.add([row(f"run-{index}", words.request(rng, 32, steps + warm_up)) for index in range(rows)])
    for step in range(warm_up + steps):
        if step % every == 0 and engine.free_slots():
            engine.add([row(f"new-{step}", words.request(rng, PROMPT_TOKENS, NEW_TOKENS))])
        started = time.perf_counter()
        engine.step(0.0)
        if step >= warm_up:
            yield time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 12, 24])
    parser.add_argument("--every", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kernels", default="auto", help="as PROMPTQ_KERNELS")
    parser.add_argument("--prefill-tokens", type=int, default=WorkerSettings(_env_file=None).prefill_tokens)
    return parser.parse_args()


if __name__ == "__main__":
    main()
