"""Schemathesis against the running service: nothing it makes up gives a 5xx or breaks the schema."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import running
from tests.processes import worker

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
HAR = "calls.har"
HOOKS = "tests.schemathesis_hooks"
CASES_PER_CALL = 8
CHATS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


def fuzz(url: str, cases: int, folder: Path, seed: int = 1) -> tuple[int, str]:
    """All of schemathesis' checks; the number of test cases, and what it says when one fails."""
    program = [str(Path(sys.executable).parent / "st"), "--config-file", str(CONFIG)]
    command = [*program, "run", f"{url}/openapi.json", "--checks", "all"]
    options = ["--max-examples", str(cases), "--seed", str(seed), "--request-timeout", "20", "--no-color"]
    options += ["--report", "har", "--report-har-path", str(folder / HAR)]
    known = os.environ | {"SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(CONFIG.parents[1])}
    # It keeps a cache in the folder that it runs in.
    done = subprocess.run(
        [*command, *options], check=False, capture_output=True, text=True, timeout=1500, cwd=folder, env=known
    )
    count = re.search(r"(\d+) generated", done.stdout)
    return int(count[1]) if count else 0, "" if done.returncode == 0 else done.stdout + done.stderr


def statuses(har: Path) -> dict[str, Counter[int]]:
    """How often each path of a POST was answered how."""
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for entry in json.loads(har.read_text())["log"]["entries"]:
        if entry["request"]["method"] == "POST":
            found[urlsplit(entry["request"]["url"]).path][entry["response"]["status"]] += 1
    return found


@pytest.mark.usefixtures("client")  # or a worker that was killed may still have the name
def test_no_case_breaks_the_schema(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = {"generate_timeout_seconds": 1, "wait_limit_seconds": 1}
    with running(server, tmp_path, **settings) as api, worker(server, echo_tokens_per_second=0):
        cases, said = fuzz(f"http://127.0.0.1:{api.port}", CASES_PER_CALL, tmp_path)
    given = statuses(tmp_path / HAR)
    print(f"{cases} cases", {path: dict(given[path]) for path in CHATS}, said)
    assert said == ""
    assert cases > 100
    assert all(given[path][200] for path in CHATS), "all of OpenAI's paths get beyond their checks"
