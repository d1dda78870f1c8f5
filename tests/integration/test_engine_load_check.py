"""A runner is compared with `model.generate` at load: where they differ another takes its place, or none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.masking_utils import sliding_window_overlay

from gpu_worker.engines.continuous.kvcache.slots import allocate
from gpu_worker.engines.continuous.runners import checks, layer_shapes, masks, packed_model
from gpu_worker.engines.continuous.runners.load_check import difference
from gpu_worker.engines.continuous.runners.model_runner import ModelRunner
from gpu_worker.engines.continuous.runners.packed_runner import PackedRunner
from gpu_worker.engines.continuous.runners.short_copy import short_copy
from promptq.contract.errors import EngineError
from tests.integration.architectures import CONTEXT, DEEPSEEK, GROUPED, PHI3_LONG, Case, build, rope
from tests.integration.engine_rows import row, run
from tests.integration.tiny_engines import tiny_engine

LLAMA = Case("Llama")
QWEN3 = Case("Qwen3")
# Like a Llama, but for factors that no parameter shows.
GRANITE = Case("Granite", GROUPED | {"residual_multiplier": 0.5, "attention_multiplier": 0.3})
# Like a Llama, but its norm has no weight.
OLMO = Case("Olmo")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def known(monkeypatch):
    """PackedRunner takes classes that it computes wrongly."""
    wrong = {"GraniteForCausalLM", "OlmoForCausalLM"}
    monkeypatch.setattr(packed_model, "KNOWN", packed_model.KNOWN | wrong)


@pytest.fixture
def compared(monkeypatch) -> list[str]:
    """The runners that are compared, by name."""
    names: list[str] = []

    def counted(model, runner, context):
        names.append(type(runner).__name__)
        return difference(model, runner, context)

    monkeypatch.setattr(checks, "difference", counted)
    return names


def compare(model, context: int = CONTEXT, runner: Callable = ModelRunner, slots: int = 6) -> str | None:
    cache = allocate(layer_shapes.layer_shapes(model, context), slots, context, model.device)
    return difference(model, runner(model, cache), context)


@pytest.mark.parametrize("switch", [20, 40, 100])
def test_frequencies_that_change_are_found_by_their_numbers_too(switch, monkeypatch):
    """As in a class that this engine knows nothing of. The longest switch is beyond the rows' own positions."""
    monkeypatch.setattr(layer_shapes, "SWITCHING_ROPE", {})
    fields = PHI3_LONG | {"original_max_position_embeddings": switch}
    fields["rope_parameters"] = fields["rope_parameters"] | {"original_max_position_embeddings": switch}
    assert "beside other rows" in (compare(build(Case("Phi3", fields))) or "")


def test_the_longest_context_within_the_switch_is_named():
    model = build(Case("Llama", GROUPED | rope("dynamic", factor=2.0)))
    with pytest.raises(EngineError, match=f"PROMPTQ_CONTEXT_LENGTH={CONTEXT} or less"):
        layer_shapes.layer_shapes(model, CONTEXT + 1)
    assert layer_shapes.layer_shapes(model, CONTEXT)


@pytest.mark.parametrize("window", [40, 100])
@pytest.mark.parametrize("kinds", [["sliding_attention"] * 2, ["sliding_attention", "full_attention"]])
def test_a_window_of_one_token_more_or_less_is_found(window, kinds, monkeypatch):
    """The rows reach beyond it."""
    model = build(Case("Gemma3Text", GROUPED | {"sliding_window": window, "layer_types": kinds}))
    assert compare(model) is None
    for more in (-1, 1):
        monkeypatch.setattr(
            masks, "sliding_window_overlay", lambda size, more=more: sliding_window_overlay(size + more)
        )
        assert "beside other rows" in (compare(model) or "")


@pytest.mark.parametrize("case", [GRANITE, OLMO])
def test_a_model_that_the_packed_runner_gets_wrong_runs_through_transformers(case, known, caplog):
    model = build(case)
    engine = tiny_engine(model, context=CONTEXT)
    assert engine.info.details["runner"] == "ModelRunner"
    (warning,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert "transformers' own code" in warning
    assert run(engine, [row("a")]).text == run(tiny_engine(model, context=CONTEXT, packed=False), [row("a")]).text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_formats_round_without_being_refused(dtype, known):
    assert compare(build(LLAMA).to(dtype), runner=PackedRunner) is None
    assert compare(build(LLAMA).to(dtype)) is None
    assert compare(build(QWEN3).to(dtype), runner=PackedRunner) is None
    assert compare(build(GRANITE).to(dtype), runner=PackedRunner) is not None


class WithoutPositions(LlamaForCausalLM):
    """Counts the tokens that it is given."""

    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, **kwargs)


class WithoutMasks(LlamaForCausalLM):
    def forward(self, *args, attention_mask=None, **kwargs):
        return super().forward(*args, **kwargs)


class WithAllLogits(LlamaForCausalLM):
    def forward(self, *args, logits_to_keep=0, **kwargs):
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [WithoutPositions, WithoutMasks, WithAllLogits])
def test_a_class_that_drops_what_it_is_given_is_refused(kind, dtype):
    """In 16 bits too, where rounding hides what the positions change."""
    llama = build(LLAMA)
    model = kind(llama.config).eval()
    model.load_state_dict(llama.state_dict())
    with pytest.raises(EngineError, match=f"^{kind.__name__} cannot be run by this engine: .*$"):
        tiny_engine(model.to(dtype), context=CONTEXT)


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, 2),
        ({"layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 3, "sliding_window": CONTEXT}, 4),
        ({"no_rope_layers": [1] * 6}, 2),
    ],
)
def test_a_short_copy_shows_every_kind_of_layer(fields, layers):
    model = build(Case("SmolLM3", GROUPED | {"num_hidden_layers": 6} | fields)).bfloat16()
    short = short_copy(model)
    assert (short.dtype, len(short.model.layers), len(short.config.layer_types)) == (torch.float32, layers, layers)
    assert (model.dtype, len(model.model.layers), len(model.config.layer_types)) == (torch.bfloat16, 6, 6)
    assert torch.equal(short.lm_head.weight, model.lm_head.weight.float())


def test_a_dense_layer_before_experts_is_no_reason_to_leave_the_experts_out():
    model = build(Case("DeepseekV3", DEEPSEEK | {"num_hidden_layers": 5, "first_k_dense_replace": 3})).bfloat16()
    assert len(short_copy(model).model.layers) == 4


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("context", [4, 8, 70, CONTEXT])
@pytest.mark.parametrize("runner", [ModelRunner, PackedRunner])
def test_any_number_of_slots_and_any_context_will_do(slots, context, runner, known):
    assert compare(build(LLAMA), context, runner, slots) is None


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_model_without_finite_numbers_is_refused_in_a_line(number):
    model = build(LLAMA)
    torch.nn.init.constant_(model.lm_head.weight, number)
    with pytest.raises(EngineError, match=r"^LlamaForCausalLM cannot be run by this engine: .*\.generate; use another"):
        tiny_engine(model, context=CONTEXT)


def test_numbers_of_a_runner_that_failed_do_not_reach_the_next(monkeypatch):
    """What it left in the slots is not finite."""
    model = build(LLAMA)
    place = packed_model.Rope.__call__
    monkeypatch.setattr(packed_model.Rope, "__call__", lambda self, states: place(self, states) * math.nan)
    engine = tiny_engine(model, context=CONTEXT, kernels=None)
    assert engine.info.details["runner"] == "ModelRunner"


def test_what_came_out_is_kept(tmp_path, compared):
    for _ in range(2):
        tiny_engine(build(LLAMA), context=CONTEXT, fingerprint="a", checks_folder=tmp_path / "checks")
    assert compared == ["PackedRunner"]


@pytest.mark.parametrize("change", [{"fingerprint": "b"}, {"context": 64}, {"packed": False}, {"slots": 3}])
def test_of_another_model_context_or_runner_it_is_found_out_anew(change, tmp_path, compared):
    options = {"context": CONTEXT, "fingerprint": "a", "checks_folder": tmp_path}
    tiny_engine(build(LLAMA), **options)
    tiny_engine(build(LLAMA), **(options | change))
    assert len(compared) == 2


def test_a_model_without_a_fingerprint_is_compared_each_time(tmp_path, compared):
    for _ in range(2):
        tiny_engine(build(LLAMA), context=CONTEXT, checks_folder=tmp_path)
    assert len(compared) == 2
    assert not list(tmp_path.iterdir())


def test_a_difference_is_kept_too(tmp_path, known, compared):
    runners = [
        tiny_engine(build(GRANITE), context=CONTEXT, fingerprint="a", checks_folder=tmp_path).info.details["runner"]
        for _ in range(2)
    ]
    assert runners == ["ModelRunner"] * 2
    assert compared == ["PackedRunner", "ModelRunner"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"difference": 3}', "{}", "\0"])
def test_a_broken_file_counts_for_nothing(text, tmp_path, compared):
    for _ in range(2):
        tiny_engine(build(LLAMA), context=CONTEXT, fingerprint="a", checks_folder=tmp_path)
        (kept,) = tmp_path.iterdir()
        kept.write_text(text)
    assert len(compared) == 2


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, compared, caplog):
    (tmp_path / "checks").write_text("no folder")
    tiny_engine(build(LLAMA), context=CONTEXT, fingerprint="a", checks_folder=tmp_path / "checks")
    assert compared == ["PackedRunner"]
    assert "not kept" in caplog.text
