"""What a node of a Ray cluster is told, and what its worker gets of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import promptq
from promptq.contract.settings import ScalerSettings
from scaler.assembly import Assembly
from scaler.fleets.gpus import Gpus
from scaler.fleets.launch import Launch
from scaler.fleets.ray.actor import WorkerActor, worker_environment
from scaler.fleets.ray.order import Order
from scaler.fleets.ray.shipping import order
from scaler.pools import PoolSpec

MODELS = """
[[model]]
name = "big"
gpus = 2
max_workers = 3
resources = { CPU = 4, "accelerator_type:A100" = 0.5 }

[[model]]
name = "small"
device = "cpu"
max_workers = 2

[[model]]
name = "far"
engine = "upstream"
base_url = "http://gpu:8000/v1"
api_key_variable = "FAR_KEY"
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScalerSettings:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    for name, value in {"REDIS_URL": "redis://:pw@r/0", "SLOTS": "8", "SCALER_PORT": "9101", "FLEET": "ray"}.items():
        monkeypatch.setenv(f"PROMPTQ_{name}", value)
    monkeypatch.setenv("PROMPTQ_MODELS_FILE", str(path))
    monkeypatch.setenv("FAR_KEY", "secret")
    return ScalerSettings.load(_env_file=None)


def test_settings_of_workers_and_keys_are_sent_and_those_of_others_are_not(settings: ScalerSettings) -> None:
    sent = order(settings, "worker-1", Launch({"PROMPTQ_WORKER_MODEL": "far"}, 0))
    expected = {"PROMPTQ_REDIS_URL", "PROMPTQ_SLOTS", "PROMPTQ_WORKER_MODEL", "FAR_KEY"}
    assert {name for name in sent.environment if name.startswith(("PROMPTQ_", "FAR"))} == expected
    assert (sent.version, sent.models) == (promptq.__version__, MODELS)


def test_a_cluster_has_the_room_that_the_entries_and_settings_let_it_have(settings: ScalerSettings) -> None:
    made = Assembly(settings, Gpus(nvml=object()))
    assert made.machine.rooms == {"cpu": 2, "gpu": 6}
    assert [(spec.name, spec.limits.max_workers, spec.units) for spec in made.specs()] == [
        ("big", 3, 2), ("small", 2, 1), ("far", 1, 0),
    ]  # fmt: skip
    assert made.launches["big"].resources == {"CPU": 4, "accelerator_type:A100": 0.5}
    assert isinstance(made.specs()[0], PoolSpec)


def test_a_worker_on_a_cpu_gets_as_many_threads_as_ray_keeps_for_it(settings: ScalerSettings) -> None:
    assert order(settings, "w", Launch(gpus=0, resources={"CPU": 4})).defaults == {"PROMPTQ_WORKER_THREADS": "4"}
    assert order(settings, "w", Launch(resource="gpu")).defaults == {}


def test_the_node_adds_what_only_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROMPTQ_SLOTS", "PROMPTQ_DATA_DIR"):
        monkeypatch.setenv(name, "of the node")
    made = worker_environment(
        Order("worker-1", "1", {"PROMPTQ_SLOTS": "8"}, {"PROMPTQ_WORKER_THREADS": "2"}, MODELS), "10.0.0.7"
    )
    found = {name.removeprefix("PROMPTQ_"): made[name] for name in made if name.startswith("PROMPTQ_")}
    assert Path(found.pop("MODELS_FILE")).read_text() == MODELS
    assert found == {
        "SLOTS": "8", "DATA_DIR": "of the node", "WORKER_THREADS": "2", "WORKER_NAME": "worker-1",
        "WORKER_METRICS_HOST": "10.0.0.7",
    }  # fmt: skip


def test_a_node_with_another_version_refuses() -> None:
    with pytest.raises(RuntimeError, match=r"^10\.0\.0\.7 has promptq .*, and the scaler 0\.0$"):
        WorkerActor(Order("worker-1", "0.0"), "10.0.0.7")
