"""The documents agree with the code, and can be read on any screen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from promptq.contract.keys import Key, Keys
from promptq.queue.scripts import PARTS
from promptq.queue.server_check import needed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
PAGES = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".venvs", ".promptq"} & set(path.parts))
OURS = (
    "promptq",
    "api",
    "gpu_worker",
    "scaler",
    "dispatcher",
    "tests",
    "docs",
    "ops",
    "benchmarks",
    "experiments",
    "locustfiles",
)


@pytest.mark.parametrize("key", Keys().catalogue().values(), ids=lambda key: key.start)
def test_every_key_is_in_the_schema(key: Key) -> None:
    assert f"`{key.start}{key.suffix}` | {key.type} |" in (ROOT / "docs/redis-schema.md").read_text()


def test_every_script_is_in_the_schema() -> None:
    text = (ROOT / "docs/redis-schema.md").read_text()
    assert [name for name in PARTS if f"| {name} |" not in text] == []


def test_the_page_of_settings_is_that_of_the_classes() -> None:
    from build_settings import PAGE, page

    assert PAGE.read_text() == page(), "run: make settings-docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_line_is_too_long_and_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    assert [number for number, line in enumerate(text.splitlines(), 1) if len(line.encode()) > 120] == []
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],  # which names what was
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(OURS)})/[\w./-]+\.(?:py|lua|c|h|md|json|yml|html))`", page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert {"run": ".ci/run"} in workflow["jobs"]["ci"]["steps"]
    assert workflow["permissions"] == {"contents": "read"}
    calls = (ROOT / ".ci/run").read_text()
    assert "make lint" in calls
    assert "make test" in calls


def test_the_hooks_of_pre_commit_are_the_tools_of_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"].removeprefix(".venv/bin/") for hook in config["repos"][0]["hooks"]]
    lint = subprocess.run(["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(words.split()[0] for words in hooks) == ["lint-imports", "mypy", "ruff", "ruff"]
    assert all(f".venv/bin/{words.split()[0]}" in lint for words in hooks)


def test_every_target_of_make_that_the_pages_name_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for page in PAGES for name in re.findall(r"`make ([\w-]+)", page.read_text())}
    assert named - targets == set()


def test_the_rights_that_a_redis_user_needs_are_listed() -> None:
    rule = (ROOT / "docs/security.md").read_text().partition("ACL SETUSER")[2].partition("```")[0]
    allowed = {word[1:].partition("|")[0] for word in rule.split() if word.startswith("+")}
    listed = allowed - {"@connection"}
    assert listed == {command.lower() for command, _ in needed(Keys())}
