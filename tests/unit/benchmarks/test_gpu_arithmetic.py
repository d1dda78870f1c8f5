"""What `make bench-gpu` computes beside measuring: floors, estimates, costs, profiles, limits, its table."""

from __future__ import annotations

import json
import signal

import pytest

from benchmarks.gpu.costs import beside_tokens, double_tokens, free_tokens, prefill_tokens
from benchmarks.gpu.plan import STAGES, chosen, limit_seconds
from benchmarks.gpu.processes import outcome
from benchmarks.gpu.profile_lines import Entry, Profile, host_share, read
from benchmarks.gpu.report import Report, broken_parts
from benchmarks.gpu.report import read as read_file
from benchmarks.gpu.run_stages import Options, file_name
from benchmarks.gpu.shapes import FULL, SHORT, estimate_seconds, floor_seconds, shape_named
from benchmarks.gpu.table import table

TERABYTES = 3e12


def test_the_shapes_have_as_many_weights_as_the_models_that_they_are_named_after():
    millions = {shape.name: round(shape.read_weights / 1e6) for shape in FULL}
    # SmolLM2-135M and Llama-3.2-1B in whole, as their heads are their embeddings; Llama-3.1-8B without its embedding.
    assert millions == {"135M": 134, "1B": 1236, "8B": 7505}
    assert [shape.name for shape in SHORT] == [shape.name for shape in FULL]
    assert shape_named("8B", short=True).is_short


@pytest.mark.parametrize(
    ("name", "rows", "floor", "estimate"),
    [
        ("135M", 1, 0.09, 1.0), ("135M", 32, 0.23, 1.2), ("135M", 256, 1.2, 2.5),
        ("1B", 1, 0.83, 1.3), ("1B", 32, 1.0, 1.5), ("1B", 256, 2.5, 3.3),
        ("8B", 1, 5.0, 5.9), ("8B", 32, 5.8, 6.8), ("8B", 256, 12, 14),
    ],
)  # fmt: skip
def test_floor_and_estimate_are_those_of_the_plan(name, rows, floor, estimate):
    """In ms, in bfloat16, for rows of 550 tokens at 3 TB/s: the table that the bars for a GPU go by."""
    asked = (shape_named(name, short=False), [550] * rows, 2, TERABYTES)
    assert floor_seconds(*asked) * 1e3 == pytest.approx(floor, rel=0.08)
    assert estimate_seconds(*asked) * 1e3 == pytest.approx(estimate, rel=0.1)


def test_costs_of_a_device_that_doubles_at_96_tokens():
    running = {1: 1.0, 8: 1.05, 32: 1.1, 64: 1.5, 96: 2.0, 128: 2.5}
    assert free_tokens(running) == 32
    assert double_tokens(running, free=32) == 64
    assert double_tokens({1: 1.0, 8: 1.1}, free=8) is None, "nothing that was measured takes twice as long"


def test_tokens_beyond_a_slow_step_are_not_free():
    assert free_tokens({1: 1.0, 2: 1.3, 4: 1.0}) == 1


def test_prompts_are_as_long_as_gives_nearly_the_best_rate():
    assert prefill_tokens({128: 1.0, 512: 2.0, 2048: 7.5, 4096: 15.0}) == 512
    assert beside_tokens({16: 1.2, 64: 2.8}, alone=1.0) == 40
    assert beside_tokens({16: 1.2}, alone=1.0) is None


def test_a_profile_of_a_gpu_counts_launches_and_kernels_by_themselves():
    lines = [
        Entry("aten::mm", on_device=False, count=3, seconds=9.0),
        Entry("cudaLaunchKernel", on_device=False, count=3, seconds=1.0),
        Entry("cudaGraphLaunch", on_device=False, count=1, seconds=1.0),
        Entry("gemm", on_device=True, count=40, seconds=0.3),
        Entry("Memcpy HtoD", on_device=True, count=2, seconds=0.1),
    ]
    found = read(lines, seconds=2.0, on_cuda=True)
    assert (found.launches, found.kernels) == (4, 42)
    assert host_share(found, step_seconds=0.5, on_cuda=True) == pytest.approx(0.2)
    assert read(lines, seconds=2.0, on_cuda=False).launches == 3


def test_the_share_of_the_host_is_never_negative():
    assert host_share(Profile(1, 1, device_seconds=3.0, seconds=1.0), step_seconds=2.0, on_cuda=True) == 0.0


def test_a_stage_has_its_own_limit_or_what_is_left():
    stage = STAGES[0]
    assert limit_seconds(stage, left=500, short=False) == stage.seconds
    assert limit_seconds(stage, left=20, short=False) == 20
    assert limit_seconds(stage, left=9, short=False) is None
    assert (limit_seconds(stage, left=500, short=True) or 0) > stage.seconds


def test_stages_are_taken_in_their_order_and_unknown_ones_refused():
    assert [stage.name for stage in chosen(["parity", "versions"])] == ["versions", "parity"]
    assert len(chosen([])) == len(STAGES)
    with pytest.raises(ValueError, match="no stage nothing"):
        chosen(["nothing"])


def test_how_a_stage_ended():
    ended = {"ended": True}
    assert outcome(0, 1.0, None, {"speed": 1} | ended, "").status == "ok"
    assert outcome(0, 1.0, None, {"skipped": "no vLLM"} | ended, "").error == "no vLLM"
    late = outcome(-signal.SIGKILL, 60.0, 60.0, {"steps": [1]}, "the log")
    assert (late.status, late.found, late.log) == ("timed out", {"steps": [1]}, "the log")
    assert outcome(-signal.SIGSEGV, 1.0, None, {}, "").error == "the process ended with SIGSEGV"
    assert outcome(1, 1.0, None, {"error": "KeyError: 'x'"} | ended, "").error == "KeyError: 'x'"
    # A device that was broken on purpose may fail the process when it leaves.
    assert outcome(-signal.SIGABRT, 1.0, None, {"message": "broken"} | ended, "").status == "ok"


def test_a_part_that_does_not_hold_fails_its_stage():
    found = {"refusal": {"holds": True}, "memory": {"holds": False}, "pair": [{"slots": 1}, {"error": "x"}], "n": 3}
    assert broken_parts(found) == ["memory", "pair"]
    assert outcome(0, 1.0, None, found | {"ended": True}, "").error == "of it failed: memory, pair"


def test_a_report_is_whole_on_disk_after_each_fact_and_keeps_errors(tmp_path):
    path = tmp_path / "found.json"
    report = Report(path)
    report.append("steps", {"rows": 1})
    report.append("steps", {"rows": 2})
    assert read_file(path) == {"steps": [{"rows": 1}, {"rows": 2}]}
    report.attempt("division", lambda: 1 / 0)
    assert read_file(path)["division"]["error"] == "ZeroDivisionError: division by zero"
    path.write_text('{"half')
    assert read_file(path) == {}


def test_results_lie_under_the_name_of_the_card(tmp_path):
    options = Options("cuda", False, "", 570, tmp_path)
    assert file_name("NVIDIA H100 80GB HBM3", options) == "gpu-nvidia-h100-80gb-hbm3.json"
    assert file_name("cpu Xeon", Options("cpu", True, "", 570, tmp_path)) == "gpu-cpu-xeon-short.json"


def test_the_table_names_the_card_and_shows_what_is_there():
    step = {
        "path": "graph", "rows": 32, "lengths": "equal", "seconds": 0.0015, "overlapped_seconds": None,
        "tokens_per_second": 21333.0, "launches": 7, "host_share": 0.1, "floor_seconds": 0.001,
        "estimate_seconds": 0.0015, "times_estimate": 1.0,
    }  # fmt: skip
    results = {
        "versions": {"status": "ok", "seconds": 2.0, "found": {"card": "NVIDIA H200", "packages": {"torch": "2.11"}}},
        "steps-1B": {"status": "ok", "found": {"steps": [step, {"path": "present", "error": "OutOfMemoryError: no"}]}},
        "rates": {"status": "timed out", "error": "it was ended after 40 s", "found": {}},
        "memory": {"status": "failed", "found": {"refusal": {"holds": False, "message": "57 slots fit"}}},
    }
    lines = table(json.loads(json.dumps(results))).splitlines()
    assert lines[0] == "card: NVIDIA H200, torch 2.11"
    assert any("32 equal   graph" in line and "1.500" in line and "21333" in line for line in lines)
    assert any("OutOfMemoryError: no" in line for line in lines)
    assert any("it was ended after 40 s" in line for line in lines)
    assert any("cannot be shown: KeyError" in line for line in lines), "a stage that has too little costs its own line"
    assert any("refusal: DOES NOT HOLD 57 slots fit" in line for line in lines)
