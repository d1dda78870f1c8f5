"""The engine's benchmark feeds today's engine."""

from __future__ import annotations

from benchmarks.peers import Ours
from benchmarks.workloads import Request
from tests.integration.tiny_engines import CONTEXT, KERNELS, byte_tokenizer, tiny_model


def test_our_engine_generates_exactly_what_is_asked_for_and_notes_its_passes() -> None:
    engine = Ours(tiny_model("llama"), byte_tokenizer(), slots=2, context=CONTEXT, kernels=KERNELS)
    requests = [Request(text, list(text.encode()), tokens) for text, tokens in (("abc", 9), ("defgh", 5), ("i", 12))]
    assert engine.run(requests) == 26
    assert engine.passes[0] == (8, 2), "both prompts at once"
    assert sum(logits for _, logits in engine.passes) >= 26
