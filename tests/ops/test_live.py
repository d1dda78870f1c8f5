"""A real Prometheus scrapes the running service under load, and answers every query of every panel and alert."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptq.contract.environment import child_environment
from tests.ops.test_dashboards import BOARDS, panels
from tests.ops.tools import tool
from tests.processes import ROOT, free_port, wait_for_value, wait_until

PANELS = [
    (panel["title"], target["expr"])
    for board in BOARDS.values()
    for panel in panels(board)
    for target in panel["targets"]
]
NOTES = [note["expr"] for note in BOARDS["workers.json"]["annotations"]["list"]]
RULES = ROOT / "ops" / "prometheus" / "rules"
SCRAPED = 'count(count by (job) (up{job!="locust"} == 1)) == 4'
"""The API, the scaler, the dispatcher and a worker. A rate is seen only of counters that move between two scrapes."""
SHOWN_SECONDS = 20
"""A rate is there two scrapes after its counter, a recording rule's value with the next evaluation."""
QUIET = '"5.."'
"""No test makes the service fail, so this label's series may be missing."""


class Stack:
    """The service with the echo engine, Locust with its page, and Prometheus."""

    def __init__(self, folder: Path) -> None:
        self.begun = time.time()
        self.ports = {name: free_port() for name in ("api", "scaler", "dispatcher", "locust", "prometheus")}
        self.processes = [self._service(folder), self._prometheus(folder), self._locust()]

    def get(self, name: str, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", body, timeout=30) as answer:
            return json.loads(answer.read())

    def query(self, expr: str) -> list[Any]:
        known = expr.replace("$__rate_interval", "30s").replace("$__interval", "30s")
        return list(
            self.get("prometheus", f"/api/v1/query?{urllib.parse.urlencode({'query': known})}")["data"]["result"]
        )

    def ever(self, expr: str) -> list[Any]:
        """As `query`, over all the time until now."""
        known = expr.replace("$__rate_interval", "30s").replace("$__interval", "5s")
        span = {"query": known, "start": self.begun, "end": time.time(), "step": "1s"}
        return list(self.get("prometheus", f"/api/v1/query_range?{urllib.parse.urlencode(span)}")["data"]["result"])

    def shows(self, expr: str, what: str) -> list[Any]:
        """What there was of it, once there is something: Prometheus may not have seen yet what has just happened."""
        return list(wait_until(lambda: self.ever(expr), SHOWN_SECONDS, f"{what}: {expr}"))

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(60)

    def _service(self, folder: Path) -> subprocess.Popen[bytes]:
        values = {
            "DATA_DIR": folder / "data", "API_PORT": self.ports["api"], "SCALER_PORT": self.ports["scaler"],
            "DISPATCHER_PORT": self.ports["dispatcher"],
            "ENGINE": "echo", "MAX_WORKERS": 2, "SLOTS": 4, "TARGET_JOBS_PER_WORKER": 3,
        }  # fmt: skip
        environment = child_environment(**{f"PROMPTQ_{name}": str(value) for name, value in values.items()})
        return subprocess.Popen([sys.executable, "-m", "promptq", "up"], cwd=ROOT, env=environment, process_group=0)

    def _locust(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "locust",
            "-f",
            "locustfiles/",
            "--autostart",
            "-u",
            "24",
            "-r",
            "24",
            "-t",
            "8s",
        ]
        where = ["--web-host", "127.0.0.1", "--web-port", str(self.ports["locust"])]
        wait_until(lambda: self._is_up("api", "/livez"), 60, "the API")
        wait_until(lambda: self.get("api", "/v1/workers")["workers"], 60, "a worker")
        wait_until(lambda: self.query(SCRAPED), 60, "a scrape of each program")
        return subprocess.Popen([*command, *where, "--host", f"http://127.0.0.1:{self.ports['api']}"], cwd=ROOT)

    def _prometheus(self, folder: Path) -> subprocess.Popen[bytes]:
        (folder / "rules").symlink_to(RULES)
        config = folder / "prometheus.yml"
        config.write_text(self._config())
        listen = f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}"
        data = f"--storage.tsdb.path={folder / 'tsdb'}"
        process = subprocess.Popen([tool("prometheus"), f"--config.file={config}", data, listen, "--log.level=warn"])
        wait_until(lambda: self._is_up("prometheus", "/-/ready"), 60, "Prometheus")
        return process

    def _config(self) -> str:
        """The shipped one, with this machine's addresses, five times as fast."""
        text = (ROOT / "ops/prometheus/prometheus.yml").read_text().replace("interval: 5s", "interval: 1s")
        for name, port in (("api", 8000), ("scaler", 9100), ("locust", 8089)):
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{self.ports[name]}")
        static = f'static_configs: [{{targets: ["127.0.0.1:{self.ports["dispatcher"]}"]}}]'
        text, count = re.subn(r"dns_sd_configs: \[\{names: \[dispatcher\].*", static, text)
        assert count == 1
        return text

    def run_batch(self, folder: Path) -> None:
        """By the command, so that there is something of a batch to be seen."""
        body = {"model": "echo", "prompt": "x", "max_tokens": 1}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
        (folder / "in.jsonl").write_text(json.dumps(line))
        command = [sys.executable, "-m", "promptq", "batch", "run", str(folder / "in.jsonl"), "--url"]
        where = [f"http://127.0.0.1:{self.ports['api']}", "-o", str(folder / "out.jsonl")]
        subprocess.run([*command, *where], cwd=ROOT, check=True, timeout=60)
        assert json.loads((folder / "out.jsonl").read_text())["custom_id"] == "a"

    def refuse(self) -> None:
        """A submit that is refused, so that there is a refusal to be seen."""
        with pytest.raises(urllib.error.HTTPError) as refused:
            self.get("api", "/v1/jobs", b'{"prompt": ""}')
        with refused.value as answer:
            assert answer.code == 422

    def _is_up(self, name: str, path: str) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}"):
            return True
        return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("live")
    running = Stack(folder)
    try:
        running.refuse()
        running.run_batch(folder)
        wait_until(lambda: running.query('promptq_scaler_decisions_total{action="down"} > 0'), 60, "load, and its end")
        wait_until(lambda: running.query("promptq_worker_exits_total > 0"), 20, "the end of a worker")
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize(("title", "expr"), PANELS, ids=lambda value: str(value)[:50])
def test_every_panel_shows_something(stack: Stack, title: str, expr: str) -> None:
    if "promptq_gpu" in expr or "promptq_kv_tokens" in expr:  # no GPU is here, and echo keeps no tokens
        stack.ever(expr)
    elif "prefill" in expr:  # echo has none
        stack.shows(expr, title)
    else:
        wait_until(lambda: has_numbers(stack.ever(expr)), SHOWN_SECONDS, f"{title}: {expr}")


def has_numbers(found: list[Any]) -> bool:
    """Whether it shows more than `NaN`, which a quantile of nothing is."""
    return any(not math.isnan(float(value)) for series in found for _, value in series["values"])


def test_scaling_decisions_are_annotations(stack: Stack) -> None:
    [expr] = NOTES
    wait_for_value(
        lambda: {series["metric"]["action"] for series in stack.ever(expr) if series["metric"]["reason"]},
        {"up", "down"}, SHOWN_SECONDS, expr,
    )  # fmt: skip


def test_prometheus_evaluates_every_rule(stack: Stack) -> None:
    groups = stack.get("prometheus", "/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    asked = [
        rule for path in RULES.glob("*.yml") for g in yaml.safe_load(path.read_text())["groups"] for rule in g["rules"]
    ]
    assert len(rules) == len(asked)
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


def selectors() -> Iterator[tuple[str, str]]:
    for rule in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]:
        for selector in re.findall(r"\b(?:up|promptq[\w:]*)(?:\{[^}]*\})?", rule["expr"]):
            yield rule["alert"], selector


@pytest.mark.parametrize(("alert", "selector"), list(selectors()), ids=str)
def test_every_alert_looks_at_series_that_exist(stack: Stack, alert: str, selector: str) -> None:
    if QUIET not in selector:
        stack.shows(selector, alert)


def test_a_worker_is_found_while_it_lives_under_its_name(stack: Stack) -> None:
    workers = {series["metric"]["worker"] for series in stack.ever('up{job="worker"} == 1')}
    assert len(workers) >= 2
    now = {worker["name"] for worker in stack.get("api", "/v1/workers")["workers"]}
    wait_until(lambda: {s["metric"]["worker"] for s in stack.query('up{job="worker"}')} == now, 30, "the targets")


def test_locusts_job_rows_stand_beside_the_services_numbers(stack: Stack) -> None:
    counts = {
        s["metric"]["name"]: float(s["values"][-1][1])
        for s in stack.shows('locust_requests_total{method="JOB"}', "jobs")
    }
    assert counts["e2e"] > 0
    assert counts["queue"] > 0
    failures = stack.shows("sum(locust_failures_total)", "failures")
    assert float(failures[0]["values"][-1][1]) == 0
