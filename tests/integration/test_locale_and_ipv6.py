"""Where the locale is not UTF-8, and where the addresses are IPv6."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import requests

from promptq.contract.environment import child_environment
from promptq.contract.exit_codes import ExitCode
from promptq.queue.embedded import EmbeddedServer
from tests.integration.apis import running
from tests.integration.test_up import Up
from tests.processes import ROOT, start, wait_until

LATIN_1 = "en_US.ISO-8859-1"


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no ::1")


@pytest.fixture
def latin_1(tmp_path: Path) -> dict[str, str]:
    if shutil.which("localedef") is None:
        pytest.skip("no localedef")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / LATIN_1)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no sources of locales")
    return {"LC_ALL": LATIN_1, "LOCPATH": str(tmp_path)}


@pytest.fixture(params=["C", LATIN_1])
def locale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The locale of processes that are started: nothing turns it into UTF-8."""
    values = {"LC_ALL": "C"} if request.param == "C" else request.getfixturevalue("latin_1")
    for name, value in {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", **values}.items():
        monkeypatch.setenv(name, value)
    return str(request.param)


def test_the_page_and_jobs_are_utf_8_whatever_the_locale(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path, locale: str
) -> None:
    page = (ROOT / "api/views/status.html").read_text(encoding="utf-8")
    assert not page.isascii()
    with running(server, tmp_path, 1) as api:
        worker = start("gpu_worker", server, echo_tokens_per_second=0)
        try:
            assert api.call("GET", "/").content.decode() == page
            done = api.submit("größer als Ω", Prefer="wait=60").json()
            assert done["output"]["text"] == "größer als Ω"
        finally:
            worker.kill()
            worker.wait()


def test_settings_are_utf_8_or_refused_in_one_line(
    server: EmbeddedServer, client: redis.Redis, tmp_path: Path, locale: str
) -> None:
    if locale == LATIN_1:
        with running(server, tmp_path, 1, engine="continuous", model="/models/größe") as api:
            assert api.submit().json()["model"] == "/models/größe"
            assert api.call("GET", "/metrics").ok
        return
    for module in ("api", "gpu_worker", "scaler"):
        command = [sys.executable, "-m", module]
        environment = child_environment(PROMPTQ_MODEL="/models/größe", PROMPTQ_DATA_DIR=str(tmp_path))
        ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=60, check=False)
        assert ended.returncode == ExitCode.SETTINGS
        assert ended.stderr.endswith(b"PROMPTQ_MODEL: is no text in this locale; set PYTHONUTF8=1\n")
        assert ended.stderr.count(b"\n") == 1


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    runs: list[Up] = []

    def start_up(**settings: str) -> Up:
        runs.append(Up(tmp_path, **settings))
        return runs[-1].ready()

    yield start_up
    for run in runs:
        run.end()


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::]"])
def test_everything_is_served_and_named_over_ipv6(up: Callable[..., Up], host: str) -> None:
    hosts = dict.fromkeys(("api_host", "scaler_host", "worker_metrics_host"), host)
    run = up(**hosts, advertised_host="::1", allow_open_bind=str(host != "::1").lower())
    api, scaler = (f"http://[::1]:{run.ports[name]}" for name in ("api_port", "scaler_port"))
    assert f"API      {api} " in run.output
    assert f"metrics  {api}/metrics and {scaler}/metrics" in run.output
    wait_until(lambda: requests.get(f"{scaler}/targets", timeout=10).json(), 30, "the worker")
    [target] = json.loads(requests.get(f"{scaler}/targets", timeout=10).text)
    for url in (f"http://{target['targets'][0]}/metrics", f"{scaler}/metrics", f"{api}/metrics"):
        assert requests.get(url, timeout=10).ok
    page = {"Origin": api, "Prefer": "wait=60"}
    answer = requests.post(f"{api}/v1/jobs", json={"prompt": "hello"}, headers=page, timeout=90)
    assert answer.json()["output"]["text"] == "hello"
