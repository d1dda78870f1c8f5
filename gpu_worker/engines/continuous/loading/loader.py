"""Loads a model and its tokenizer onto a device: the packaged default, a local folder, or a Hugging Face id."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.logging import disable_progress_bar

from gpu_worker.engines.continuous.loading import packaged
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings

log = logging.getLogger(__name__)


def load(settings: WorkerSettings, auto: Any = AutoModelForCausalLM) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what the settings name, ready to run.

    Args:
        auto: which of transformers' `Auto…` classes makes the model.

    Raises:
        EngineError: the model, its package or the device is not there; one line says what to do.
    """
    if not sys.stderr.isatty():
        # Its lines would stand among those of the log.
        disable_progress_bar()  # type: ignore[no-untyped-call]
    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    source, options = _source(settings)
    started = time.monotonic()
    try:
        # Left open, transformers asks on the terminal whether to run a model's own code; and pickled weights are code.
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        model: Any = auto.from_pretrained(source, dtype=dtype, trust_remote_code=False, use_safetensors=True, **options)
        model.to(device).eval()
    except Exception as error:  # OSError, ValueError, ImportError, a bad file: all mean the same to the operator
        raise EngineError(f"model {settings.model!r} cannot be loaded: {_first_line(error)}") from error
    log.info("loaded %s on %s as %s in %.1f s", settings.model, device, dtype, time.monotonic() - started)
    return model, tokenizer


def load_config(settings: WorkerSettings) -> Any:
    """What kind of model the settings name, as transformers has it.

    Raises:
        EngineError: it cannot be read.
    """
    source, options = _source(settings)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:
        raise EngineError(f"model {settings.model!r} cannot be loaded: {_first_line(error)}") from error


def read_json(settings: WorkerSettings, name: str) -> Any:
    """The content of one of the model's JSON files, or None where it has no such file.

    A model that is in the cache loads without the hub, so of one whose hub does not answer the cache is all there is.

    Raises:
        EngineError: it is no JSON.
    """
    source, options = _source(settings)
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
    source, options = _source(settings)
    if isinstance(source, Path):
        return source
    try:
        found: Any = cached_file(source, "config.json", **options | {"local_files_only": True})
    except OSError as error:
        raise EngineError(f"model {settings.model!r} is not in the cache: {_first_line(error)}") from error
    return Path(found).parent


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


def _source(settings: WorkerSettings) -> tuple[str | Path, dict[str, Any]]:
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
