"""Schemathesis against the running service: nothing it makes up gives a 5xx or breaks the schema."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import running
from tests.processes import worker

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
CASES_PER_CALL = 15


def fuzz(url: str, cases: int, folder: Path, seed: int = 1) -> tuple[int, str]:
    """All of schemathesis' checks; the number of test cases, and what it says when one fails."""
    program = [str(Path(sys.executable).parent / "st"), "--config-file", str(CONFIG)]
    command = [*program, "run", f"{url}/openapi.json", "--checks", "all"]
    options = ["--max-examples", str(cases), "--seed", str(seed), "--request-timeout", "20", "--no-color"]
    # It keeps a cache in the folder that it runs in.
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=1500, cwd=folder)
    count = re.search(r"(\d+) generated", done.stdout)
    return int(count[1]) if count else 0, "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.usefixtures("client")  # or a worker that was killed may still have the name
def test_no_case_breaks_the_schema(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = {"generate_timeout_seconds": 1, "wait_limit_seconds": 1}
    with running(server, tmp_path, **settings) as api, worker(server, echo_tokens_per_second=0):
        cases, said = fuzz(f"http://127.0.0.1:{api.port}", CASES_PER_CALL, tmp_path)
    print(f"{cases} cases", said)
    assert said == ""
    assert cases > 100
