"""Our kernels give what torch's operators give, in any company of rows; they are compiled once, or done without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gpu_worker.engines.continuous.kernels import build
from gpu_worker.engines.continuous.kernels.build import BuildError, library
from gpu_worker.engines.continuous.kernels.library import Kernels, fits_attention, load_kernels, usable_targets
from gpu_worker.engines.continuous.kvcache.places import Places
from gpu_worker.engines.continuous.runners.linear import KernelLinear, gated, has_onednn
from tests.integration.tiny_engines import ALL_KERNELS, tiny_engine, tiny_model
from tests.processes import ROOT

CPU = torch.device("cpu")
close = torch.testing.assert_close
TARGETS = usable_targets(CPU, torch.float32)
pytestmark = pytest.mark.skipif(not TARGETS, reason="the kernels are for processors with AVX2, AVX-512 or NEON")


@pytest.fixture(params=TARGETS)
def kernels(request) -> Kernels:
    loaded = {kernels.target: kernels for kernels in ALL_KERNELS}
    assert request.param in loaded, "the kernels could not be compiled: see the log"
    return loaded[request.param]


@pytest.mark.parametrize("outputs", [48, 56, 7])
@pytest.mark.parametrize("rows", [*range(11), 17, 64, 130])
def test_a_product(kernels, rows, outputs):
    torch.manual_seed(rows)
    weight, bias, x, other = (torch.randn(*shape) for shape in ((outputs, 40), (outputs,), (rows, 40), (rows, outputs)))
    wanted = functional.linear(x, weight, bias)
    close(KernelLinear(kernels, weight, bias)(x), wanted)
    close(KernelLinear(kernels, weight, bias).plus(x, other), wanted + other)
    close(KernelLinear(kernels, weight)(x), functional.linear(x, weight))


@pytest.mark.parametrize("rows", [0, 1, 5, 7, 40])
def test_a_gated_product(kernels, rows):
    torch.manual_seed(rows)
    gate, up, x = torch.randn(24, 40) * 8, torch.randn(24, 40), torch.randn(rows, 40)
    wanted = functional.silu(x.double() @ gate.double().T) * (x.double() @ up.double().T)
    close(gated(gate, up, kernels)(x), wanted.float(), rtol=1e-5, atol=1e-4)
    biases = torch.randn(24), torch.randn(24)
    wanted = functional.silu(functional.linear(x, gate, biases[0])) * functional.linear(x, up, biases[1])
    close(gated(gate, up, kernels, biases)(x), wanted, rtol=1e-4, atol=1e-4)


def test_silu_from_one_end_to_the_other(kernels):
    """The exponential function behind it, at which attention is also done; NaN stays, and stays in its row."""
    x = torch.cat((torch.linspace(-90, 90, 5001), torch.tensor([-1e30, 1e30, 0.0, -0.0])))
    silu = gated(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), kernels)
    close(
        silu(torch.stack((x, torch.ones_like(x)), 1))[:, 0], functional.silu(x.double()).float(), rtol=1e-6, atol=1e-8
    )
    x[1] = torch.nan
    assert torch.equal(silu(torch.stack((x, torch.ones_like(x)), 1))[:, 0].isnan(), x.isnan())


def test_a_row_comes_out_the_same_in_any_company_and_on_any_number_of_threads(kernels):
    """Bit for bit: each row's sums are made in the same order, however many there are."""
    torch.manual_seed(0)
    weight, x = torch.randn(100, 72), torch.randn(50, 72)
    product = KernelLinear(kernels, weight)
    together = product(x)
    for first in range(50):
        assert torch.equal(product(x[first : first + 1]), together[first : first + 1])
        assert torch.equal(product(x[first:]), together[first:])
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(product(x), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("rows", [0, 1, 60])
def test_norm(kernels, rows):
    x, weight = torch.randn(rows, 40) * 3, torch.randn(40)
    close(kernels.norm(x, weight, 1e-5), functional.rms_norm(x, (40,), weight, 1e-5))


def attended(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Query [heads, dim] over keys and values [key heads, columns, dim]: [heads, dim], by torch."""
    groups = len(query) // len(keys)
    keys, values = keys.repeat_interleave(groups, 0), values.repeat_interleave(groups, 0)
    return functional.scaled_dot_product_attention(query[:, None], keys, values)[:, 0]


# Where rows lie in a store, in two layouts: its shape for so many rows of 128 columns, the vectors from head to head,
# and the start of a row.
LAYOUTS: dict[str, Callable[[int, int], tuple[tuple[int, ...], int, Callable[[Tensor], Tensor]]]] = {
    "slots": lambda rows, heads: ((rows, heads, 128), 128, lambda slot: slot * heads * 128),
    "spans": lambda rows, heads: ((heads, rows * 128), rows * 128, lambda slot: slot * 128),
}


def row_of(store: Tensor, start: Tensor, stride: int, heads: int, columns: int) -> Tensor:
    """A row's vectors as a view, [heads, columns, dim]."""
    dim = store.shape[-1]
    return store.as_strided((heads, columns, dim), (stride * dim, dim, 1), store.storage_offset() + int(start) * dim)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("heads", "key_heads", "dim"), [(9, 3, 64), (4, 4, 8), (4, 1, 128), (2, 2, 72)])
def test_attention_of_running_rows(kernels, heads, key_heads, dim, layout):
    """Rows of every length around a block; what lies behind a row's columns, and in other rows, may be anything."""
    lengths = [1, 2, 31, 32, 33, 64, 65, 100]
    torch.manual_seed(dim)
    shape, stride, start = LAYOUTS[layout](9, key_heads)
    keys, values = (torch.full((*shape, dim), torch.nan) for _ in range(2))
    starts = start(torch.randperm(9)[: len(lengths)])
    for at, length in zip(starts, lengths, strict=True):
        for store in (keys, values):
            row_of(store, at, stride, key_heads, length)[:] = torch.randn(key_heads, length, dim) * 2
    states = torch.randn(len(lengths), heads + 2 * key_heads, dim) * 2
    out = torch.full((len(lengths) + 1, heads * dim), 7.0)
    places = Places(starts, torch.tensor(lengths) - 1, stride, key_heads)
    kernels.attend(states, places, keys, values, len(lengths), out)
    for index, (at, length) in enumerate(zip(starts, lengths, strict=True)):
        row = (row_of(store, at, stride, key_heads, length) for store in (keys, values))
        wanted = attended(*(part.double() for part in (states[index, :heads], *row)))
        close(out[index], wanted.flatten().float(), rtol=1e-5, atol=1e-5)
    assert (out[len(lengths)] == 7).all(), "no more than it was asked for"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_keys_and_values_find_their_places(kernels, layout):
    heads, key_heads, dim, tokens = 4, 2, 8, 40
    states = torch.randn(tokens + 2, heads + 2 * key_heads, dim)
    angle = torch.rand(tokens + 2, dim // 2).repeat(1, 2) * 6
    cosine, sine = angle.cos(), angle.sin()
    half = torch.cat((-states[..., dim // 2 :], states[..., : dim // 2]), -1)
    turned = states * cosine[:, None] + half * sine[:, None]
    before = states.clone()
    shape, stride, start = LAYOUTS[layout](64, key_heads)
    keys, values = torch.zeros(2, *shape, dim).unbind()
    places = Places(start(torch.arange(tokens)), torch.arange(tokens) % 16, stride, key_heads)
    kernels.place(states, cosine, sine, places, keys, values)
    close(states[:tokens, :heads], turned[:tokens, :heads])
    for token, (at, column) in enumerate(zip(places.starts, places.columns, strict=True)):
        close(row_of(keys, at, stride, key_heads, 16)[:, column], turned[token, heads : heads + key_heads])
        assert torch.equal(row_of(values, at, stride, key_heads, 16)[:, column], before[token, heads + key_heads :])
    vectors = places.vectors()
    close(keys.view(-1, dim)[vectors], turned[:tokens, heads : heads + key_heads].flatten(0, 1))
    assert keys.count_nonzero() == values.count_nonzero() == tokens * key_heads * dim
    assert torch.equal(states[tokens:], before[tokens:]), "tokens without a place are left as they are"


def test_weights_lie_in_panels(kernels):
    outputs = kernels.panel + 4
    weight = torch.arange(float(outputs))[:, None] * 100 + torch.arange(3.0)
    panels = kernels.packed(weight)
    assert panels.shape == (2, 1, 3, kernels.panel)
    assert panels[1, 0, 2].tolist() == [*weight[-4:, 2].tolist(), *[0] * (kernels.panel - 4)]
    assert kernels.packed(weight, weight + 1).shape == (2, 2, 3, kernels.panel)
    assert [fits_attention(dim) for dim in (8, 64, 256, 264, 60)] == [True, True, True, False, False]


def test_the_default_engine_uses_them_and_others_do_without(kernels, tmp_path):
    model = tiny_model("llama")
    assert tiny_engine(model, kernels=kernels).info.details["linear"] == f"kernels-{kernels.target}"
    without = "onednn" if has_onednn(CPU, torch.float32) else "torch"
    assert tiny_engine(model, kernels=None).info.details["linear"] == without
    assert tiny_engine(model, kernels=kernels, packed=False).info.details["linear"] == "torch"
    assert load_kernels(tmp_path, CPU, torch.bfloat16) is None
    assert load_kernels(tmp_path, torch.device("cuda"), torch.float32) is None
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_engine_says_so_and_runs(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load_kernels(tmp_path / "kernels", CPU, torch.float32) is None
    assert "no compiler: none of gcc, cc is on the PATH" in caplog.text


def test_a_compiler_that_fails_leaves_its_first_line_and_no_file(tmp_path, monkeypatch):
    gcc, last = tmp_path / "gcc", "while [ $# -gt 2 ]; do shift; done"
    gcc.write_text(f"#!/bin/sh\n{last}; echo half > $1; echo no such flag >&2; echo more >&2; exit 1\n")
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BuildError, match=r"gcc: no such flag$"):
        library(tmp_path / "kernels", TARGETS[0])
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == ["kernels.lock"]


def test_a_compiler_that_hangs_is_given_up_and_leaves_no_file(tmp_path, monkeypatch):
    gcc = tmp_path / "gcc"
    gcc.write_text("#!/bin/sh\nexec sleep 60\n")
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(build, "TIME_LIMIT_SECONDS", 0.2)
    with pytest.raises(BuildError, match=r"gcc took more than 0.2 s$"):
        library(tmp_path / "kernels", TARGETS[0])
    assert [path.name for path in (tmp_path / "kernels").iterdir()] == ["kernels.lock"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=str(tmp_path / "file")):
        library(tmp_path / "file" / "kernels", TARGETS[0])


def test_processes_that_start_together_compile_once(tmp_path):
    command = [sys.executable, "-m", "gpu_worker.engines.continuous.kernels.build", str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    (answer,) = {process.communicate(timeout=120)[0].strip() for process in started}
    paths = [Path(line) for line in answer.splitlines()]
    assert {file.name for file in tmp_path.iterdir()} == {*(path.name for path in paths), "kernels.lock"}
    assert [path.name.split("-")[1] for path in paths] == list(build.targets()), "all that this kind of machine may run"
    Kernels(next(path for path in paths if TARGETS[0] in path.name), TARGETS[0])


def test_what_came_with_the_program_is_taken_first(tmp_path, monkeypatch):
    """An image has them compiled, and no compiler."""
    ready = library(tmp_path / "image" / "built", TARGETS[0])
    monkeypatch.setattr(build, "BUILT", ready.parent)
    monkeypatch.setenv("PATH", "")
    assert library(tmp_path / "other", TARGETS[0]) == ready
