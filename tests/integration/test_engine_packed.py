"""The packed model's parts: products are what torch's `linear` gives, and only models that it knows run packed."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from gpu_worker.engines.continuous.runners import linear as linear_module
from gpu_worker.engines.continuous.runners.linear import OneDnnLinear, PlainLinear, gated, has_onednn, linear
from gpu_worker.engines.continuous.runners.packed_model import is_known
from tests.integration.tiny_engines import DEEP, SHAPE, tiny_engine, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
KINDS = [
    PlainLinear,
    pytest.param(OneDnnLinear, marks=pytest.mark.skipif(not has_onednn(CPU, torch.float32), reason="no oneDNN")),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7, 130])
def test_a_product_and_what_is_done_to_it_on_the_way_out(kind, biased, rows):
    torch.manual_seed(rows)
    weight, bias = torch.randn(24, 40), torch.randn(24) if biased else None
    x, other = torch.randn(rows, 40), torch.randn(rows, 24)
    made, wanted = kind(weight, bias), functional.linear(x, weight, bias)
    close = torch.testing.assert_close
    close(made(x), wanted)
    close(made.plus(x, other.clone()), wanted + other)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7, 130])
def test_a_gated_product(onednn, biased, rows, monkeypatch):
    if not onednn:
        monkeypatch.setattr(linear_module, "has_onednn", lambda device, dtype: False)
    torch.manual_seed(rows)
    gate, up, x = torch.randn(24, 40), torch.randn(24, 40), torch.randn(rows, 40)
    biases = (torch.randn(24), torch.randn(24)) if biased else (None, None)
    wanted = functional.silu(functional.linear(x, gate, biases[0])) * functional.linear(x, up, biases[1])
    torch.testing.assert_close(gated(gate, up, biases=biases)(x), wanted)


def test_the_product_for_a_device(monkeypatch):
    weight = torch.randn(8, 8)
    assert isinstance(linear(weight), OneDnnLinear if has_onednn(CPU, torch.float32) else PlainLinear)
    assert isinstance(linear(weight.half()), PlainLinear)
    assert not has_onednn(torch.device("cuda"), torch.float32)
    monkeypatch.setattr(linear_module, "has_onednn", lambda device, dtype: False)
    assert isinstance(linear(weight), PlainLinear)


def test_only_known_models_run_flat():
    assert [is_known(tiny_model(name)) for name in ("llama", "qwen2", "gpt2")] == [True, True, False]
    gelu = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, hidden_act="gelu", **DEEP, **SHAPE))
    assert not is_known(gelu)

    class LlamaForCausalLMOfMine(LlamaForCausalLM):
        pass

    mine = LlamaForCausalLMOfMine(gelu.config)
    assert not is_known(mine)
    assert tiny_engine(mine).info.details["runner"] == "ModelRunner"
    assert tiny_engine(tiny_model("llama")).info.details["runner"] == "PackedRunner"
