"""Clients of OpenAI's API that are no Python SDK of theirs, each in an environment of its own, unchanged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.apis import Api
from tests.integration.openai_clients import WORDS, api, fast
from tests.processes import ROOT

__all__ = ["api", "fast"]
CLIENTS = Path(__file__).parent / "clients"


def run(api: Api, program: Path | str, script: str) -> dict[str, Any]:
    """What a client says it got."""
    command = [str(program), str(CLIENTS / script), f"http://127.0.0.1:{api.port}/v1", WORDS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def python(name: str) -> Path:
    program = ROOT / ".venvs" / name / "bin" / "python"
    if not program.exists():
        pytest.skip(f"there is no {program}: make test-extras")
    return program


@pytest.mark.usefixtures("fast")
def test_langchain(api: Api) -> None:
    got = run(api, python("langchain"), "langchain_client.py")
    assert got == {"chat": WORDS, "usage": 20, "streamed": WORDS, "batch": [WORDS, "two words"]}


@pytest.mark.usefixtures("fast")
def test_litellm(api: Api) -> None:
    got = run(api, python("litellm"), "litellm_client.py")
    first = " ".join(WORDS.split()[:3])
    assert got == {"chat": WORDS, "usage": 20, "streamed": WORDS, "text": first, "error": "NotFoundError"}


@pytest.mark.usefixtures("fast")
def test_the_sdk_for_node(api: Api, tmp_path: Path) -> None:
    node, modules = shutil.which("node"), ROOT / ".venvs" / "node" / "node_modules"
    if node is None or not modules.exists():
        pytest.skip("there is no node, or no SDK for it: make test-extras")
    # A module is looked for beside its script.
    shutil.copy(CLIENTS / "node.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(modules)
    got = run(api, node, str(tmp_path / "node.mjs"))
    assert got.pop("errors") == [
        ["NotFoundError", 404, "id"], ["NotFoundError", 404, "model"], ["BadRequestError", 400, "n"],
    ]  # fmt: skip
    resumed = got.pop("resumed")
    assert WORDS.endswith(resumed)
    assert len(resumed) == len(WORDS) - 6, "behind event 10, which is character 6"
    assert got == {
        "models": ["echo"], "chat": WORDS, "streamed": WORDS, "usage": 20, "helper": WORDS, "background": "queued",
        "last": "response.completed", "output_text": WORDS, "cancelled": "completed",
        "several": ["one", "one", "two", "two"],
    }  # fmt: skip
