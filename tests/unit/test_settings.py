from __future__ import annotations

from pathlib import Path

import pytest
from annotated_types import Le

from promptq.contract.environment import child_environment, is_set, publish_defaults
from promptq.contract.errors import SettingsError
from promptq.contract.settings import (
    ApiSettings,
    CommonSettings,
    ScalerSettings,
    WorkerSettings,
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_variables_and_the_env_file_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PROMPTQ_SLOTS=3\nPROMPTQ_API_PORT=1\n")
    monkeypatch.setenv("PROMPTQ_API_PORT", "9000")
    assert (WorkerSettings.load().slots, ApiSettings.load().api_port) == (3, 9000)
    assert is_set("slots")
    assert not is_set("model")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PROMPTQ_SLOT", "3", "PROMPTQ_SLOT: unknown setting; did you mean PROMPTQ_SLOTS?"),
        ("PROMPTQ_SLOTS", "many", "PROMPTQ_SLOTS: Input should be a valid integer"),
        ("PROMPTQ_SLOTS", "0", "PROMPTQ_SLOTS: Input should be greater than or equal to 1"),
        ("PROMPTQ_GPU_MEMORY_SHARE", "0", "PROMPTQ_GPU_MEMORY_SHARE: Input should be greater than 0"),
        ("PROMPTQ_GPU_MEMORY_SHARE", "1.1", "PROMPTQ_GPU_MEMORY_SHARE: Input should be less than or equal to 1"),
        ("PROMPTQ_CACHE_TTL_SECONDS", "9" * 16, "PROMPTQ_CACHE_TTL_SECONDS: Input should be less than or equal to"),
        ("PROMPTQ_REDIS_URL", "localhost:6379", "PROMPTQ_REDIS_URL: use redis://host:port/db"),
        ("PROMPTQ_REDIS_URL", "redis://:my/pw@host", "PROMPTQ_REDIS_URL: no host and port; in a password write"),
        ("PROMPTQ_REDIS_URL", "redis://host/abc", "PROMPTQ_REDIS_URL: the database"),
        (
            "PROMPTQ_RESULT_TTL_SECONDS",
            "1" + "0" * 17,
            "PROMPTQ_RESULT_TTL_SECONDS: Input should be less than or equal to",
        ),
        ("PROMPTQ_LEASE_SECONDS", "inf", "PROMPTQ_LEASE_SECONDS: Input should be less than or equal to"),
        ("PROMPTQ_MAX_WAIT_MS", "nan", "PROMPTQ_MAX_WAIT_MS: Input should be"),
        ("PROMPTQ_BATCHING", "dynamic", "PROMPTQ_BATCHING: Input should be 'continuous', 'static' or 'off'"),
        ("PROMPTQ_KERNELS", "sse", "PROMPTQ_KERNELS: Input should be 'auto', 'avx512', 'avx2', 'neon' or 'off'"),
    ],
)
def test_a_wrong_setting_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        WorkerSettings.load()
    assert caught.value.message.startswith(says)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("value", "means"),
    [("true", "auto"), ("1", "auto"), (True, "auto"), ("false", "off"), ("off", "off"), ("avx512", "avx512")],
)
def test_kernels_may_be_yes_or_no_as_in_0_2(value: str | bool, means: str) -> None:
    assert WorkerSettings(kernels=value).kernels == means


def test_impossible_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTQ_MIN_WORKERS", "3")
    monkeypatch.setenv("PROMPTQ_MAX_WORKERS", "2")
    with pytest.raises(SettingsError, match="min_workers=3 is above max_workers=2"):
        ScalerSettings.load()


def test_passwords_are_masked() -> None:
    assert "hunter2" not in str(ApiSettings(redis_url="redis://:hunter2@h/0").masked())


def test_defaults_are_published_where_the_operator_has_set_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_HOST_IP", "10.0.0.1")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS")
    publish_defaults(VLLM_HOST_IP="127.0.0.1", VLLM_NO_USAGE_STATS="1")
    assert child_environment().items() >= {"VLLM_HOST_IP": "10.0.0.1", "VLLM_NO_USAGE_STATS": "1"}.items()


def test_a_child_gets_the_environment_with_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/x")
    environment = child_environment(unset=("PROMETHEUS_MULTIPROC_DIR",), PROMPTQ_SLOTS="2")
    assert environment["PROMPTQ_SLOTS"] == "2"
    assert "PROMETHEUS_MULTIPROC_DIR" not in environment


def unbounded(program: type[CommonSettings]) -> list[str]:
    return [
        name
        for name, field in program.model_fields.items()
        if field.annotation in (int, float) and not any(isinstance(rule, Le) for rule in field.metadata)
    ]


@pytest.mark.parametrize("program", [ApiSettings, WorkerSettings, ScalerSettings])
def test_every_number_has_an_upper_bound(program: type[CommonSettings]) -> None:
    assert not unbounded(program)
