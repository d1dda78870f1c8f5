"""Every architecture gives what `model.generate` gives, or is refused when it is loaded: none gives wrong text."""

from __future__ import annotations

import random

import pytest

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.generation_config import end_tokens
from promptq.contract.errors import EngineError
from promptq.contract.request import GenerateRequest
from tests.integration.architectures import CASES, build
from tests.integration.tiny_engines import WAYS, Recorder, byte_tokenizer, drive, reference, same, tiny_engine

# Bytes of a prompt, as shares of the context: together in one batch, the longest beyond every window there is.
LENGTHS = (0.03, 0.15, 0.4, 0.7)
NEW = 20


pytestmark = pytest.mark.usefixtures("one_thread")


def prompts(context: int) -> list[str]:
    rng = random.Random(3)
    return ["".join(chr(rng.randint(32, 126)) for _ in range(int(context * share))) for share in LENGTHS]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_what_is_refused_is_refused_in_a_line(name):
    case = CASES[name]
    with pytest.raises(EngineError) as caught:
        tiny_engine(build(case), context=case.context)
    assert case.refused in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, case in CASES.items()
        if not case.refused
        for way in (WAYS if case.runner == "PackedRunner" else ["transformers"])
    ],
)
def test_what_is_taken_gives_what_generate_gives(name, way):
    case = CASES[name]
    model = build(case)
    engine = tiny_engine(model, context=case.context, slots=3, prefill_tokens=40, **WAYS[way])
    assert engine.info.details["runner"] == (case.runner if way != "transformers" else "ModelRunner")
    recorder, eos = Recorder(), list(end_tokens(model, byte_tokenizer()))
    recorder.watch(engine)
    texts = dict(zip("abcd", prompts(case.context), strict=True))
    rows = [Row(id, GenerateRequest(prompt=text, max_tokens=NEW)) for id, text in texts.items()]
    drive(engine, recorder, rows, set(), random.Random(1))
    for id, text in texts.items():
        ids = byte_tokenizer()(text)["input_ids"]
        wanted = reference(model, ids, min(NEW, case.context - len(ids)), eos)
        same(recorder.tokens.get(id, []), wanted)
