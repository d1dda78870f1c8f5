"""A step that the device may still be computing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from gpu_worker.engines.continuous.logprobs import Chosen
from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState


class PendingStep:
    """One step's tokens, on their way to the host.

    Args:
        tokens: of each position that the chunks give, on the device, [positions]; or as they were chosen already.

    Attributes:
        places: index of each row's newest token among them.
    """

    def __init__(self, chunks: Sequence[Chunk], tokens: Tensor | Chosen) -> None:
        self.places: Mapping[SequenceState, int] = dict(_places(chunks))
        self._copied: torch.cuda.Event | None = None
        if isinstance(tokens, Chosen):
            self._tokens: Chosen | Tensor = tokens
        elif tokens.device.type == "cuda":
            self._tokens = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._tokens.copy_(tokens, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        else:
            # The next step writes over them, on a CPU too.
            self._tokens = tokens.clone()

    def collect(self) -> Chosen:
        """Wait for the tokens."""
        if isinstance(self._tokens, Chosen):
            return self._tokens
        if self._copied:
            self._copied.synchronize()
        return Chosen(self._tokens.tolist())


def _places(chunks: Sequence[Chunk]) -> Iterator[tuple[SequenceState, int]]:
    end = 0
    for chunk in chunks:
        end += chunk.gives
        if chunk.gives:
            yield chunk.sequence, end - 1
