"""Every architecture gives what `model.generate` gives, or is refused when it is loaded: none gives wrong text."""

from __future__ import annotations

import random
import re
from functools import cache

import pytest

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.generation_config import end_tokens
from promptq.contract.errors import EngineError
from promptq.contract.request import GenerateRequest
from tests.integration.architectures import CASES, WINDOW, Case, build
from tests.integration.tiny_engines import (
    ALL_WAYS,
    Recorder,
    Reference,
    byte_tokenizer,
    drive,
    reference,
    same,
    tiny_engine,
)
from tests.processes import ROOT

# Bytes of a prompt, as shares of the context: together in one batch, the longest beyond every window there is.
LENGTHS = (0.03, 0.15, 0.4, 0.7)
NEW = 20
# What docs/models.md calls the runners.
OUTCOMES = {"PackedRunner": "packed", "ModelRunner": "general", "": "refused"}


pytestmark = pytest.mark.usefixtures("one_thread")


def prompts(context: int) -> list[str]:
    rng = random.Random(3)
    return ["".join(chr(rng.randint(32, 126)) for _ in range(int(context * share))) for share in LENGTHS]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_what_is_refused_is_refused_in_a_line(name):
    case = CASES[name]
    model = build(case)
    with pytest.raises(EngineError) as caught:
        tiny_engine(model, context=case.context)
    assert caught.value.message.startswith(type(model).__name__)
    assert case.refused in caught.value.message
    assert caught.value.message.endswith(("use another one, such as vllm", "or less"))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, case in CASES.items()
        if not case.refused
        for way in (ALL_WAYS if case.runner == "PackedRunner" else ["transformers"])
    ],
)
def test_what_is_taken_gives_what_generate_gives(name, way):
    case = CASES[name]
    model = build(case)
    engine = tiny_engine(model, context=case.context, slots=3, prefill_tokens=40, **ALL_WAYS[way])
    runners = {"transformers": "ModelRunner", "graphs": "GraphRunner"}
    assert engine.info.details["runner"] == runners.get(way, case.runner)
    recorder = Recorder()
    recorder.watch(engine)
    texts = dict(zip("abcd", prompts(case.context), strict=True))
    rows = [Row(id, GenerateRequest(prompt=text, max_tokens=NEW)) for id, text in texts.items()]
    drive(engine, recorder, rows, [], random.Random(1))
    for id, wanted in zip("abcd", alone(name), strict=True):
        same(recorder.tokens.get(id, []), wanted)


@cache
def alone(name: str) -> list[Reference]:
    """What the prompts give by themselves: the same for every way through a model."""
    case, tokenizer = CASES[name], byte_tokenizer()
    model = build(case)
    eos = list(end_tokens(model, tokenizer))
    prompt_ids = [tokenizer(text)["input_ids"] for text in prompts(case.context)]
    return [reference(model, ids, min(NEW, case.context - len(ids)), eos) for ids in prompt_ids]


def table() -> dict[tuple[str, str], str]:
    """What docs/models.md says of each architecture and each way in which it is taken."""
    rows: dict[tuple[str, str], str] = {}
    for line in (ROOT / "docs" / "models.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and cells[1] in OUTCOMES.values():
            for family in re.findall(r"`(\w+)`", cells[0]):
                rows[family, cells[1]] = f"{rows.get((family, cells[1]), '')} {cells[2]}"
    return rows


def outcome(case: Case) -> tuple[str, str]:
    return case.family, OUTCOMES[case.runner]


def test_the_table_of_models_is_what_was_tried() -> None:
    assert table().keys() == set(map(outcome, CASES.values()))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_the_table_of_models_has_the_words_that_refuse(name: str) -> None:
    case = CASES[name]
    assert case.refused.replace(str(WINDOW), "N") in table()[outcome(case)]
