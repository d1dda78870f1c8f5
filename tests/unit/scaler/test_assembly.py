"""From settings and catalogues to pools, and to how their workers are started."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from promptq.contract.settings import ScalerSettings
from scaler.assembly import Assembly
from scaler.catalogue_reload import CatalogueReload
from scaler.fleets.gpus import Gpu, Gpus
from scaler.fleets.local import LocalFleetSettings

MODELS = """
[[model]]
name = "big"
gpus = 2
max_workers = 3

[[model]]
name = "small"
device = "cpu"
min_workers = 1

[[model]]
name = "far"
engine = "upstream"
base_url = "http://gpu:8000/v1"

[[model]]
name = "own"
python = "/venv/bin/python"
"""


class SomeGpus(Gpus):
    """So many of them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def read(self) -> list[Gpu]:
        return [Gpu(index, f"GPU-{index}", 0.0, 0, 1) for index in range(self._count)]


def assembly(gpus: int = 0, **fields: object) -> Assembly:
    return Assembly(ScalerSettings(_env_file=None, **fields), SomeGpus(gpus))


def launched(gpus: int = 0, **fields: object) -> LocalFleetSettings:
    return assembly(gpus, **fields).fleet_settings()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    return path


class TestOneModel:
    @pytest.mark.parametrize(
        ("fields", "gpus", "most"),
        [({}, 0, 1), ({}, 4, 4), ({"max_workers": 2}, 4, 2), ({"min_workers": 3}, 0, 3), ({"min_workers": 0}, 0, 1)],
    )
    def test_most_workers_follow_the_setting_or_the_gpus(self, fields: dict[str, object], gpus: int, most: int) -> None:
        (spec,) = assembly(gpus, **fields).specs()
        assert (spec.limits.max_workers, spec.units) == (most, 1)

    @pytest.mark.parametrize(
        ("fields", "resource"),
        [({}, "gpu"), ({"device": "cuda"}, "gpu"), ({"device": "cuda:1"}, "cpu"), ({"device": "cpu"}, "cpu"),
         ({"engine": "echo"}, "cpu")],
    )  # fmt: skip
    def test_workers_are_placed_where_the_user_left_the_choice(self, fields: dict[str, object], resource: str) -> None:
        made = assembly(2, **fields)
        assert (made.specs()[0].resource, made.places_on_gpus) == (resource, resource == "gpu")

    def test_cores_are_shared_out_on_a_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
        environment = launched(max_workers=3).environment
        assert environment["PROMPTQ_WORKER_THREADS"] == "2"
        assert environment["PROMPTQ_WORKER_METRICS_PORT"] == "0"
        assert "PROMETHEUS_MULTIPROC_DIR" not in environment
        assert launched(max_workers=30).environment["PROMPTQ_WORKER_THREADS"] == "1"
        assert "PROMPTQ_WORKER_THREADS" not in launched(3).environment

    def test_the_users_threads_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMPTQ_WORKER_THREADS", "5")
        assert launched(max_workers=3).environment["PROMPTQ_WORKER_THREADS"] == "5"

    def test_one_worker_keeps_the_users_metrics_port(self) -> None:
        assert "PROMPTQ_WORKER_METRICS_PORT" not in launched(max_workers=1).environment


class TestCatalogue:
    def test_each_model_is_a_pool_with_its_bounds_and_its_room(self, models: Path) -> None:
        made = assembly(5, models_file=str(models))
        specs = {spec.name: (spec.resource, spec.units, spec.limits.min_workers, spec.limits.max_workers)
                 for spec in made.specs()}  # fmt: skip
        assert specs == {
            "big": ("gpu", 2, 0, 3), "small": ("cpu", 1, 1, 1), "far": ("cpu", 0, 0, 1), "own": ("gpu", 1, 0, 5),
        }  # fmt: skip
        assert made.machine.rooms == {"cpu": 1, "gpu": 5}

    def test_its_workers_are_told_which_model_they_serve(self, models: Path) -> None:
        pools = launched(5, models_file=str(models)).pools
        assert {name: launch.environment["PROMPTQ_WORKER_MODEL"] for name, launch in pools.items()} == {
            name: name for name in ("big", "small", "far", "own")
        }
        assert [pools[name].gpus for name in ("big", "small", "far", "own")] == [2, 0, 0, 1]

    def test_an_environment_of_its_own_starts_its_workers_and_gets_no_spare(self, models: Path) -> None:
        pools = launched(models_file=str(models)).pools
        command = pools["own"].command
        assert command is not None
        assert (command[0], command[-2:]) == ("/venv/bin/python", ("-m", "gpu_worker"))
        assert {name: launch.takes_spare for name, launch in pools.items()} == {
            "big": True, "small": True, "far": False, "own": False,
        }  # fmt: skip


class TestReload:
    @pytest.fixture
    def made(self, models: Path) -> Assembly:
        return assembly(models_file=str(models))

    def test_nothing_is_read_until_it_is_asked_for(self, made: Assembly, models: Path) -> None:
        models.write_text("model = 1")
        assert CatalogueReload(made).specs() is None

    def test_a_new_model_comes_and_an_old_one_leaves_but_is_still_looked_after(
        self, made: Assembly, models: Path
    ) -> None:
        launches, reload = made.fleet_settings().pools, CatalogueReload(made)
        models.write_text('[[model]]\nname = "big"\nmax_workers = 9\n[[model]]\nname = "new"\n')
        reload.request()
        specs = reload.specs()
        assert specs is not None
        assert [(spec.name, spec.limits.max_workers) for spec in specs] == [("big", 9), ("new", 1)]
        assert "new" in launches
        assert "small:high" in made.settings.catalogue.rq_names
        assert reload.specs() is None

    @pytest.mark.parametrize(
        ("text", "said"), [("model = 1", "PROMPTQ_MODELS_FILE"), ('[[model]]\nname = "new"\n', "needs a restart")]
    )
    def test_what_cannot_be_served_is_logged_and_all_stays(
        self, made: Assembly, models: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
    ) -> None:
        before = made.settings.catalogue
        models.write_text(text)
        reload = CatalogueReload(made)
        reload.request()
        with caplog.at_level(logging.ERROR):
            assert reload.specs() is None
        assert said in caplog.text
        assert made.settings.catalogue is before
