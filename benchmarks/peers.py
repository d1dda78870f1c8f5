"""The engines that are compared. Each runs a list of requests to the end, every one to its exact number of tokens."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks.workloads import Request
from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from promptq.contract.request import GenerateRequest

PAD = 2


class Peer(Protocol):
    """One engine, loaded."""

    def run(self, requests: Sequence[Request]) -> int:
        """Generate all; returns how many tokens came out, which is checked."""
        ...

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        ...


class Ours:
    """This project's engine, fed as the worker feeds it.

    Attributes:
        passes: (tokens computed, logits computed) of every pass over the model in the last run.
    """

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        self._engine = ContinuousEngine(model, tokenizer, **options)
        self._engine._starts._rules.ends = frozenset()  # type: ignore[misc]  # lengths are as drawn
        self.passes: list[tuple[int, int]] = []
        self._runner = self._engine._runner.run
        self._engine._runner.run = self._noted  # type: ignore[method-assign]

    def run(self, requests: Sequence[Request]) -> int:
        self.passes = []
        waiting = [row(str(index), request) for index, request in enumerate(requests)]
        tokens = 0
        while waiting or self._engine.live_rows():
            free = self._engine.free_slots()
            self._engine.add(waiting[:free])
            del waiting[:free]
            tokens += sum(event.tokens for event in self._engine.step(0.0).events)
        return tokens

    def cpu_seconds(self) -> float:
        return time.process_time()

    def _noted(self, chunks: Sequence[Chunk]) -> Chosen:
        tokens = sum(chunk.stop - chunk.start for chunk in chunks)
        self.passes.append((tokens, sum(chunk.gives for chunk in chunks)))
        return self._runner(chunks)


def row(id: str, request: Request) -> Row:
    """The request as the engine takes it."""
    # A stop string would end a row early; none is given, and the text may be anything.
    return Row(id, GenerateRequest(prompt=request.prompt, max_tokens=request.tokens))


class StaticBatches:
    """`model.generate` on so many requests at a time, first come first served, each batch run to its longest row."""

    def __init__(self, model: Any, size: int) -> None:
        self._model, self._size = model, size

    def run(self, requests: Sequence[Request]) -> int:
        groups = [requests[start : start + self._size] for start in range(0, len(requests), self._size)]
        return sum(self._batch(group) for group in groups)

    def cpu_seconds(self) -> float:
        return time.process_time()

    def _batch(self, group: Sequence[Request]) -> int:
        width = max(len(request.ids) for request in group)
        ids = torch.tensor([[PAD] * (width - len(request.ids)) + request.ids for request in group])
        mask = torch.tensor([[0] * (width - len(request.ids)) + [1] * len(request.ids) for request in group])
        longest = max(request.tokens for request in group)
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=longest, min_new_tokens=longest, do_sample=False, eos_token_id=None, pad_token_id=PAD
        )
        device = self._model.device
        out = self._model.generate(ids.to(device), attention_mask=mask.to(device), generation_config=config)
        assert out.shape[1] == width + longest
        return sum(request.tokens for request in group)


class GenerateBatch:
    """What `model.generate_batch` runs: transformers' continuous batching, paged, with sdpa.

    Goes through its manager, since `generate_batch` itself has one length for all requests.
    """

    def __init__(self, model: Any, rows: int, columns: int) -> None:
        self._model = model
        self._settings = ContinuousBatchingConfig(
            page_size=32, num_blocks=rows * columns // 32, max_batch_tokens=512, max_requests_per_batch=rows
        )
        self._generation = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, eos_token_id=-1, pad_token_id=PAD, max_new_tokens=columns
        )

    def run(self, requests: Sequence[Request]) -> int:
        manager: Any = self._model.continuous_batching_context_manager(
            generation_config=self._generation, continuous_batching_config=self._settings, block=True, timeout=60
        )
        with torch.no_grad(), manager as running:  # its thread runs without inference mode
            for index, request in enumerate(requests):
                running.add_request(request.ids, request_id=str(index), max_new_tokens=request.tokens, eos_token_id=-1)
            return sum(len(self._result(running).generated_tokens) for _ in requests)

    def cpu_seconds(self) -> float:
        return time.process_time()

    @staticmethod
    def _result(manager: Any) -> Any:
        while True:
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                assert not result.error, result.error
                return result
            assert manager.is_running()


class Vllm:
    """vLLM in an interpreter of its own, fed through pipes; suspended while the others have their turn.

    Args:
        options: of vLLM's `LLM`.
    """

    def __init__(self, python: str, model: Path, **options: Any) -> None:
        script = Path(__file__).with_name("vllm_peer.py")
        # -P: this folder has a queue.py, which Python's own must not be taken for.
        self._process = subprocess.Popen(
            [python, "-P", str(script), str(model), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask(None)
        self._family = self._members()
        self._suspend()

    def run(self, requests: Sequence[Request]) -> int:
        for member in self._family:
            member.resume()
        tokens = self._ask([[request.ids, request.tokens] for request in requests])
        self._suspend()
        return tokens

    def cpu_seconds(self) -> float:
        return sum(sum(member.cpu_times()[:2]) for member in self._family)

    def _members(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def _suspend(self) -> None:
        for member in self._family:
            member.suspend()

    def close(self) -> None:
        for member in self._family:
            member.kill()
        self._process.wait(30)

    def _ask(self, requests: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if requests is not None:
            self._process.stdin.write(json.dumps(requests) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("tokens "):
                return int(line.split()[1])
        raise RuntimeError(f"vLLM ended with {self._process.wait()}")
