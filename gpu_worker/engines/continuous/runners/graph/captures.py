"""CUDA graphs: one for each bucket, recorded when a step first needs it.

Only this file and the attention kernel need a GPU: what is recorded runs on a CPU too, operation by operation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Output = TypeVar("Output")

WARM_UPS = 2
"""How often a step runs before it is recorded: libraries take their workspaces, and choose their kernels, at first."""


@dataclass(frozen=True, slots=True)
class _Captured(Generic[Output]):
    graph: torch.cuda.CUDAGraph
    line: Tensor
    output: Output


class Captures(Generic[Output]):
    """Records a step of each bucket, and launches it again with other numbers.

    All graphs share one pool of memory: an output stands until the next step, of any bucket, is launched.

    Args:
        body: a step of this bucket with these numbers. Everything else that it reads and writes lies in the same
            memory each time, and it looks at no tensor's numbers.
        idle: the numbers, on the host, of a step of this bucket that computes padding alone.
        state: what one step leaves to the next; runs before a recording leave it as it was.
    """

    def __init__(self, body: Callable[[int, Tensor], Output], idle: Callable[[int], Tensor], state: Tensor) -> None:
        self._body, self._idle, self._state = body, idle, state
        self._device = state.device
        self._captured: dict[int, _Captured[Output] | None] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def run(self, bucket: int, line: Tensor) -> Output:
        """The step of this bucket with the numbers of `line`, on the host. If it cannot be recorded, it runs as it is.

        Returns:
            What the body returned when it was recorded, its tensors written anew.
        """
        if bucket not in self._captured:
            self._captured[bucket] = self._capture(bucket)
        captured = self._captured[bucket]
        if captured is None:
            return self._body(bucket, line.to(self._device, non_blocking=True))
        captured.line.copy_(line, non_blocking=True)
        captured.graph.replay()
        return captured.output

    def _capture(self, bucket: int) -> _Captured[Output] | None:
        try:
            return self._recorded(bucket, self._idle(bucket).to(self._device))
        except Exception as error:
            log.warning("steps of %d tokens run without a CUDA graph, which is slower: %s", bucket, error)
            return None

    def _recorded(self, bucket: int, line: Tensor) -> _Captured[Output]:
        self._warm_up(bucket, line)
        graph = torch.cuda.CUDAGraph()
        # Other threads of the worker may use CUDA meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            output = self._body(bucket, line)
        return _Captured(graph, line, output)

    def _warm_up(self, bucket: int, line: Tensor) -> None:
        """On the stream that is recorded, as libraries keep a workspace for each."""
        state, current = self._state.clone(), torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    self._body(bucket, line)
        finally:
            current.wait_stream(self._stream)
            self._state.copy_(state)
