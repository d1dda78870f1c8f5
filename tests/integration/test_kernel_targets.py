"""The kernels for each kind of processor: what a compiler makes of them, which are chosen, which can be forced."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gpu_worker.engines.continuous.kernels import build
from gpu_worker.engines.continuous.kernels.fastest import Choice
from gpu_worker.engines.continuous.kernels.library import usable_targets
from gpu_worker.engines.continuous.runners import kernel_choice
from gpu_worker.engines.continuous.runners.kernel_choice import choose_kernels, forced_kernels, measure
from gpu_worker.engines.continuous.runners.linear import PlainLinear
from promptq.contract.errors import EngineError
from tests.integration.tiny_engines import tiny_model
from tests.processes import ROOT

USABLE = usable_targets(torch.device("cpu"), torch.float32)
needs_kernels = pytest.mark.skipif(not USABLE, reason="the kernels are for processors with AVX2, AVX-512 or NEON")
# Of each target: a fused multiplication of a whole register, and how many the fullest of the innermost loops has.
FUSED = {
    "avx512": (r"vfmadd\d+ps .*%zmm", 27),
    "avx2": (r"vfmadd\d+ps .*%ymm", 12),
    "neon": (r"fmla\s+v\d+\.4s", 24),
}
CALL_OR_SPILL = re.compile(r"\bcallq?\b|\bbl\b|\(%rsp.*mm|mm.*\(%rsp|\bq\d+, \[(sp|x29)")


def tools(target: str, *names: str) -> list[str]:
    """The programs by these names for a target's machine; skips where one is missing."""
    prefix = "" if target in build.targets() else {"neon": "aarch64-linux-gnu-"}.get(target)
    if prefix is None:
        pytest.skip(f"{target} is compiled on its own kind of machine")
    found = [shutil.which(prefix + name) for name in names]
    for name, path in zip(names, found, strict=True):
        if path is None:
            pytest.skip(f"{prefix}{name} is not installed")
    return [path for path in found if path]


def loops(listing: str) -> Iterator[str]:
    """The innermost loops of a disassembly."""
    lines = {int(at, 16): text for at, text in re.findall(r"^ *([0-9a-f]+):\s+(.*)$", listing, re.M)}
    jumps = ((at, re.match(r"(?:j\w+|b\.\w+|cbn?z)\s.*?([0-9a-f]+) <", text)) for at, text in lines.items())
    back = [(int(jump[1], 16), at) for at, jump in jumps if jump and int(jump[1], 16) < at]
    for start, stop in back:
        if not any(start <= other < last < stop for other, last in back):
            yield "\n".join(text for at, text in lines.items() if start <= at <= stop)


@pytest.mark.parametrize("target", FUSED)
def test_the_hot_loop_multiplies_whole_registers_and_does_nothing_else(target: str, tmp_path: Path) -> None:
    """Each sum stays in its register: no call, no vector on the stack, and as many multiplications as sums."""
    compiler, objdump = tools(target, "gcc", "objdump")
    subprocess.run(build.command(compiler, target, tmp_path / "kernels.so"), check=True)
    shown = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", str(tmp_path / "kernels.so")], capture_output=True, text=True, check=True
    )
    fused, most = FUSED[target]
    counts = {len(re.findall(fused, loop)): loop for loop in loops(shown.stdout)}
    assert max(counts) == most, sorted(counts)
    assert not CALL_OR_SPILL.search(counts[most]), counts[most]


def test_they_compute_the_same_on_arm(tmp_path: Path) -> None:
    """In a program of its own, run by the processor or by an emulation of it."""
    (compiler,) = tools("neon", "gcc")
    emulator = "" if "neon" in build.targets() else shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed")
    check, program = str(tmp_path / "check.o"), str(tmp_path / "check")
    subprocess.run([compiler, "-O1", "-c", str(Path(__file__).with_name("kernel_check.c")), "-o", check], check=True)
    command = build.command(compiler, "neon", Path(program))
    subprocess.run(
        [*(part for part in command if part not in ("-shared", "-fPIC")), check, "-static", "-lm"], check=True
    )
    done = subprocess.run([*emulator.split(), program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("panel 16\n")


def test_the_faster_product_is_found_by_measuring() -> None:
    class Slow(PlainLinear):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(8):
                super().__call__(x)
            return super().__call__(x)

    choice = measure({"fast": PlainLinear, "slow": Slow}, [(64, 32), (32, 64)], most_seconds=0)
    assert choice.name == "fast"
    assert re.fullmatch(r"slow takes \d+\.\d\d times as long", choice.reason)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What a measurement is to have found, and which candidates were measured on which shapes."""
    state = SimpleNamespace(choice=Choice("torch", "it was told so", True), calls=[])

    def told(makers, shapes):
        state.calls.append((list(makers), shapes))
        return state.choice

    monkeypatch.setattr(kernel_choice, "measure", told)
    monkeypatch.setattr(build, "BUILT", ROOT / ".promptq" / "kernels")
    return state


@needs_kernels
def test_a_choice_is_made_once_for_a_processor_a_models_shapes_and_threads(tmp_path, measured, caplog):
    caplog.set_level(logging.INFO)
    choose = partial(choose_kernels, folder=tmp_path)
    assert choose(tiny_model("llama")) is None
    assert measured.calls == [([*USABLE, "torch"], [(32, 32), (16, 32), (16, 32), (32, 32), *[(48, 32)] * 2, (32, 48)])]
    assert "kernels: torch, measured in" in caplog.text
    assert choose(tiny_model("llama3")) is None
    assert len(measured.calls) == 1, "the same shapes"
    assert "kernels: torch, as measured before: it was told so" in caplog.text
    measured.choice = Choice(USABLE[-1], "it was told so", False)
    assert choose(tiny_model("qwen2")).target == choose(tiny_model("qwen2")).target == USABLE[-1]
    assert len(measured.calls) == 3, "what is not sure is not kept"
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert choose(tiny_model("llama")).target == USABLE[-1]
    finally:
        torch.set_num_threads(threads)


@needs_kernels
def test_a_kept_choice_is_taken_without_compiling_the_others(tmp_path, measured, monkeypatch, caplog):
    measured.choice = Choice(USABLE[-1], "it was told so", True)
    choose_kernels(tiny_model("llama"), tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(build.library(tmp_path, USABLE[-1]), alone)
    monkeypatch.setattr(build, "BUILT", alone)
    monkeypatch.setenv("PATH", "")
    assert choose_kernels(tiny_model("llama"), tmp_path).target == USABLE[-1]
    assert not caplog.records, "nothing was missing"


def test_what_our_kernels_do_not_know_is_not_measured(tmp_path, measured):
    assert choose_kernels(tiny_model("gpt2"), tmp_path) is None
    assert choose_kernels(tiny_model("llama").bfloat16(), tmp_path) is None
    assert not measured.calls
    assert not list(tmp_path.iterdir())


@needs_kernels
def test_they_can_be_forced_where_they_run(tmp_path, monkeypatch):
    folder, model = ROOT / ".promptq" / "kernels", tiny_model("llama")
    for target in USABLE:
        assert forced_kernels(model, folder, target).target == target
    other = next(target for target in build.TARGETS if target not in USABLE)
    with pytest.raises(EngineError, match=f"^PROMPTQ_KERNELS={other}: this processor runs {' and '.join(USABLE)}$"):
        forced_kernels(model, folder, other)
    assert forced_kernels(model.bfloat16(), folder, USABLE[0]) is None
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match=f"^PROMPTQ_KERNELS={USABLE[0]}: they cannot be compiled"):
        forced_kernels(tiny_model("llama"), tmp_path, USABLE[0])
