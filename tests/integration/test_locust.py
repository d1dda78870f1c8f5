"""Locust's users against the real API and a worker with the echo engine."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from promptq.queue.embedded import EmbeddedServer
from tests.processes import ROOT, free_port, start, wait_until, worker

USERS = {"SubmitAndPoll", "LongPoll", "MixedPriorities", "CacheHeavy", "OpenLoop"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An API with one worker, on a server of their own."""
    folder = tmp_path_factory.mktemp("locust")
    server = EmbeddedServer(folder / "valkey").start()
    port = free_port()
    api = start("api", server, api_port=port, api_processes=1, data_dir=folder)
    try:
        with worker(server, echo_tokens_per_second=200):
            wait_until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), 60, "the API")
            yield f"http://127.0.0.1:{port}"
    finally:
        api.terminate()
        api.wait(30)
        server.stop()


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url):
        return True
    return False


def locust(*arguments: str, files: str = "locustfiles/") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", files, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open() as file:
        return {(row["Type"], row["Name"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def report(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("report") / "run"
    output = ["--csv", str(prefix), "--html", f"{prefix}.html", "--only-summary"]
    users = ["--headless", "--host", url, "-u", "10", "-r", "10", "--offered-rate", "20"]
    for seconds in (4, 8, 16, 32):  # on a busy machine it takes longer until a prompt is asked again
        done = locust(*users, "-t", f"{seconds}s", *output)
        assert done.returncode == 0, done.stdout + done.stderr
        if ("JOB", "e2e hit") in rows(Path(f"{prefix}_stats.csv")):
            break
    return prefix


def test_every_job_ends_and_none_fails(report: Path) -> None:
    stats = rows(Path(f"{report}_stats.csv"))
    for name in ("e2e", "queue", "e2e high", "e2e default", "e2e low", "e2e hit"):
        assert int(stats["JOB", name]["Request Count"]) > 0, name
    assert int(stats["", "Aggregated"]["Failure Count"]) == 0
    assert {name for kind, name in stats if kind in ("GET", "POST")} == {"submit", "poll", "wait"}


def test_a_headless_run_leaves_report_numbers_and_plots(report: Path) -> None:
    assert "<html" in Path(f"{report}.html").read_text()
    assert Path(f"{report}_jobs.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path(f"{report}_jobs.svg").read_text()
    summary: dict[str, Any] = json.loads(Path(f"{report}_jobs.json").read_text())["summary"]
    assert summary["ends"].keys() == {"succeeded"}
    assert 0 < summary["goodput_per_second"] <= summary["achieved_per_second"] <= summary["offered_per_second"]
    assert summary["e2e_seconds"]["p50"] <= summary["e2e_seconds"]["p95"] <= summary["e2e_seconds"]["p99"]


def test_the_open_loop_offers_what_was_asked_and_counts_from_the_schedule(url: str, tmp_path: Path) -> None:
    """With 40 jobs a second of 0.1 s each, a closed loop of one user would offer ten."""
    output = ["--csv", str(tmp_path / "run"), "--only-summary"]
    done = locust("--headless", "--host", url, "-t", "4s", "--offered-rate", "40", "OpenLoop", *output)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run_jobs.json").read_text())["summary"]
    assert 25 < summary["offered_per_second"] < 55
    assert summary["ends"].keys() == {"succeeded"}


def test_the_folder_brings_every_user_and_no_shape() -> None:
    """A LoadTestShape that Locust finds in the folder takes over headless runs."""
    listed = locust("--list").stdout
    assert {user for user in USERS if user in listed} == USERS
    assert "Bursts" not in listed
    assert "Daily" not in listed


@pytest.mark.parametrize("shape", ["bursts", "daily"])
def test_a_shape_given_by_name_runs(url: str, shape: str) -> None:
    files = f"locustfiles/long_poll.py,locustfiles/shapes/_{shape}.py"
    done = locust("--headless", "--host", url, "-t", "3s", "--only-summary", files=files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Shape test" in done.stderr + done.stdout
