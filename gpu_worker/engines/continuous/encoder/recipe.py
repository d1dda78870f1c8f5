"""What makes an embedding of a model's last hidden states, as the files beside its weights say. No torch here.

The files are those of sentence-transformers: `modules.json` lists the parts, of which each may have a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from promptq.contract.errors import EngineError

PoolingMode = Literal["cls", "mean", "max", "lasttoken"]
"""Which of a prompt's hidden states count: the first token's, their mean, their maxima, or the last token's."""
ReadJson = Callable[[str], Any]
"""Gives the content of one of the model's JSON files by its path there, or None where there is none."""

_PARTS: Final = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
_OLD_NAMES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_BACKBONES: Final = ("Model", "ForMaskedLM", "ForPreTraining")
"""How the names of classes end whose hidden states are of use as they are."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an embedding is made.

    Attributes:
        normalize: to the length 1.
        max_tokens: the longest prompt that the model was made for; 0: its files do not say.
        lower_case: the tokenizer is to see small letters only.
        prefix: what is put before every text.
    """

    pooling: PoolingMode = "mean"
    normalize: bool = False
    max_tokens: int = 0
    lower_case: bool = False
    prefix: str = ""


def find_recipe(config: Any, masked: Mapping[str, str], read: ReadJson) -> Recipe | None:
    """How the model makes embeddings, or None for one that generates text.

    Args:
        config: of transformers.
        masked: of the model types that have one, the class that fills masks: their hidden states see both sides.

    Raises:
        EngineError: the files ask for what is not supported.
    """
    modules = read("modules.json")
    if modules is not None:
        return _of_modules(modules, read)
    names = config.architectures or ()
    is_backbone = bool(names) and all(name.endswith(_BACKBONES) for name in names)
    sees_both_sides = config.model_type in masked and not (config.is_encoder_decoder or _decodes(config))
    return Recipe() if is_backbone and sees_both_sides else None


def _decodes(config: Any) -> bool:
    """Whether an encoder's configuration makes it a decoder, whose tokens see what is before them."""
    return bool(getattr(config, "is_decoder", False))


def _of_modules(modules: Sequence[Mapping[str, Any]], read: ReadJson) -> Recipe:
    parts = [str(module["type"]).rpartition(".")[2] for module in modules]
    if parts not in _PARTS or modules[0].get("path"):
        raise EngineError(f"modules.json: {' + '.join(parts)} is not supported: only {' + '.join(_PARTS[1])}")
    transformer = read("sentence_bert_config.json") or {}
    prefix = _prefix(read("config_sentence_transformers.json") or {})
    pooling = read(f"{modules[1]['path']}/config.json") or {}
    if prefix and pooling.get("include_prompt") is False:
        raise EngineError("include_prompt: a default prompt that is left out of the pooling is not supported")
    return Recipe(
        _pooling_mode(pooling),
        normalize=len(parts) == 3,
        max_tokens=transformer.get("max_seq_length") or 0,
        lower_case=bool(transformer.get("do_lower_case")),
        prefix=prefix,
    )


def _prefix(config: Mapping[str, Any]) -> str:
    name = config.get("default_prompt_name")
    return str(config.get("prompts", {}).get(name) or "") if name else ""


def _pooling_mode(config: Mapping[str, Any]) -> PoolingMode:
    given = config.get("pooling_mode") or [mode for name, mode in _OLD_NAMES.items() if config.get(name)] or "mean"
    modes = [given] if isinstance(given, str) else given
    known = [mode for mode in get_args(PoolingMode) if [mode] == modes]
    if not known:
        raise EngineError(f"pooling: {', '.join(modes)} is not supported: only {', '.join(get_args(PoolingMode))}")
    return known[0]  # type: ignore[no-any-return]
