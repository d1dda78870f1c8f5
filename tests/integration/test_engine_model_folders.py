"""What a model's folder may hold: shards, pickles, lists of ends; and what it says when something is not there."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpu_worker.engines.continuous.generation_config import end_tokens
from gpu_worker.engines.continuous.loading.loader import load
from gpu_worker.engines.registry import create_engine
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings
from tests.integration.engine_rows import row as row_of
from tests.integration.engine_rows import run
from tests.integration.tiny_engines import EOS, byte_tokenizer, reference, tiny_model
from tests.small_tokenizers import CHAT

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT, TOKENS = "hello there", 12
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local folder with a tiny model."""
    tiny_model("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def settings(folder: Path) -> WorkerSettings:
    return WorkerSettings(device="cpu", slots=2, context_length=64, model=str(folder))


def says(folder: Path) -> str:
    """The line with which the folder is refused."""
    with pytest.raises(EngineError) as caught:
        create_engine(settings(folder))
    assert "\n" not in caught.value.message
    return caught.value.message


def generated(folder: Path) -> str:
    return run(create_engine(settings(folder)), [row_of("a", PROMPT, max_tokens=TOKENS)]).text["a"]


def wanted() -> str:
    """What the model gives that the folder was made of."""
    ids = byte_tokenizer()(PROMPT)["input_ids"]
    text = byte_tokenizer().decode(reference(tiny_model("llama"), ids, TOKENS, [EOS]).tokens)
    return str(text).rstrip("\ufffd")


def change(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def sharded(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    tiny_model("llama").save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def pickled_shards(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    halves = [dict(list(weights.items())[first::2]) for first in (0, 1)]
    places: dict[str, str] = {}
    for index, half in enumerate(halves):
        torch.save(half, folder / f"pytorch_model-{index}.bin")
        places |= dict.fromkeys(half, f"pytorch_model-{index}.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def without_tokens(folder: Path) -> None:
    """No token to pad with, in any file."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        change(folder / name, pad_token_id=None, pad_token=None)


def without_defaults(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


@pytest.mark.parametrize("made", [sharded, pickled, pickled_shards, without_tokens, without_defaults])
def test_a_folder_that_loads_gives_its_models_text(folder: Path, made: Callable[[Path], None]) -> None:
    made(folder)
    assert generated(folder) == wanted()


def test_safetensors_come_before_pickles(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert generated(folder) == wanted()


class Program:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


@pytest.mark.parametrize("save", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, 2))])
def test_a_program_among_pickled_weights_is_not_run(folder: Path, save: Callable[..., None]) -> None:
    (folder / WEIGHTS).unlink()
    save({"lm_head.weight": Program(f"touch {folder / 'ran'}")}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in says(folder)
    assert not (folder / "ran").exists()


def tied(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["lm_head.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def test_a_tied_head_need_not_be_there(folder: Path) -> None:
    tied(folder)
    change(folder / "config.json", tie_word_embeddings=True)
    model, _ = load(settings(folder))
    assert torch.equal(model.lm_head.weight, load_file(folder / WEIGHTS)["model.embed_tokens.weight"])
    assert create_engine(settings(folder)).info.details["runner"] == "PackedRunner"


def test_weights_that_are_not_there_are_not_made_up(folder: Path) -> None:
    tied(folder)
    assert "its files lack 1 of its weights, lm_head.weight among them" in says(folder)


def test_weights_of_other_sizes_are_named(folder: Path) -> None:
    change(folder / "config.json", vocab_size=300)
    assert "do not fit its config.json" in says(folder)
    assert "[257, 32] there and [300, 32] here" in says(folder)


def test_weights_that_the_class_has_no_place_for_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"model.extra.weight": torch.ones(2)}, folder / WEIGHTS, metadata={"format": "pt"})
    assert generated(folder) == wanted()
    assert "no notice of 1 weights, model.extra.weight" in caplog.text


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (WEIGHTS, "no file named model.safetensors"),
        ("tokenizer.json", "no tokenizer: tokenizer.json"),
        ("config.json", "no config.json in it"),
    ],
)
def test_what_a_folder_lacks_is_named(folder: Path, gone: str, words: str) -> None:
    (folder / gone).unlink()
    assert words in says(folder)


@pytest.mark.parametrize("made", [sharded, pickled_shards])
def test_a_shard_that_a_folder_lacks_is_named(folder: Path, made: Callable[[Path], None]) -> None:
    made(folder)
    shard = sorted([*folder.glob("model-*"), *folder.glob("pytorch_model-*")])[1]
    shard.unlink()
    assert shard.name in says(folder)


@pytest.mark.parametrize("kept", [0, 5, 1000])
def test_a_file_of_weights_that_is_cut_is_one_line(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    assert "cannot be loaded" in says(folder)


def test_encoder_decoders_are_named(folder: Path) -> None:
    change(folder / "config.json", model_type="t5", architectures=["T5ForConditionalGeneration"])
    assert "T5ForConditionalGeneration is no decoder-only model" in says(folder)
    assert says(folder).endswith("such as vllm")
    change(folder / "config.json", model_type="bart", architectures=None, is_encoder_decoder=True)
    assert "BartConfig is no decoder-only model" in says(folder)


def test_quantized_weights_say_what_they_want(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "GPTQ" in says(folder)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_each_of_several_ends_ends_a_text(folder: Path, file: str) -> None:
    ids = byte_tokenizer()(PROMPT)["input_ids"]
    text = reference(tiny_model("llama"), ids, TOKENS, [EOS]).tokens
    end = next(token for index, token in enumerate(text) if index > 2 and token not in text[:index])
    if file == "config.json":
        without_defaults(folder)
    change(folder / file, eos_token_id=[EOS, end])
    model, tokenizer = load(settings(folder))
    assert end_tokens(model, tokenizer) == {EOS, end}
    assert generated(folder) == byte_tokenizer().decode(text[: text.index(end)]).rstrip("\ufffd")


def test_a_chat_needs_a_template(folder: Path) -> None:
    chat = {"prompt": None, "messages": [{"role": "user", "content": "Hello"}]}
    end = run(create_engine(settings(folder)), [row_of("a", **chat)]).ends["a"]
    assert end.error == ("invalid_request", "the model has no chat template: give `prompt` instead of `messages`")
    (folder / "chat_template.jinja").write_text(CHAT)
    assert run(create_engine(settings(folder)), [row_of("a", **chat)]).ends["a"].error is None
