"""Embeddings by vLLM: what a step of ours takes is given to it together, and run until it has them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from gpu_worker.engines.continuous.encoder.embedder import Embedder
from gpu_worker.engines.vllm.core import close, step
from promptq.contract.errors import EngineBroken

MOST_PROBED = 512
"""Tokens that are computed beside a probe: nothing is padded here, and vLLM has tried its memory itself."""


class VllmEmbedder(Embedder):
    """A model that vLLM runs as one that pools. See `Embedder`.

    Between two calls vLLM has no rows: whose turn it is, and who is cancelled, is decided before they come here.

    Args:
        core: vLLM's LLMEngine, its core in this process, its runner `pooling`.
        longest: the most tokens of a row.
    """

    def __init__(self, core: Any, longest: int) -> None:
        self._core = core
        self._numbers = count()
        self._is_open = True
        model = core.vllm_config.model_config
        padding = getattr(model.hf_text_config, "pad_token_id", None) or 0
        super().__init__(int(model.get_vocab_size()), model.dtype, padding, min(longest, MOST_PROBED))

    def embed(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `Embedder`."""
        ids = [str(next(self._numbers)) for _ in rows]
        try:
            for id, row in zip(ids, rows, strict=True):
                self._submit(id, row)
            found = self._found(set(ids))
        except EngineBroken:
            raise
        except Exception:
            self._core.abort_request(ids)
            raise
        return [found[id] for id in ids]

    def close(self) -> None:
        if self._is_open:
            close(self._core)
        self._is_open = False

    def _submit(self, id: str, row: Iterable[int]) -> None:
        from vllm.pooling_params import PoolingParams

        prompt = {"type": "token", "prompt_token_ids": list(row)}
        self._core.add_request(id, prompt, PoolingParams(task="embed"))

    def _found(self, awaited: set[str]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        while awaited - found.keys():
            if not self._core.has_unfinished_requests():
                raise RuntimeError("vLLM gave a row up")
            for output in step(self._core):
                if output.error:
                    raise RuntimeError(output.error.message)
                found[output.request_id] = output.outputs.data.float().tolist()
        return found
