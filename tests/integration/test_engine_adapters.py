"""A LoRA adapter is merged when the model is loaded: the engine gives what peft gives of model and adapter apart."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.loading import adapters
from gpu_worker.engines.continuous.loading.loader import load, loaded_fingerprint
from gpu_worker.engines.registry import create_engine
from promptq.contract.errors import EngineError
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings
from tests.integration.tiny_engines import EOS, TINY, Recorder, byte_tokenizer, drive, reference, same, tiny_model
from tests.processes import ROOT

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft's, to transformers
]
with_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="pip install --no-deps -r requirements/lora.txt"
)
PROMPTS = ["hello there", "x", "1, 2, 3, 1, 2, 3, 1,", "the same again, the same again, the"]
TOKENS = 20
WEIGHTS = "adapter_model.safetensors"
# Which products an adapter changes: by architecture, for some lay theirs side by side.
TARGETS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen3": ["q_proj", "v_proj"],
    "phi3": ["qkv_proj", "gate_up_proj"],
    "gpt2": ["c_attn"],
}


def made(path: Path, name: str = "llama", **options: Any) -> WorkerSettings:
    """The settings of a worker with a tiny model and a random adapter of it, whose files lie in the path."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model(name)
    model.save_pretrained(path / "model")
    byte_tokenizer().save_pretrained(path / "model")
    fields = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[name], "fan_in_fan_out": name == "gpt2"}
    fields |= {"task_type": "CAUSAL_LM"} | options
    adapted = get_peft_model(model, LoraConfig(**fields))
    for parameter in (each for part, each in adapted.named_parameters() if "lora" in part or "modules_to_save" in part):
        torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(path / "adapter")
    return settings(path)


def settings(path: Path, adapter: str = "adapter") -> WorkerSettings:
    folder = str(path / adapter) if adapter else ""
    return WorkerSettings(device="cpu", slots=3, context_length=96, model=str(path / "model"), adapter=folder)


def says(path: Path, **fields: Any) -> str:
    """The line with which the adapter is refused, given these fields of its config; those of another type are all."""
    config = path / "adapter" / "adapter_config.json"
    kept = {} if "peft_type" in fields else json.loads(config.read_text())
    config.write_text(json.dumps(kept | fields))
    with pytest.raises(EngineError) as caught:
        load(settings(path))
    assert "\n" not in caught.value.message
    return caught.value.message


@with_peft
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {}),
        ("llama", {"use_rslora": True, "bias": "lora_only"}),
        ("llama", {"use_dora": True}),
        ("llama", {"modules_to_save": ["lm_head"]}),
        ("llama", {"layers_to_transform": [1]}),
        ("qwen3", {}),
        ("phi3", {}),
        ("gpt2", {}),
    ],
)
def test_the_text_is_that_of_the_adapter_beside_the_model(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    from peft import PeftModel

    engine = create_engine(made(tmp_path, name, **options))
    apart = PeftModel.from_pretrained(tiny_model(name), str(tmp_path / "adapter")).eval()
    assert engine.info.details["runner"] == ("ModelRunner" if name == "gpt2" else "PackedRunner")
    recorder = Recorder()
    recorder.watch(engine)
    rows = [Row(prompt, GenerateRequest(prompt=prompt, max_tokens=TOKENS)) for prompt in PROMPTS]
    drive(engine, recorder, rows, [], random.Random(1))
    ids = {prompt: byte_tokenizer()(prompt)["input_ids"] for prompt in PROMPTS}
    alike = [same(recorder.tokens.get(prompt, []), reference(apart, ids[prompt], TOKENS, [EOS])) for prompt in PROMPTS]
    assert sum(alike) >= len(PROMPTS) - 1
    plain = [reference(tiny_model(name), ids[prompt], TOKENS, [EOS]).tokens for prompt in PROMPTS]
    assert plain != [recorder.tokens.get(prompt, []) for prompt in PROMPTS], "or the adapter would show nothing"


@with_peft
def test_another_adapter_is_another_model(tmp_path: Path) -> None:
    first = made(tmp_path)
    without = settings(tmp_path, "")
    identities = {create_engine(each).info.identity for each in (first, without)}
    assert create_engine(first).info.identity in identities
    assert loaded_fingerprint(first) == loaded_fingerprint(settings(tmp_path))
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    save_file({name: 2 * weight for name, weight in weights.items()}, tmp_path / "adapter" / WEIGHTS)
    assert len(identities | {create_engine(first).info.identity}) == 3


@with_peft
def test_an_adapter_for_another_model_is_named(tmp_path: Path) -> None:
    made(tmp_path)
    torch.manual_seed(7)
    TINY["gpt2"]().save_pretrained(tmp_path / "model")
    assert "adapter" in says(tmp_path)
    wide = TINY["llama"]().config
    wide.hidden_size = 64
    type(TINY["llama"]())(wide).save_pretrained(tmp_path / "model")
    assert "size mismatch" in says(tmp_path)


@with_peft
@pytest.mark.parametrize("change", ["more", "fewer"])
def test_weights_that_do_not_match_are_named(tmp_path: Path, change: str) -> None:
    made(tmp_path)
    path = tmp_path / "adapter" / WEIGHTS
    weights = load_file(path)
    name, weight = next(iter(weights.items()))
    del weights[name]
    other = {name.replace("layers.0", "layers.7"): weight} if change == "more" else {}
    save_file(weights | other, path)
    assert ("for another model, which has" if change == "more" else "lack 1 of its weights") in says(tmp_path)


@with_peft
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}, "of type PROMPT_TUNING, and only LORA can be merged"),
        ({"alora_invocation_tokens": [1, 2]}, "has alora_invocation_tokens, and cannot be merged"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "has layer_replication, and cannot be merged"),
        ({"peft_type": "NONE OF THESE"}, "cannot be loaded"),
    ],
)
def test_what_cannot_be_merged_is_named(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    made(tmp_path)
    assert words in says(tmp_path, **fields)


@with_peft
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_tied_weights_are_not_changed_in_two_places(tmp_path: Path) -> None:
    made(tmp_path, modules_to_save=["lm_head"])
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    assert "the embedding or the head, which this model has tied" in says(tmp_path)


def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"adapter '.*nowhere': no such folder, or no adapter_config.json in it"):
        load(settings(tmp_path, "nowhere"))


def test_without_peft_the_line_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install --no-deps -r requirements/lora\.txt"):
        adapters.merged(tiny_model("llama"), tmp_path)
    assert (ROOT / "requirements" / "lora.txt").read_text().count("==") == 2
