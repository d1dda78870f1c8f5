"""What an engine takes of a GPU's memory. CUDA's own numbers are stood in for: what is made of them runs here."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpu_worker.engines.continuous import creation
from gpu_worker.engines.continuous.canary import Canary
from gpu_worker.engines.continuous.kvcache import memory, slots, spans
from gpu_worker.engines.continuous.kvcache.gpu_memory import limit_share
from gpu_worker.engines.continuous.loading import loader
from gpu_worker.engines.continuous.runners import choice
from gpu_worker.engines.continuous.runners.layer_weights import joined, share
from gpu_worker.engines.continuous.runners.packed_model import PackedModel
from gpu_worker.engines.continuous.runners.packed_runner import PackedRunner
from gpu_worker.engines.gpu_turns import gpu_names, gpu_turn, plain_name
from gpu_worker.engines.registry import create_engine
from promptq.contract.errors import EngineError
from promptq.contract.settings import WorkerSettings
from tests.integration.tiny_engines import WAYS, byte_tokenizer, tiny_engine, tiny_model
from tests.processes import ROOT

GIB = 2**30
CUDA = torch.device("cuda", 0)
NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.50 GiB free.")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A card of 80 GiB, 70 of them free, of which this process has 6."""
    card = SimpleNamespace(free=70 * GIB, total=80 * GIB, reserved=6 * GIB, share=1.0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (card.free, card.total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: card.reserved)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: card.share)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: vars(card).update(share=share))
    return card


@pytest.mark.parametrize(
    ("share", "free", "left"),
    [
        (1.0, 70, 70),  # all that is free
        (0.5, 70, 34),  # its part of the card, less what it has
        (0.5, 20, 20),  # others have taken more than theirs
        (0.05, 70, 0),  # it has more than its part
    ],
)
def test_a_worker_takes_its_share_of_the_card_and_no_more_than_is_free(
    card: SimpleNamespace, share: float, free: int, left: int
) -> None:
    limit_share(CUDA, share)
    card.free = free * GIB
    assert slots.free_bytes(CUDA) == left * GIB


def test_a_cpu_has_no_share(card: SimpleNamespace) -> None:
    limit_share(torch.device("cpu"), 0.5)
    assert card.share == 1.0


def test_loading_limits_the_share_before_the_weights_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    monkeypatch.setattr(loader, "limit_share", lambda _, share: taken.append(share))
    create_engine(settings(folder, gpu_memory_share=0.4))
    assert taken == [0.4]


@pytest.mark.parametrize("way", ["operators", "transformers"])
def test_the_weights_are_laid_out_before_the_free_memory_is_measured(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def measured(device: torch.device) -> int:
        made.append("measured")
        return GIB

    class Noting(PackedModel):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append("laid out")

    monkeypatch.setattr(slots, "free_bytes", measured)
    monkeypatch.setattr(choice, "PackedModel", Noting)
    monkeypatch.setattr("gpu_worker.engines.continuous.runners.packed_runner.PackedModel", Noting)
    tiny_engine(tiny_model("llama"), **WAYS[way])
    assert made == (["measured"] if way == "transformers" else ["laid out", "measured"])


@torch.inference_mode()
def test_modules_that_share_a_joined_weight_hold_none_twice_and_compute_what_they_did() -> None:
    """As on a GPU, where products read the weights as they lie."""
    model = tiny_model("qwen2")
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    for layer in model.model.layers:
        own = layer.self_attn
        parts = [own.q_proj, own.k_proj, own.v_proj]
        weight, _ = joined(parts)
        share(parts, weight)
        again, bias = joined(parts)
        assert again.data_ptr() == weight.data_ptr() == own.q_proj.weight.data_ptr()
        assert torch.equal(again, torch.cat([part.weight for part in parts]))
        assert bias is not None
        assert torch.equal(bias, torch.cat([part.bias for part in parts]))
        assert joined(parts[::-1])[0].data_ptr() != weight.data_ptr(), "in another order they are another weight"
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("layout", ["slots", "spans"])
def test_slots_that_the_device_refuses_say_how_many_fit(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Free memory in pieces, or another program that was faster."""
    free = iter([8 * 2**20, 2 * 2**20])
    for module in (slots, memory):
        monkeypatch.setattr(module, "free_bytes", lambda _: next(free))
    for module in (slots, spans):
        monkeypatch.setattr(module, "zeros", raising(NO_ROOM))
    with pytest.raises(EngineError, match=r"100 slots of 96 tokens need .* 38 slots fit; lower PROMPTQ_SLOTS"):
        tiny_engine(tiny_model("llama"), slots=100, layout=layout)


@pytest.mark.parametrize(
    ("where", "name", "says"),
    [
        (loader, "_model", "cannot be loaded: CUDA out of memory.* workers on one GPU share it by PROMPTQ_GPU_MEMORY"),
        (choice, "PackedModel", "the weights do not fit into cpu's memory: OutOfMemoryError: CUDA out of memory"),
        (PackedRunner, "logits", "no memory is left for a step: OutOfMemoryError: CUDA out of memory"),
        (Canary, "__init__", "the memory is too short for .* with PROMPTQ_SLOTS=2: CUDA out of memory"),
    ],
)
def test_memory_that_runs_out_at_the_start_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, says: str
) -> None:
    monkeypatch.setattr(where, name, raising(NO_ROOM))
    with pytest.raises(EngineError, match=says) as caught:
        create_engine(settings(folder))
    assert "\n" not in caught.value.message


def test_only_one_worker_at_a_time_takes_its_memory_on_a_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def noting(given: WorkerSettings, done: object) -> None:
        with (given.data_dir / "locks" / "gpu-card").open("ab") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(True)

    monkeypatch.setattr(creation, "_gpus", lambda _: ["card"])
    monkeypatch.setattr(creation, "_create", noting)
    create_engine(settings(folder))
    assert held


HOLDS = """
import logging, sys
from pathlib import Path
from gpu_worker.engines.gpu_turns import gpu_turn
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
with gpu_turn(Path(sys.argv[1]), ["b", "a"]):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_worker_that_is_killed_in_its_turn_keeps_nobody_waiting(tmp_path: Path) -> None:
    def started() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDS, str(tmp_path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    with started() as first:
        assert first.stdout
        assert first.stdout.readline() == "in\n"
        with started() as second:
            assert second.stdout
            assert second.stdout.readline() == "another worker takes its memory on GPU a; waiting for it\n"
            first.kill()
            assert second.stdout.readline() == "in\n"
            second.communicate(timeout=10)
            assert second.returncode == 0


def test_a_folder_without_room_for_locks_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with gpu_turn(tmp_path / "file" / "locks", ["a"]):
        pass


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [(None, 2, ["0", "1"]), ("GPU-1234,3", 1, ["1234"]), (" 3 ,GPU-1234", 2, ["3", "1234"]), ("", 1, []), ("0", 0, [])],
)
def test_gpus_are_named_as_cuda_shows_them(visible: str | None, count: int, names: list[str]) -> None:
    assert gpu_names(visible, count) == names


def test_a_name_is_that_of_one_file() -> None:
    assert plain_name("MIG-GPU-1/2/3") == "MIG-GPU-1_2_3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path


def settings(folder: Path, **fields: Any) -> WorkerSettings:
    given = {"device": "cpu", "slots": 2, "context_length": 64, "data_dir": folder, "model": str(folder / "model")}
    return WorkerSettings(_env_file=None, **given | {"kernels": False} | fields)


def raising(error: Exception) -> Any:
    def fails(*_: object, **__: object) -> None:
        raise error

    return fails
