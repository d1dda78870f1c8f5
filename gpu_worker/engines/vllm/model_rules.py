"""What a model's generation_config.json asks for, as far as it can be followed here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, Self

import torch
from transformers import PreTrainedTokenizerBase

from promptq.contract.request import GenerateRequest

log = logging.getLogger(__name__)

NOT_FOLLOWED: Final = (
    "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
    "forced_eos_token_id", "min_length", "min_new_tokens", "encoder_repetition_penalty", "guidance_scale",
)  # fmt: skip
"""Options that change texts, which the continuous engine follows and this one does not: they are warned of."""


class ModelRules:
    """The options of one model that change its texts.

    Args:
        config: the contents of its generation_config.json.
        own: the id that ends a text as the tokenizer says.

    Attributes:
        ends: ids that end a text.
        stops: strings that end a text.
        device: of what is added to logits.
    """

    def __init__(self, config: dict[str, Any], own: int | None, device: str = "cpu") -> None:
        self.ends = frozenset(id for id in [*_as_list(config.get("eos_token_id")), own] if id is not None)
        self.stops: Sequence[str] = _as_list(config.get("stop_strings"))
        self.device = torch.device(device)
        self._repetition = float(config.get("repetition_penalty") or 1.0)
        if ignored := [name for name in NOT_FOLLOWED if config.get(name)]:
            log.warning("generation_config.json: this engine does not follow %s", ", ".join(ignored))

    @classmethod
    def of(cls, model_config: Any, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Those of vLLM's ModelConfig and its tokenizer."""
        own: Any = tokenizer.eos_token_id
        return cls(model_config.try_get_generation_config(), own)

    def processors(self, _prompt: list[int], _limit: int, _request: GenerateRequest) -> None:
        """There are none; see `with_own`."""

    def with_own(self, request: GenerateRequest) -> GenerateRequest:
        """The request with the model's repetition penalty, where it has none of its own."""
        if self._repetition == 1 or request.repetition_penalty != 1:
            return request
        return request.model_copy(update={"repetition_penalty": self._repetition})


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
