"""Two models that share the room of one worker: the scaler's turns on the real stack, and beside alternation and FIFO.

`python -m benchmarks.model_turns` runs a mixed load through real scaler, workers and models, compares every text with
what its model says alone, and prints swaps and waits. Then the same load is played through the three policies in a
model of the machine, with the start, drain and service times that the real run took: alternation goes over to the
other model whenever a batch is done and the other waits; FIFO takes jobs in the order of their coming, whatever a swap
costs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from gpu_worker.engines.continuous.loading import packaged
from promptq.contract.job import Job
from promptq.contract.metrics import ScalerMetrics
from promptq.contract.request import JobRequest
from promptq.contract.settings import DEFAULT_MODEL, ScalerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import JobStore, NewJob, connect
from promptq.runtime import programs
from scaler.assembly import Assembly
from scaler.fleets.gpus import Gpus
from scaler.fleets.local import LocalFleet
from scaler.loop import ScalerLoop
from scaler.scaling import Scaling

TICK_SECONDS = 0.25
MAX_TOKENS = 24
SLOTS = 16
MODELS = ("smollm2", "tiny")
WORDS = ["river", "stone", "light", "garden", "winter", "music", "bread", "island", "letter", "window"]


@dataclass(frozen=True)
class Ask:
    """One job of the load: when, in seconds from the beginning, for whom, and what."""

    at: float
    model: str
    prompt: str


@dataclass(frozen=True)
class Costs:
    """What the machine takes for it, in seconds: to start a worker, to let one go, and for a batch of jobs."""

    start: float
    drain: float
    batch: float


def main() -> None:
    """Run the load for real, then play it."""
    options = _options()
    rng = random.Random(options.seed)
    times = sorted(rng.uniform(0, options.seconds) for _ in range(options.jobs))
    load = [Ask(at, rng.choice(MODELS), " ".join(rng.choices(WORDS, k=5))) for at in times]
    with tempfile.TemporaryDirectory() as folder:
        costs = _real(load, Path(folder))
    for name, stay in (("turns", 4 * costs.start), ("alternation", 0.0), ("FIFO", None)):
        _print(f"played, {name}", *_play(load, costs, stay))


def _real(load: Sequence[Ask], folder: Path) -> Costs:
    """Run it on the real stack; tells what things took there."""
    settings = ScalerSettings.load(models_file=str(_catalogue(folder)), max_workers=1)
    alone = _run(_spread(load, 0.0), settings, folder / "alone", in_turn=True)
    texts = {(ask.model, ask.prompt): job.result.text for ask, job in zip(load, alone.jobs, strict=True) if job.result}
    mixed = _run(load, settings, folder / "mixed")
    wrong = [
        ask
        for ask, job in zip(load, mixed.jobs, strict=True)
        if job.result is None or job.result.text != texts[ask.model, ask.prompt]
    ]
    _print("real, turns", mixed.swaps, mixed.waits, mixed.seconds)
    print(f"  {len(load) - len(wrong)} of {len(load)} texts are what the model says alone", flush=True)
    return Costs(mixed.start, 0.5, statistics.median(job.result.run_seconds for job in mixed.jobs if job.result))


@dataclass
class Run:
    """What became of a load."""

    jobs: list[Job]
    swaps: int
    waits: list[float]
    seconds: float
    start: float


def _run(load: Sequence[Ask], settings: ScalerSettings, folder: Path, in_turn: bool = False) -> Run:
    """Play the load against a scaler that runs here. In turn: one model's jobs after the other's."""
    server = EmbeddedServer(folder).start()
    try:
        store = JobStore(connect(server.url), settings)
        ids: list[str] = []
        with _scaler(settings, store, server.url) as (loop, metrics):
            started = time.monotonic()
            order = sorted(range(len(load)), key=lambda i: load[i].model) if in_turn else range(len(load))
            waiting = [(load[i], i) for i in order]
            by_place: dict[int, str] = {}
            jobs: list[Job | None] = [None]
            while waiting or not all(job and job.status.is_terminal for job in jobs):
                while waiting and waiting[0][0].at <= time.monotonic() - started:
                    ask, place = waiting.pop(0)
                    request = JobRequest(prompt=ask.prompt, model=ask.model, max_tokens=MAX_TOKENS, cache=False)
                    by_place[place] = store.submit(NewJob.create(request, ask.model, ask.model)).job.id
                loop.loop(time.time())
                time.sleep(TICK_SECONDS)
                ids = [by_place[place] for place in sorted(by_place)]
                jobs = list(store.get_many(ids))
            seconds = time.monotonic() - started
        ended = [job for job in jobs if job]
        waits = [(job.started_at or 0.0) - job.created_at for job in ended]
        starts = [metrics.startup.labels(model) for model in MODELS]
        count = int(sum(sum(bucket.get() for bucket in start._buckets) for start in starts))
        return Run(ended, count, waits, seconds, sum(start._sum.get() for start in starts) / max(1, count))
    finally:
        server.stop()


@contextmanager
def _scaler(settings: ScalerSettings, store: JobStore, url: str) -> Iterator[tuple[ScalerLoop, ScalerMetrics]]:
    assembly = Assembly(settings, Gpus(allowed=""))
    given = assembly.fleet_settings()
    given.environment.update(
        programs.environment(
            PROMPTQ_REDIS_URL=url,
            PROMPTQ_MODELS_FILE=settings.models_file,
            PROMPTQ_SLOTS=str(SLOTS),
            PROMPTQ_WORKER_METRICS_PORT="0",
        )
    )
    fleet = LocalFleet(given)
    metrics = ScalerMetrics(CollectorRegistry())
    loop = ScalerLoop(fleet, Scaling(fleet, assembly.specs(), assembly.machine.rooms, metrics, settings), store)
    loop.initialize()
    try:
        yield loop, metrics
    finally:
        loop.shutdown()


def _play(load: Sequence[Ask], costs: Costs, stay: float | None) -> tuple[int, list[float], float]:
    """Swaps, each job's wait, and the seconds until all is done. A worker runs batches of at most SLOTS jobs.

    Args:
        stay: for how long a model keeps the worker while the other waits; None: whose job is the oldest has it.
    """
    left = {model: [ask for ask in load if ask.model == model] for model in MODELS}
    now, holder, since, swaps = 0.0, "", 0.0, 0
    waits: list[float] = []
    while any(left.values()):
        there = {model: [ask for ask in left[model] if ask.at <= now] for model in MODELS}
        able = [model for model in MODELS if there[model]]
        if not able:
            now = min(ask.at for asks in left.values() for ask in asks)
            continue
        first = min(able, key=lambda model: there[model][0].at)
        others = [model for model in able if model != holder]
        if stay is None:
            chosen = first
        elif holder in able and (not others or now - since < stay):
            chosen = holder
        else:
            chosen = others[0] if others else holder
        if chosen != holder:
            now += (costs.drain if holder else 0.0) + costs.start
            holder, since, swaps = chosen, now, swaps + 1
            there[chosen] = [ask for ask in left[chosen] if ask.at <= now]
        batch = there[chosen][:SLOTS]
        if stay is None:
            other = min((ask.at for model in MODELS if model != chosen for ask in left[model]), default=float("inf"))
            batch = [ask for ask in batch if ask.at < other] or batch[:1]
        waits += [now - ask.at for ask in batch]
        left[chosen] = left[chosen][len(batch) :]
        now += costs.batch
    return swaps, waits, now


def _print(name: str, swaps: int, waits: Sequence[float], seconds: float) -> None:
    ranked = sorted(waits)
    p95 = ranked[int(0.95 * (len(ranked) - 1))]
    print(
        f"{name}: {swaps} starts, wait p50 {statistics.median(ranked):.1f} s, p95 {p95:.1f} s, "
        f"longest {ranked[-1]:.1f} s, all done after {seconds:.1f} s",
        flush=True,
    )


def _spread(load: Sequence[Ask], at: float) -> list[Ask]:
    return [Ask(at, ask.model, ask.prompt) for ask in load]


def _catalogue(folder: Path) -> Path:
    """The default model, and a random one with its tokenizer."""
    tiny = folder / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(packaged.folder(ScalerSettings(_env_file=None).data_dir))
    torch.manual_seed(3)
    LlamaForCausalLM(
        LlamaConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=len(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            max_position_embeddings=512,
            initializer_range=0.5,
        )
    ).save_pretrained(tiny)
    tokenizer.save_pretrained(tiny)
    file = folder / "models.toml"
    sources = zip(MODELS, (DEFAULT_MODEL, str(tiny)), strict=True)
    file.write_text("".join(f'[[model]]\nname = "{name}"\nsource = "{source}"\n' for name, source in sources))
    return file


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="over which they come")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
