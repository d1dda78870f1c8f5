"""Where the runner for CUDA graphs is chosen, and what takes its place elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gpu_worker.engines.continuous.runners import choice
from gpu_worker.engines.continuous.runners.graph.model import GraphModel
from gpu_worker.engines.continuous.runners.graph.suitability import Facts, facts_of, why_not_on_cuda
from tests.integration.tiny_engines import tiny_engine, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

H100 = Facts("cuda", torch.bfloat16, (9, 0), has_flash=True, head_size=128, is_known=True, has_windows=False)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, ""),
        ({"dtype": torch.float16, "capability": (8, 0), "head_size": 64}, ""),
        ({"device": "cpu"}, "the device is cpu"),
        ({"dtype": torch.float32}, "no torch.float32"),
        ({"capability": (7, 5)}, "needs compute capability 8.0, and this GPU has 7.5"),
        ({"has_flash": False}, "no flash attention"),
        ({"head_size": 264}, "no heads of 264 numbers"),
        ({"head_size": 100}, "no heads of 100 numbers"),
        ({"is_known": False}, "architecture"),
        ({"has_windows": True}, "window"),
    ],
    ids=str,
)
def test_the_decision(facts, reason):
    given = why_not_on_cuda(replace(H100, **facts))
    assert reason in given
    assert bool(reason) == bool(given)


def test_a_cpu_has_it_only_when_it_is_asked_for():
    model = tiny_model("llama")
    assert tiny_engine(model).info.details["runner"] == "PackedRunner"
    assert tiny_engine(model, graphs=True).info.details["runner"] == "GraphRunner"
    assert tiny_engine(model, graphs=True, packed=False).info.details["runner"] == "ModelRunner"
    assert tiny_engine(tiny_model("gpt2"), graphs=True).info.details["runner"] == "ModelRunner"


def test_if_it_computes_something_else_the_next_runner_takes_its_place(monkeypatch, caplog):
    whole = GraphModel.__call__

    def one_layer_less(self, *args):
        self._layers, layers = self._layers[:-1], self._layers
        logits = whole(self, *args)
        self._layers = layers
        return logits

    monkeypatch.setattr(GraphModel, "__call__", one_layer_less)
    assert tiny_engine(tiny_model("llama"), graphs=True).info.details["runner"] == "PackedRunner"
    (warning,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert "without CUDA graphs, which is slower: beside other rows the logits" in warning


def test_on_cuda_the_log_says_why_it_is_not_taken(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(choice, "facts_of", lambda model, shapes: replace(facts_of(model, shapes), device="cuda"))
    assert tiny_engine(tiny_model("llama")).info.details["runner"] == "PackedRunner"
    assert "LlamaForCausalLM runs without CUDA graphs: flash attention has no torch.float32" in caplog.text
