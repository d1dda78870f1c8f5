"""Which rows share a step, and how a model's files say that it embeds."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.encoder.batches import PADDING_SHARE, WaitingRow, next_batch
from gpu_worker.engines.continuous.encoder.recipe import Recipe, find_recipe
from gpu_worker.engines.continuous.scheduler.scheduler import AGEING_STEPS
from promptq.contract.errors import EngineError
from promptq.contract.queues import PRIORITIES, Priority
from promptq.contract.request import GenerateRequest

MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
MASKED = {"bert": "BertForMaskedLM", "t5": "T5ForConditionalGeneration"}


def row(length: int, priority: Priority = "default", queued_at: float = 0.0) -> WaitingRow:
    request = GenerateRequest(prompt="a", task="embed")
    return WaitingRow(Row("r", request, priority=priority, queued_at=queued_at), [5] * length)


def test_who_is_most_urgent_and_oldest_goes_first_and_takes_its_like_along() -> None:
    old, urgent, near, far = row(100, queued_at=1.0), row(10, "high", 9.0), row(12, "low", 9.0), row(300)
    assert next_batch([old, near, far, urgent], 512) == [urgent, near]
    assert next_batch([far, near, old], 512)[0] is far
    assert next_batch([], 512) == []


def test_nobody_waits_for_ever() -> None:
    low, steps = row(10, "low"), 0
    while next_batch([low, row(300, "high")], 512) != [low]:
        low.passed_over += 1
        steps += 1
    assert steps == 2 * AGEING_STEPS


def test_a_row_longer_than_a_step_goes_alone() -> None:
    long = row(600)
    assert next_batch([long, row(600), row(3)], 512) == [long]


def test_without_padding_a_batch_is_filled_in_order_whatever_the_lengths() -> None:
    first, long, last = row(3, "high"), row(300, queued_at=1.0), row(4, queued_at=2.0)
    assert next_batch([last, long, first], 303, pads=False) == [first, long]
    assert next_batch([last, long, first], 400, pads=False) == [first, long, last]
    assert next_batch([last, long], 100, pads=False) == [long], "a row longer than a step goes alone"
    assert next_batch([], 100, pads=False) == []


def test_every_batch_keeps_to_its_bounds_and_all_rows_get_their_turn() -> None:
    rng = random.Random(5)
    for _ in range(50):
        waiting = [row(rng.randint(1, 300), rng.choice(PRIORITIES), rng.random()) for _ in range(rng.randint(1, 40))]
        while waiting:
            batch = next_batch(waiting, 512)
            lengths = [len(each.ids) for each in batch]
            padded = len(batch) * max(lengths)
            assert padded <= 512
            assert sum(lengths) >= (1 - PADDING_SHARE) * padded
            assert batch[0].order == min(each.order for each in waiting)
            assert len({id(each) for each in batch}) == len(batch)
            waiting = [each for each in waiting if each not in batch]


def recipe(kind: str = "bert", architecture: str = "BertModel", config: Any = None, **files: Any) -> Recipe | None:
    known = {"architectures": [architecture], "model_type": kind, "is_encoder_decoder": False, **(config or {})}
    contents = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    return find_recipe(SimpleNamespace(**known), MASKED, contents.get)


def modules(*names: str) -> list[dict[str, str]]:
    return [{"type": f"a.b.{name}", "path": f"{at}_{name}" if at else ""} for at, name in enumerate(names)]


def test_sentence_transformers_files_are_followed() -> None:
    parts = {"modules": modules("Transformer", "Pooling", "Normalize"), "1_Pooling__config": MEAN}
    told = {"sentence_bert_config": {"max_seq_length": 256, "do_lower_case": True}}
    assert recipe(**parts, **told) == Recipe("mean", normalize=True, max_tokens=256, lower_case=True)
    asking = {"config_sentence_transformers": {"prompts": {"query": "q: "}, "default_prompt_name": "query"}}
    assert recipe("qwen3", "Qwen3ForCausalLM", **parts, **asking) == Recipe("mean", normalize=True, prefix="q: ")


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True}, "cls"), ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"), ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["max"]}, "max"), ({}, "mean"), (MEAN, "mean"),
    ],
)  # fmt: skip
def test_poolings_have_their_old_and_their_new_names(pooling: dict[str, Any], mode: str) -> None:
    found = recipe(modules=modules("Transformer", "Pooling"), **{"1_Pooling__config": pooling})
    assert found == Recipe(mode)


@pytest.mark.parametrize(
    ("parts", "pooling", "said"),
    [
        (modules("Transformer", "Pooling", "Dense"), {}, "Transformer . Pooling . Dense is not supported"),
        (modules("WordEmbeddings", "Pooling"), {}, "WordEmbeddings . Pooling is not supported"),
        (modules("Transformer", "Pooling"), {"pooling_mode": "weightedmean"}, "weightedmean is not supported"),
        (modules("Transformer", "Pooling"), {"pooling_mode": ["cls", "mean"]}, "cls, mean is not supported"),
        (modules("Transformer", "Pooling"), {"include_prompt": False}, "include_prompt"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(parts: Any, pooling: dict[str, Any], said: str) -> None:
    asking = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    with pytest.raises(EngineError, match=said):
        recipe(modules=parts, config_sentence_transformers=asking, **{"1_Pooling__config": pooling})


@pytest.mark.parametrize(
    ("kind", "architecture", "config", "embeds"),
    [
        ("bert", "BertModel", {}, True),
        ("bert", "BertForMaskedLM", {}, True),
        ("bert", "BertForPreTraining", {}, True),
        ("bert", "BertLMHeadModel", {"is_decoder": True}, False),
        ("bert", "BertForSequenceClassification", {}, False),
        ("llama", "LlamaForCausalLM", {}, False),
        ("llama", "LlamaModel", {}, False),
        ("t5", "T5Model", {"is_encoder_decoder": True}, False),
        ("bert", "BertModel", {"architectures": None}, False),
    ],
)
def test_without_such_files_only_what_sees_both_sides_embeds(
    kind: str, architecture: str, config: dict[str, Any], embeds: bool
) -> None:
    assert recipe(kind, architecture, config) == (Recipe() if embeds else None)
