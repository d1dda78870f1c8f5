"""Loads a model and its tokenizer onto a device: the packaged default, a local folder, or a Hugging Face id."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file
from transformers.utils.logging import disable_progress_bar

from gpu_worker.engines.continuous.device_errors import is_memory_error
from gpu_worker.engines.continuous.kvcache.gpu_memory import limit_share
from gpu_worker.engines.continuous.loading import packaged
from gpu_worker.engines.continuous.loading.adapters import adapter_folder, merged
from gpu_worker.engines.continuous.loading.fingerprint import adapted_fingerprint, model_fingerprint
from gpu_worker.engines.continuous.loading.model_files import has_pickles_only, has_tokenizer
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings

log = logging.getLogger(__name__)

# Left open, transformers asks on the terminal whether to run a model's own code.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}


def load(settings: WorkerSettings, auto: Any = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what the settings name, its adapter merged into its weights, ready to run.

    Args:
        auto: what makes the model, as one of transformers' `Auto…` classes; None: one that generates.

    Raises:
        EngineError: the model, its adapter, its package or the device is not there; one line says what to do.
    """
    if not sys.stderr.isatty():
        # Its lines would stand among those of the log.
        disable_progress_bar()  # type: ignore[no-untyped-call]
    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    adapter = adapter_folder(settings.adapter) if settings.adapter else None
    source, options = model_source(settings)
    started = time.monotonic()
    with _named(f"model {settings.model!r}"):
        limit_share(device, settings.gpu_memory_share)
        tokenizer = _tokenizer(source, options)
        model = _model(source, dtype, options) if auto is None else _made_by(auto, source, dtype, options)
    if adapter:
        with _named(f"adapter {settings.adapter!r}"):
            model = merged(model, adapter)
    with _named(f"model {settings.model!r}"):
        model.to(device).eval()
    log.info("loaded %s on %s as %s in %.1f s", settings.model, device, dtype, time.monotonic() - started)
    return model, tokenizer


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever fails within means the same to the operator: it cannot be loaded, and one line says why."""
    try:
        yield
    except EngineError as error:
        raise EngineError(f"{what} cannot be loaded: {error.message}") from error
    except Exception as error:  # OSError, ValueError, ImportError, a bad file, too little memory
        hint = "; workers on one GPU share it by PROMPTQ_GPU_MEMORY_SHARE" if is_memory_error(error) else ""
        raise EngineError(f"{what} cannot be loaded: {first_line(error)}{hint}") from error


def _tokenizer(source: str | Path, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **NO_CODE, **options)
    except Exception as error:
        if isinstance(source, Path) and not has_tokenizer(source):
            raise EngineError("its folder has no tokenizer: tokenizer.json, tokenizer.model or the like") from error
        raise
    return tokenizer


def _model(source: str | Path, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(source, **NO_CODE, **options)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or getattr(config, "is_encoder_decoder", False):
        name = (config.architectures or [type(config).__name__])[0]
        raise EngineError(f"{name} is no decoder-only model of transformers; use another engine, such as vllm")
    found: Any = AutoModelForCausalLM.from_pretrained(
        source, config=config, dtype=dtype, use_safetensors=not has_pickles_only(source), output_loading_info=True,
        ignore_mismatched_sizes=True, **NO_CODE, **options,
    )  # fmt: skip
    model, report = found
    _check_weights(report)
    return model


def _made_by(auto: Any, source: str | Path, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    return auto.from_pretrained(source, dtype=dtype, use_safetensors=not has_pickles_only(source), **NO_CODE, **options)


def _check_weights(report: Mapping[str, Any]) -> None:
    """Weights that a checkpoint lacks, or has in other sizes, are drawn at random by transformers."""
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    if missing:
        raise EngineError(f"its files lack {len(missing)} of its weights, {min(missing)} among them")
    for name, stored, wanted in report["mismatched_keys"]:
        sizes = f"{list(stored)} there and {list(wanted)} here"
        raise EngineError(f"its files do not fit its config.json: {name} is {sizes}")
    if unexpected:
        log.warning("the model's class takes no notice of %d weights, %s among them", len(unexpected), min(unexpected))


def load_config(settings: WorkerSettings) -> Any:
    """What kind of model the settings name, as transformers has it.

    Raises:
        EngineError: it cannot be read.
    """
    source, options = model_source(settings)
    with _named(f"model {settings.model!r}"):
        return AutoConfig.from_pretrained(source, **NO_CODE, **options)


def read_json(settings: WorkerSettings, name: str) -> Any:
    """The content of one of the model's JSON files, or None where it has no such file.

    A model that is in the cache loads without the hub, so of one whose hub does not answer the cache is all there is.

    Raises:
        EngineError: it is no JSON.
    """
    source, options = model_source(settings)
    silent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found: Any = cached_file(source, name, **options, **silent)
    try:
        return json.loads(Path(found).read_bytes()) if found else None
    except ValueError as error:
        raise EngineError(f"model {settings.model!r}: {name} is no JSON: {error}") from error


def model_folder(settings: WorkerSettings) -> Path:
    """Where the files of the model lie that `load` has loaded: of a Hugging Face id, its revision in the cache.

    Raises:
        EngineError: they are nowhere.
    """
    source, options = model_source(settings)
    if isinstance(source, Path):
        return source
    try:
        found: Any = cached_file(source, "config.json", **options | {"local_files_only": True})
    except OSError as error:
        raise EngineError(f"model {settings.model!r} is not in the cache: {first_line(error)}") from error
    return Path(found).parent


def loaded_fingerprint(settings: WorkerSettings) -> str:
    """Of the files that `load` has loaded, the adapter's among them. See `fingerprint.model_fingerprint`."""
    own = model_fingerprint(model_folder(settings))
    if not settings.adapter:
        return own
    return adapted_fingerprint(own, model_fingerprint(adapter_folder(settings.adapter)))


def resolve_device(name: str) -> torch.device:
    """The device of the setting; `auto` prefers CUDA.

    Raises:
        EngineError: not a device, or one that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise EngineError(f"PROMPTQ_DEVICE={name}: use auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise EngineError(f"PROMPTQ_DEVICE={name}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device("cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of the setting; `auto` is float32 on a CPU and bfloat16 on CUDA."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def limit_context(model: PreTrainedModel, asked: int) -> int:
    """Tokens per row: what is asked for, or the model's limit when that is less, or when 0 is asked.

    Raises:
        EngineError: neither names a number.
    """
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [length for length in (asked, own) if length]
    if not limits:
        raise EngineError("the model names no context length: set PROMPTQ_CONTEXT_LENGTH")
    return min(limits)


def model_source(settings: WorkerSettings) -> tuple[str | Path, dict[str, Any]]:
    """What the settings name: a folder or a Hugging Face id, and options for `from_pretrained`.

    Raises:
        EngineError: a folder that is not there, or the packaged model is not.
    """
    if settings.model == packaged.NAME:
        return packaged.folder(settings.data_dir), {"local_files_only": True}
    if settings.model.startswith((".", "/", "~")) or Path(settings.model).is_dir():
        return _local_folder(settings.model), {"local_files_only": True}
    return settings.model, {"revision": settings.model_revision} if settings.model_revision else {}


def _local_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise EngineError(f"model {name!r}: no such folder, or no config.json in it")
    return folder


def first_line(error: Exception) -> str:
    """What an exception says, in one line: the first, and where it ends in a colon the one behind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
