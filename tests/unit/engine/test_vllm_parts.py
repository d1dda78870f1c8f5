"""What the engine vllm decides before vLLM itself is asked; vLLM need not be installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpu_worker.engines.continuous.encoder.recipe import Recipe
from gpu_worker.engines.registry import create_engine, preload
from gpu_worker.engines.vllm.adapters import Adapters
from gpu_worker.engines.vllm.arguments import (
    OURS,
    check_device,
    check_options,
    embedding_arguments,
    memory,
    over_gpus,
)
from gpu_worker.engines.vllm.logprobs import score
from gpu_worker.engines.vllm.model_rules import ModelRules
from promptq.contract.catalogue import Catalogue, ModelEntry
from promptq.contract.errors import EngineError, InvalidRequest
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings


def adapter(folder: Path, rank: int) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


def test_without_vllm_one_line_says_what_to_install() -> None:
    settings = WorkerSettings(_env_file=None, engine="vllm")
    preload(settings)  # a spare gets as far as this
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed here")
    with pytest.raises(EngineError, match=r"^the engine vllm needs vLLM 0\.32, .* requirements/vllm\.txt") as raised:
        create_engine(settings)
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_option_that_is_not_free_is_named(name: str) -> None:
    with pytest.raises(EngineError, match=f"^options.{name}: promptq sets it itself"):
        check_options({name: 1}, {name})


def test_an_unknown_option_is_named_and_a_known_one_is_not() -> None:
    check_options({"max_model_len": 8192}, {"max_model_len"})
    with pytest.raises(EngineError, match=r"^options\.max_len: vLLM"):
        check_options({"max_len": 8192}, {"max_model_len"})


def test_a_device_that_vllm_is_not_for_is_refused() -> None:
    check_device("auto", "cuda")
    check_device("cpu", "cpu")
    for asked in ("cuda", "cuda:1"):
        with pytest.raises(EngineError, match=f"^PROMPTQ_DEVICE={asked}: "):
            check_device(asked, "cpu")


def test_a_gpus_memory_is_shared_as_the_settings_say() -> None:
    settings = WorkerSettings(_env_file=None, gpu_memory_share=0.4)
    assert memory(settings, "cuda") == {"gpu_memory_utilization": 0.4}
    assert memory(settings, "cpu").keys() == {"kv_cache_memory_bytes"}


@pytest.mark.parametrize(
    ("recipe", "adapters", "said"),
    [
        (Recipe("max"), {}, "pooling: max is not supported by vLLM: only mean, cls, lasttoken"),
        (Recipe(), {"sql": "/nowhere"}, "adapters: a model that embeds has none"),
    ],
)
def test_what_a_model_that_embeds_cannot_have_is_named(recipe: Recipe, adapters: dict[str, str], said: str) -> None:
    settings = WorkerSettings(_env_file=None, engine="vllm")
    settings.serve(Catalogue.of([ModelEntry(name="a", engine="vllm", adapters=adapters)]))
    with pytest.raises(EngineError, match=f"^{said}$"):
        embedding_arguments(settings, "a", recipe, None, 64)


def test_the_largest_rank_decides_and_on_a_cpu_there_is_an_empty_place(tmp_path: Path) -> None:
    adapters = Adapters({"a": adapter(tmp_path / "a", 4), "b": adapter(tmp_path / "b", 9)})
    assert adapters.arguments("cuda") == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 16}
    assert adapters.arguments("cpu")["max_loras"] == 3
    assert adapters.fingerprint() != Adapters({"a": str(tmp_path / "a")}).fingerprint()
    assert adapters.request("") is None
    with pytest.raises(InvalidRequest, match=r"^adapter: the model has no adapter 'c'; it has: a, b"):
        adapters.request("c")


def test_without_adapters_there_is_nothing_to_say() -> None:
    assert not Adapters({})
    assert Adapters({}).arguments("cpu") == {}


@pytest.mark.parametrize("rank", [0, 513])
def test_a_rank_that_vllm_has_no_kernels_for_is_named(rank: int, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=rf"^adapters\.a: adapter_config\.json: r={rank}"):
        Adapters({"a": adapter(tmp_path / "a", rank)})


def test_the_models_own_penalty_holds_where_the_request_has_none(caplog: pytest.LogCaptureFixture) -> None:
    rules = ModelRules({"eos_token_id": [2, 3], "repetition_penalty": 1.1, "suppress_tokens": [5]}, own=4)
    assert rules.ends == {2, 3, 4}
    assert not rules.stops
    assert rules.with_own(GenerateRequest(prompt="a")).repetition_penalty == 1.1
    assert rules.with_own(GenerateRequest(prompt="a", repetition_penalty=1.3)).repetition_penalty == 1.3
    assert "does not follow suppress_tokens" in caplog.text
    request = GenerateRequest(prompt="a")
    assert ModelRules({}, own=None).with_own(request) is request


def known(*pairs: tuple[int, float, int]) -> dict[int, Any]:
    return {id: SimpleNamespace(logprob=logprob, rank=rank) for id, logprob, rank in pairs}


def test_the_likeliest_come_in_their_order_and_the_chosen_one_only_among_them() -> None:
    told = known((7, -4.0, 30), (2, -1.0, 2), (9, -0.5, 1))
    assert (score(7, told, 2).logprob, list(score(7, told, 2).top)) == (-4.0, [(9, -0.5), (2, -1.0)])
    assert list(score(7, told, 0).top) == []
    assert score(7, known((7, float("-inf"), 1)), 0).logprob == -9999.0


def test_a_worker_on_several_gpus_has_its_model_on_all_of_them() -> None:
    assert [over_gpus(gpus) for gpus in (None, 0, 1, 4)] == [{}, {}, {}, {"tensor_parallel_size": 4}]
