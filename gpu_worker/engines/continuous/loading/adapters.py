"""A LoRA adapter in a model: merged into its weights, so that every runner computes it as it does any other model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel

from promptq.contract.errors import EngineError

CONFIG = "adapter_config.json"
UNMERGEABLE: Final = ("alora_invocation_tokens", "arrow_config", "layer_replication", "monteclora_config")
"""Options with which what an adapter does depends on the text, or the model gets another shape."""


def adapter_folder(name: str) -> Path:
    """The folder of the setting.

    Raises:
        EngineError: there is no such folder, or no adapter in it.
    """
    folder = Path(name).expanduser()
    if not (folder / CONFIG).is_file():
        raise EngineError(f"adapter {name!r}: no such folder, or no {CONFIG} in it")
    return folder


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter's products added to its own weights, in its own number format.

    Raises:
        EngineError: peft is not installed, or the adapter cannot be merged into this model; one line says why.
    """
    if find_spec("peft") is None:
        raise EngineError("an adapter needs peft: run: pip install --no-deps -r requirements/lora.txt")
    from peft import PeftConfig, PeftModel

    config: Any = PeftConfig.from_pretrained(str(folder))
    _check_config(config)
    config.inference_mode = True
    wrapped: Any = PeftModel(model, config)
    loaded = wrapped.load_adapter(str(folder), "default")
    _check_weights(loaded.missing_keys, loaded.unexpected_keys)
    _check_ties(model)
    whole: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    return whole


def _check_config(config: Any) -> None:
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != "LORA":
        raise EngineError(f"the adapter is of type {kind}, and only LORA can be merged")
    for name in UNMERGEABLE:
        if getattr(config, name, None):
            raise EngineError(f"the adapter has {name}, and cannot be merged with it")


def _check_weights(missing: list[str], unexpected: list[str]) -> None:
    """Where names do not match, peft leaves out what the files have, and begins what they lack as it does training."""
    if unexpected:
        raise EngineError(f"the adapter is for another model, which has {unexpected[0]}")
    if missing:
        raise EngineError(f"the adapter's files lack {len(missing)} of its weights, {missing[0]} among them")


def _check_ties(model: Any) -> None:
    """What is merged into one of two tied weights would be in the other one too."""
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if model.config.get_text_config().tie_word_embeddings and any(_is_adapted(end) for end in ends):
        raise EngineError("the adapter changes the embedding or the head, which this model has tied")


def _is_adapted(module: Any) -> bool:
    return type(module).__module__.startswith("peft.")
