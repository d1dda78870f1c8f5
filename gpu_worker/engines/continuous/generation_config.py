"""What a model's generation config asks for, done for each row as `generate` does it.

How many tokens there are and how they are drawn each request says itself, so what the config says of that (max_length,
do_sample, temperature, top_p and the like) does not count.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from promptq.contract.errors import EngineError
from promptq.contract.request import GenerateRequest

REFUSED: Final = {
    "num_beams": 1,
    "guidance_scale": 1,
    "penalty_alpha": 0,
    "dola_layers": None,
    "watermarking_config": None,
    "token_healing": False,
    "force_words_ids": None,
    "constraints": None,
}
"""Options with which `generate` does not choose one token after another from the model's logits, or keeps a state of
its own; each with the value that changes nothing."""


class GenerationRules:
    """The options of one model that change its texts.

    Attributes:
        ends: ids that end a text: those of the config, and the tokenizer's.
        stops: strings that end a text.

    Raises:
        EngineError: an option that this engine cannot follow, or a wrong value; one line names it.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.ends = end_tokens(model, tokenizer)
        self._model: Any = model
        self._config = _followed(model, self.ends)
        self.stops = _as_list(self._config.stop_strings)
        try:
            self._has_processors = bool(self._processors([0], 1))
        except Exception as error:  # a value may be anything
            raise EngineError(f"the model's generation_config.json cannot be followed: {error}") from error

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self._model.device)

    def processors(self, prompt: list[int], limit: int, request: GenerateRequest) -> LogitsProcessorList | None:
        """What changes the logits of one row, in order; None where nothing does.

        Args:
            prompt: its tokens' ids.
            limit: the most tokens that are generated.
            request: a repetition penalty of its own takes the place of the config's.
        """
        if not self._has_processors:
            return None
        return self._processors(prompt, limit, has_own=request.repetition_penalty != 1) or None

    def _processors(self, prompt: list[int], limit: int, *, has_own: bool = False) -> LogitsProcessorList:
        config = copy(self._config)
        if has_own:
            config.repetition_penalty = None
        config.max_length = len(prompt) + limit
        processors: LogitsProcessorList = self._model._get_logits_processor(
            config,
            input_ids_seq_length=len(prompt),
            encoder_input_ids=torch.tensor([prompt], device=self._model.device),
            device=self._model.device,
        )
        return processors


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end a text: those of the generation config, and the tokenizer's."""
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    return frozenset(id for id in [*_as_list(configured), tokenizer.eos_token_id] if id is not None)


def _followed(model: PreTrainedModel, ends: frozenset[int]) -> Any:
    """The config without what does not count here: draws are the requests', and what is not finite ends its row."""
    config: Any = model.generation_config or GenerationConfig()  # type: ignore[no-untyped-call]
    for name, neutral in REFUSED.items():
        if (value := getattr(config, name, None)) not in (None, neutral):
            message = f"generation_config.json: this engine cannot follow {name}={value!r}; without it the model loads"
            raise EngineError(message)
    followed = copy(config)
    followed.do_sample, followed.remove_invalid_values, followed.renormalize_logits = False, None, None
    followed._eos_token_tensor = torch.tensor(sorted(ends), device=model.device) if ends else None
    return followed


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
