"""From the settings to vLLM: what it is told, its model loaded, its memory taken."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from gpu_worker.engines.base import Engine
from gpu_worker.engines.continuous.encoder import creation as embeddings
from gpu_worker.engines.continuous.encoder.engine import STEP_TOKENS, EmbeddingEngine
from gpu_worker.engines.continuous.encoder.recipe import Recipe
from gpu_worker.engines.continuous.encoder.sizes import Sizes
from gpu_worker.engines.continuous.loading.loader import first_line, load_config, model_folder, model_source
from gpu_worker.engines.gpu_turns import gpu_names, gpu_turn
from gpu_worker.engines.vllm.adapters import Adapters
from gpu_worker.engines.vllm.arguments import ENVIRONMENT, embedding_arguments, engine_arguments, environment
from gpu_worker.engines.vllm.describe import describe, describe_embeddings
from gpu_worker.engines.vllm.embedder import VllmEmbedder
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


def create(settings: WorkerSettings, done: Callable[[str], None]) -> Engine:
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
    config = _config(settings)
    recipe = embeddings.recipe_for(settings, config) if config else None
    with gpu_turn(settings.data_dir / "locks", _gpus(settings)):
        return _embedding_engine(settings, recipe, config, done) if recipe else _engine(settings, done)


def _engine(settings: WorkerSettings, done: Callable[[str], None]) -> VllmEngine:
    source, options = model_source(settings)
    tokenizer = _tokenizer(settings, source, options)
    adapters = Adapters(settings.entry.adapters)
    given = engine_arguments(settings, source, adapters)
    done("vllm")
    with _refusing(source):
        config = _vllm_config(given)
        rules = ModelRules.of(config.model_config, tokenizer)
        config.additional_config = {KEY: sorted(rules.ends)}
        core = _core(config, done)
    info = describe(settings, core, tokenizer, model_folder(settings), adapters)
    done("memory")
    return VllmEngine(core, tokenizer, info, rules, adapters)


def _gpus(settings: WorkerSettings) -> list[str]:
    """Names of the GPUs that vLLM is to use. CUDA itself is not asked: vLLM starts it, in processes of its own too."""
    from vllm.platforms import current_platform

    count = (settings.entry.gpus or 1) if current_platform.device_type == "cuda" else 0
    return gpu_names(child_environment().get("CUDA_VISIBLE_DEVICES"), count)


def _embedding_engine(
    settings: WorkerSettings, recipe: Recipe, config: Any, done: Callable[[str], None]
) -> EmbeddingEngine:
    """Requests, batches and ends are those of the continuous engine; vLLM computes."""
    log.info("the model embeds: %s", recipe)
    source, options = model_source(settings)
    tokenizer = _tokenizer(settings, source, options)
    if recipe.lower_case:
        embeddings.lower_case(tokenizer)
    with _refusing(source):
        context = embeddings.longest_prompt(_bare(config), tokenizer, recipe, settings.context_length)
    given = embedding_arguments(settings, source, recipe, config, context)
    done("vllm")
    with _refusing(source):
        core = _core(_vllm_config(given), done)
        _check_embeds(core)
        embedder = VllmEmbedder(core, context)
    info = describe_embeddings(settings, core, tokenizer, model_folder(settings), embedder.size)
    sizes = Sizes.of(core.vllm_config.model_config.hf_config, embedder.size, recipe.normalize)
    most = settings.prefill_tokens or STEP_TOKENS.get(info.device, STEP_TOKENS["cuda"])
    done("memory")
    return EmbeddingEngine(embedder, tokenizer, info, step_tokens=most, prefix=recipe.prefix, sizes=sizes)


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


def _config(settings: WorkerSettings) -> Any:
    """What transformers knows of the model; None: nothing, and vLLM may know it all the same."""
    try:
        return load_config(settings)
    except EngineError:
        return None


def _bare(config: Any) -> PreTrainedModel:
    """The model's parts without their weights."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return model


@contextmanager
def _refusing(source: str | Path) -> Iterator[None]:
    """Whatever a model, an option or the memory is at fault for, in one line."""
    try:
        yield
    except Exception as error:
        log.debug("vLLM does not start", exc_info=True)
        raise EngineError(f"vLLM cannot run {str(source)!r}: {_reason(error)}") from error


def _vllm_config(given: dict[str, Any]) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(**given).create_engine_config()


def _core(config: Any, done: Callable[[str], None]) -> Any:
    """Its model loaded and its memory taken."""
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor import Executor

    executor = _noting(Executor.get_class(config), lambda: done("model"))
    return LLMEngine(config, executor, log_stats=False, multiprocess_mode=False)


def _check_embeds(core: Any) -> None:
    """See that vLLM gives one vector for a prompt: of some models it gives one for each token only."""
    if "embed" not in (tasks := core.get_supported_tasks()):
        raise EngineError(f"it makes no embedding with this architecture, only {', '.join(sorted(tasks))}")


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
