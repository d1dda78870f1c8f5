"""Who may import whom. A broken rule is named in the failure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("api", "gpu_worker", "scaler")
PURE = [
    "promptq/contract/keys.py", "promptq/contract/job.py", "promptq/contract/errors.py", "promptq/contract/request.py",
    "scaler/policy.py",
    "gpu_worker/batching.py", "gpu_worker/engines/continuous/scheduler/scheduler.py",
]  # fmt: skip
IMPURE_MODULES = {
    "time",
    "os",
    "socket",
    "subprocess",
    "threading",
    "redis",
    "rq",
    "torch",
    "flask",
    "random",
    "logging",
}
SOURCES = sorted(path for top in ("promptq", *PROGRAMS) for path in (ROOT / top).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def importers(package: str) -> set[str]:
    found = {path for path in SOURCES for name in imported(path) if name == package or name.startswith(package + ".")}
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.mark.parametrize("program", PROGRAMS)
def test_rule_1_programs_import_promptq_and_never_each_other(program: str) -> None:
    assert {path for path in importers(program) if not path.startswith(program + "/")} == set()


@pytest.mark.parametrize("source", PURE)
def test_rule_2_pure_modules_do_no_io_and_read_no_clock(source: str) -> None:
    tops = {name.split(".")[0] for name in imported(ROOT / source)}
    assert tops & IMPURE_MODULES == set()
    assert "now()" not in (ROOT / source).read_text()


def test_rule_3_redis_and_rq_only_in_the_contract_and_in_the_rq_facing_part() -> None:
    outside = {path for path in importers("redis") | importers("rq") if not path.startswith("promptq/queue/")}
    assert outside <= {"gpu_worker/registration.py"}


def test_rule_3_torch_only_in_the_engine() -> None:
    outside = importers("torch") | importers("transformers")
    assert {path for path in outside if not path.startswith("gpu_worker/engines/")} == set()


def test_rule_3_flask_only_in_the_api_and_the_metric_servers() -> None:
    outside = {path for path in importers("flask") | importers("flask_openapi3") if not path.startswith("api/")}
    assert outside <= {"scaler/metrics_server.py", "gpu_worker/server.py"}


def test_rule_4_the_environment_is_read_in_one_place() -> None:
    readers = {path for path in SOURCES if "os.environ" in path.read_text() or "os.getenv" in path.read_text()}
    assert {path.relative_to(ROOT).as_posix() for path in readers} == {"promptq/contract/settings.py"}
