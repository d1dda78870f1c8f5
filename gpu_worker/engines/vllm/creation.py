"""From the settings to vLLM: what it is told, its model loaded, its memory taken."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gpu_worker.engines.continuous.loading.loader import first_line, model_folder, model_source
from gpu_worker.engines.gpu_turns import gpu_names, gpu_turn
from gpu_worker.engines.vllm.adapters import Adapters
from gpu_worker.engines.vllm.arguments import ENVIRONMENT, engine_arguments, environment
from gpu_worker.engines.vllm.describe import describe
from gpu_worker.engines.vllm.engine import VllmEngine
from gpu_worker.engines.vllm.model_rules import ModelRules
from gpu_worker.engines.vllm.row_parameters import KEY
from promptq.contract.environment import child_environment, publish_defaults, publish_to_environment
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings
from promptq.runtime.cgroups import processors

log = logging.getLogger(__name__)

VERSION = "0.32"
MISSING = (
    f"the engine vllm needs vLLM {VERSION}, which is not installed: pip install -r requirements/vllm.txt, in an "
    "environment of its own (docs/vllm.md)"
)


def create(settings: WorkerSettings, done: Callable[[str], None]) -> VllmEngine:
    """Start vLLM with the model that the settings name; `done` is told of imports, model and memory.

    Raises:
        EngineError: vLLM is not installed, or cannot run this model with these options; one line says why.
    """
    _check_installed()
    publish_defaults(**environment())
    publish_to_environment(**ENVIRONMENT)
    torch.set_num_threads(settings.worker_threads or min(torch.get_num_threads(), processors()))
    done("torch")
    import vllm  # only now: it reads the environment

    if settings.log_level != "DEBUG":
        logging.getLogger("vllm").setLevel(logging.WARNING)  # it tells of each of its parts
    _check_version(vllm.__version__)
    source, options = model_source(settings)
    tokenizer = _tokenizer(settings, source, options)
    adapters = Adapters(settings.entry.adapters)
    given = engine_arguments(settings, source, adapters)
    done("vllm")
    with gpu_turn(settings.data_dir / "locks", _gpus(settings)):
        core, rules = _start(given, tokenizer, done)
    info = describe(settings, core, tokenizer, model_folder(settings), adapters)
    done("memory")
    return VllmEngine(core, tokenizer, info, rules, adapters)


def _gpus(settings: WorkerSettings) -> list[str]:
    """Names of the GPUs that vLLM is to use. CUDA itself is not asked: vLLM starts it, in processes of its own too."""
    from vllm.platforms import current_platform

    count = (settings.entry.gpus or 1) if current_platform.device_type == "cuda" else 0
    return gpu_names(child_environment().get("CUDA_VISIBLE_DEVICES"), count)


def _check_installed() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(MISSING)


def _check_version(version: str) -> None:
    if not version.startswith(VERSION + "."):
        log.warning("vLLM %s is installed; promptq was tried with %s", version, VERSION)


def _tokenizer(settings: WorkerSettings, source: Any, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # OSError, ValueError, a bad file: all mean the same to the operator
        raise EngineError(f"model {settings.model!r} cannot be loaded: {first_line(error)}") from error
    return tokenizer


def _start(
    given: dict[str, Any], tokenizer: PreTrainedTokenizerBase, done: Callable[[str], None]
) -> tuple[Any, ModelRules]:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor import Executor

    try:
        config = EngineArgs(**given).create_engine_config()
        rules = ModelRules.of(config.model_config, tokenizer)
        config.additional_config = {KEY: sorted(rules.ends)}
        executor = _noting(Executor.get_class(config), lambda: done("model"))
        return LLMEngine(config, executor, log_stats=False, multiprocess_mode=False), rules
    except Exception as error:  # whatever a model, an option or the memory is at fault for
        log.debug("vLLM does not start", exc_info=True)
        raise EngineError(f"vLLM cannot run {given['model']!r}: {_reason(error)}") from error


def _noting(executor: type[Any], loaded: Callable[[], None]) -> type[Any]:
    """The executor class, which says when the model is loaded: then vLLM asks for its caches first."""

    class Noting(executor):  # type: ignore[misc]
        def get_kv_cache_specs(self) -> Any:
            loaded()
            return super().get_kv_cache_specs()

    return Noting


def _reason(error: Exception) -> str:
    """The message in one line; pydantic's first has no more than a count."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        return " ".join(lines[1:3]).partition(" [type=")[0].removeprefix("Value error, ")
    return lines[0] if lines else type(error).__name__
