"""Embeddings of tiny random encoders, each held to transformers' own forward pass of the row alone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoModel, BertConfig, BertLMHeadModel

from gpu_worker.engines.base import Engine, FinishReason, Row, RowEnd
from gpu_worker.engines.continuous import creation
from gpu_worker.engines.continuous.encoder.encoder import Encoder
from gpu_worker.engines.continuous.encoder.engine import EmbeddingEngine
from gpu_worker.engines.continuous.engine import ContinuousEngine
from gpu_worker.engines.continuous.loading import loader
from promptq.contract.errors import EngineBroken, EngineError
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings
from tests.integration.tiny_encoders import DEEP, KINDS, MODULES, PLACES, WORDS, save, word_pieces
from tests.integration.tiny_engines import byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
NEAR = 1e-5
SHORT = ["the river", "a", "at night on the road", "it was far from here"]
POOLINGS = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "max": lambda states: states.amax(0),
    "lasttoken": lambda states: states[-1],
}


def create(folder: Path, **settings: Any) -> Engine:
    options = {"slots": 8, "device": "cpu", "worker_threads": 1} | settings
    return creation.create(WorkerSettings(_env_file=None, model=str(folder), **options), lambda _: None)


def row(row_id: str, prompt: str | list[int], **request: Any) -> Row:
    field = "prompt" if isinstance(prompt, str) else "prompt_token_ids"
    return Row(row_id, GenerateRequest(**{"task": "embed", field: prompt, **request}))


def ends(engine: Engine, prompts: list[Any]) -> list[RowEnd]:
    """Of each prompt, a few of which are in the engine at once."""
    waiting = [row(str(at), prompt) for at, prompt in enumerate(prompts)]
    found: dict[str, Any] = {}
    while waiting or engine.live_rows():
        count = engine.free_slots()
        engine.add(waiting[:count])
        del waiting[:count]
        found |= {event.id: event.end for event in engine.step(0.0).events}
    return [found[str(at)] for at in range(len(prompts))]


def tokens(text: str) -> list[int]:
    return word_pieces()(text, truncation=False)["input_ids"]


def texts(count: int = 24) -> list[str]:
    rng = random.Random(5)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 50))) for _ in range(count)]


@torch.no_grad()
def reference(folder: Path, ids: list[int], pooling: str = "mean", unit: bool = True) -> list[float]:
    """By transformers' own forward pass, of this row alone."""
    pooled = POOLINGS[pooling](AutoModel.from_pretrained(folder)(torch.tensor([ids])).last_hidden_state[0])
    return (normalize(pooled, dim=0) if unit else pooled).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_encoder_embeds_as_transformers_does(kind: str, tmp_path: Path) -> None:
    engine = create(save(tmp_path / kind, kind))
    assert isinstance(engine, EmbeddingEngine)
    for text, end in zip(texts(), ends(engine, texts()), strict=True):
        assert end.embedding == pytest.approx(reference(tmp_path / kind, tokens(text)), abs=NEAR)
        assert end.prompt_tokens == len(tokens(text))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("unit", [True, False])
def test_every_pooling_is_the_row_alones(pooling: str, unit: bool, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", modules=MODULES if unit else MODULES[:2], pooling={"pooling_mode": pooling})
    for text, end in zip(texts(8), ends(create(folder), texts(8)), strict=True):
        assert end.embedding == pytest.approx(reference(folder, tokens(text), pooling, unit), abs=NEAR)


def test_rows_share_steps_and_no_step_is_larger_than_it_may_be(tmp_path: Path) -> None:
    engine = create(save(tmp_path / "m"), prefill_tokens=100)
    found = ends(engine, texts())
    assert max(end.batch_size for end in found) > 2
    engine.add([row("a", texts()[0])])
    stats = engine.step(0.0).stats
    assert (stats.rows, stats.prefill_tokens) == (0, len(tokens(texts()[0])))
    assert stats.prefill_seconds > 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "distilbert"])
def test_the_longest_prompt_is_embedded_and_one_token_more_is_refused_with_the_numbers(
    kind: str, tmp_path: Path
) -> None:
    engine = create(save(tmp_path / "m", kind))
    assert engine.info.context_length == PLACES
    longest, longer = "a " * (PLACES - 2), "a " * (PLACES - 1)
    fits, refused = ends(engine, [longest, longer])
    assert fits.embedding == pytest.approx(reference(tmp_path / "m", tokens(longest)), abs=NEAR)
    assert refused.error == ("prompt_too_long", f"the prompt has {PLACES + 1} tokens and the context is {PLACES}")
    assert refused.reason is FinishReason.ERROR


def test_the_least_of_all_limits_holds(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", transformer={"max_seq_length": 40})
    assert create(folder).info.context_length == 40
    assert create(folder, context_length=9).info.context_length == 9
    assert create(folder, context_length=50).info.context_length == 40


def test_a_model_that_was_trained_for_it_gives_its_first_numbers(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"matryoshka_dimensions": [8, 16]}))
    engine = create(folder)
    (whole,) = ends(engine, ["the river"])
    engine.add([row("8", "the river", dimensions=8), row("9", "the river", dimensions=9)])
    found = {event.id: event.end for event in engine.step(0.0).events if event.end}
    assert found["8"].embedding == pytest.approx(normalize(torch.tensor(whole.embedding)[:8], dim=0).tolist(), abs=NEAR)
    said = "dimensions: the model's embeddings have 8, 16, 32, and no other number"
    assert found["9"].error == ("invalid_request", said)


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    written, numbered = ends(create(folder), ["the river", tokens("the river")])
    assert numbered.embedding == pytest.approx(written.embedding, abs=NEAR)
    (bare,) = ends(create(folder), [tokens("the river")[1:-1]])
    assert bare.embedding == pytest.approx(reference(folder, tokens("the river")[1:-1]), abs=NEAR)


def test_small_letters_and_a_default_prompt_where_the_files_say_so(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "at night "}, "default_prompt_name": "query"}
    folder = save(tmp_path / "m", transformer={"do_lower_case": True}, prompts=prompts)
    (end,) = ends(create(folder), ["The RIVER"])
    assert end.embedding == pytest.approx(reference(folder, tokens("at night the river")), abs=NEAR)


def test_a_text_is_refused_and_a_decoder_embeds_nothing(tmp_path: Path) -> None:
    engine = create(save(tmp_path / "m"))
    engine.add([Row("text", GenerateRequest(prompt="the river"))])
    (event,) = engine.step(0.0).events
    assert event.end
    assert event.end.error == ("invalid_request", "the model makes embeddings, and generates no text")
    decoder = tmp_path / "decoder"
    tiny_model("llama").save_pretrained(decoder)
    byte_tokenizer().save_pretrained(decoder)
    able = create(decoder).info.capabilities
    assert (able.text, able.embeddings) == (True, False)
    assert (engine.info.capabilities.text, engine.info.capabilities.embeddings) == (False, True)


def test_a_decoder_in_a_folder_of_sentence_transformers_embeds(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", pooling={"pooling_mode": "lasttoken"})
    tiny_model("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    engine = create(folder)
    assert isinstance(engine, EmbeddingEngine)
    for text, end in zip(SHORT, ends(engine, SHORT), strict=True):
        ids = byte_tokenizer()(text)["input_ids"]
        assert end.embedding == pytest.approx(reference(folder, ids, "lasttoken"), abs=NEAR)


def test_a_model_of_the_hub_is_looked_at_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models--some--model"
    save(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    known = WorkerSettings(_env_file=None, model="some/model")
    monkeypatch.setattr(
        loader, "model_source", lambda _: ("some/model", {"cache_dir": tmp_path, "local_files_only": True})
    )
    assert loader.read_json(known, "modules.json")[2]["path"] == "2_Normalize"
    assert loader.read_json(known, "sentence_bert_config.json") is None


def test_a_bert_that_was_made_a_decoder_is_none_of_ours(tmp_path: Path) -> None:
    BertLMHeadModel(BertConfig(**DEEP, is_decoder=True, max_position_embeddings=PLACES)).save_pretrained(tmp_path)
    word_pieces().save_pretrained(tmp_path)
    assert isinstance(create(tmp_path), ContinuousEngine)


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    weights = save(tmp_path / "m") / "model.safetensors"
    kept = load_file(weights)
    del kept["encoder.layer.1.output.dense.weight"]
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(EngineError, match=r"has no encoder\.layer\.1\.output\.dense\.weight"):
        create(tmp_path / "m")


def test_a_model_whose_rows_are_not_apart_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaking(torch.nn.Module):
        """Looks at the padding."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model, self.config, self.device, self.dtype = model, model.config, model.device, model.dtype
            self.get_input_embeddings = model.get_input_embeddings

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=torch.ones_like(attention_mask))

    engine = create(save(tmp_path / "m"))
    encoder = engine._embedder  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="cannot be batched"):
        Encoder(Leaking(encoder.model), encoder._recipe, 20)


def poison(encoder: Encoder, token: int | None) -> None:
    """Make the model give no number, or raise, wherever this token is; None: always."""
    model = encoder._model

    def forward(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        if token is None:
            raise RuntimeError("the device is gone")
        done = model(input_ids=input_ids, attention_mask=attention_mask)
        done.last_hidden_state[(input_ids == token).any(1)] = torch.nan
        return done

    forward.device, forward.dtype = model.device, model.dtype  # type: ignore[attr-defined]
    encoder._model = forward


def test_a_row_that_gives_no_number_fails_alone(tmp_path: Path) -> None:
    engine = create(save(tmp_path / "m"))
    poison(engine._embedder, tokens("wind")[1])  # type: ignore[attr-defined]
    bad, good = ends(engine, ["the wind", "the sea"])
    assert bad.error == ("engine_error", "the model's output is not a finite number")
    assert good.embedding


def test_when_every_row_fails_it_is_the_engine(tmp_path: Path) -> None:
    engine = create(save(tmp_path / "m"))
    poison(engine._embedder, None)  # type: ignore[attr-defined]
    with pytest.raises(EngineBroken, match="the device is gone"):
        ends(engine, ["the wind", "the sea"])
