"""The engine beside what people would use instead, on the same machine in the same run: `make bench-engine`.

Requested tokens are counted, not padding; every engine generates exactly the tokens that were drawn, end tokens or
not. After one warm-up the engines take turns, and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.floor import Floor
from benchmarks.peers import GenerateBatch, Ours, Peer, StaticBatches, Vllm
from benchmarks.workloads import WORKLOADS, Request, Words, make
from gpu_worker.engines.continuous.creation import kernels_for
from gpu_worker.engines.continuous.kernels.library import Kernels
from gpu_worker.engines.continuous.loading import packaged
from gpu_worker.engines.continuous.loading.loader import load
from gpu_worker.engines.continuous.runners.linear import Linear, PlainLinear, linear
from promptq.contract.settings import WorkerSettings

Times = dict[str, dict[str, list[float]]]


def main() -> None:
    """Run the workloads, print a table of each, and write all of it as JSON."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = WorkerSettings(device="cpu", model=packaged.NAME, kernels=options.kernels)
    model, tokenizer = load(settings)
    chosen = {"slots": options.slots, "prefill_tokens": options.prefill_tokens, "drafts": options.drafts}
    kernels = kernels_for(settings, model)
    ours = Ours(model, tokenizer, context=2048, kernels=kernels, **chosen)
    peers: dict[str, Peer] = {"ours": ours} | _peers(options, settings, model, tokenizer)
    floors = {name: Floor(model, make) for name, make in _floors(kernels).items()}
    words = Words(tokenizer)
    report: dict[str, Any] = {"machine": _machine(), "options": vars(options), "workloads": {}}
    for name in options.workloads.split(","):
        report["workloads"][name] = _compare(name, words, options, peers, ours, floors)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1, default=str) + "\n")
    print(f"written to {options.out}")
    if isinstance(vllm := peers.get("vllm"), Vllm):
        vllm.close()


def _options() -> argparse.Namespace:
    defaults = WorkerSettings(_env_file=None)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of " + ", ".join(WORKLOADS))
    parser.add_argument(
        "--engines", default="static-4,static-8,generate_batch", help="beside ours: these, or ours-avx2, -off"
    )
    parser.add_argument("--vllm", metavar="PYTHON", help="an interpreter that has vLLM")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="threads of torch, vLLM's excepted; 0: its own choice")
    parser.add_argument("--slots", type=int, default=0, help="0: as `auto` takes")
    parser.add_argument("--no-drafts", dest="drafts", action="store_false", help="ours one token a row and step")
    parser.add_argument("--kernels", default="auto", help="as PROMPTQ_KERNELS")
    parser.add_argument("--prefill-tokens", type=int, default=defaults.prefill_tokens)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/engine.json"))
    return parser.parse_args()


def _peers(options: argparse.Namespace, settings: WorkerSettings, model: Any, tokenizer: Any) -> dict[str, Peer]:
    def ours_with(kernels: str) -> Peer:
        other = kernels_for(settings.model_copy(update={"kernels": kernels}), model)
        return Ours(model, tokenizer, context=2048, slots=options.slots, kernels=other)

    known: dict[str, Callable[[], Peer]] = {
        **{f"ours-{name}": partial(ours_with, name) for name in ("avx512", "avx2", "neon", "off")},
        "static-4": lambda: StaticBatches(model, 4),
        "static-8": lambda: StaticBatches(model, 8),
        "generate_batch": lambda: GenerateBatch(model, 48, 1024),
    }
    peers = {name: known[name]() for name in options.engines.split(",") if name}
    if options.vllm:
        peers["vllm"] = Vllm(options.vllm, packaged.folder(settings.data_dir))
    return peers


def _floors(kernels: Kernels | None) -> dict[str, Callable[[Tensor, Tensor | None], Linear]]:
    """The same products as the engine takes, as torch's best, and as transformers takes them."""
    return {
        "floor: engine's products": lambda weight, bias: linear(weight, bias, kernels),
        "floor: oneDNN": linear,
        "floor: plain linear": PlainLinear,
    }


def _compare(
    name: str, words: Words, options: argparse.Namespace, peers: dict[str, Peer], ours: Ours, floors: dict[str, Floor]
) -> dict[str, Any]:
    times: Times = {engine: {"seconds": [], "cpu_seconds": []} for engine in [*peers, *floors]}
    for repeat in range(-1, options.repeats):  # the first is warm-up
        requests = make(name, words, options.seed, repeat)
        for engine, peer in peers.items():
            _note(times[engine], repeat, peer.cpu_seconds, lambda peer=peer, requests=requests: _run(peer, requests))
            _tell(name, repeat, engine, times[engine])
        for floor, products in floors.items():
            _note(times[floor], repeat, time.process_time, lambda products=products: products.seconds(ours.passes))
            _tell(name, repeat, floor, times[floor])
    tokens = sum(request.tokens for request in make(name, words, options.seed, 0))
    print(_table(name, tokens, times))
    return {"tokens": tokens, "passes": ours.passes, "times": times}


def _tell(name: str, repeat: int, engine: str, times: dict[str, list[float]]) -> None:
    """A run takes minutes: say how far it is."""
    took = f"{times['seconds'][-1]:.1f} s" if times["seconds"] else "warm"
    print(f"{name}, run {repeat + 1}: {engine} {took}", file=sys.stderr, flush=True)


def _run(peer: Peer, requests: Sequence[Request]) -> None:
    wanted = sum(request.tokens for request in requests)
    got = peer.run(requests)
    assert got == wanted, f"{type(peer).__name__} generated {got} tokens of {wanted}"


def _note(times: dict[str, list[float]], repeat: int, cpu: Callable[[], float], act: Callable[[], Any]) -> None:
    started, cpu_started = time.perf_counter(), cpu()
    act()
    if repeat >= 0:
        times["seconds"].append(time.perf_counter() - started)
        times["cpu_seconds"].append(cpu() - cpu_started)


def _table(name: str, tokens: int, times: Times) -> str:
    median = {engine: statistics.median(taken["seconds"]) for engine, taken in times.items()}
    lines = [
        f"\n{name}: {tokens} tokens",
        f"{'':26}{'seconds':>9}{'tokens/s':>10}{'CPU s':>8}{'ours ÷ it':>11}  each run",
    ]
    for engine, taken in times.items():
        each = " ".join(f"{seconds:.1f}" for seconds in taken["seconds"])
        cpu = statistics.median(taken["cpu_seconds"])
        ratio = median[engine] / median["ours"]
        lines.append(f"{engine:26}{median[engine]:9.2f}{tokens / median[engine]:10.1f}{cpu:8.1f}{ratio:11.2f}  {each}")
    return "\n".join(lines)


def _machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
