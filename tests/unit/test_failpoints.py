"""Failpoints: what the setting may say, what a hit does, and that each is somewhere in the programs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptq.contract.errors import RedisUnavailable, SettingsError
from promptq.contract.failpoints import POINTS, Trap, parse
from promptq.contract.settings import WorkerSettings
from promptq.runtime import failpoints

ROOT = Path(__file__).parents[2]
PROGRAMS = ("promptq", "api", "gpu_worker", "scaler", "dispatcher")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_what_the_setting_says() -> None:
    found = parse(" worker.stored=kill@3; api.submitted=sleep(0.5);dispatcher.sent=unavailable ;")
    assert found == {
        "worker.stored": Trap("kill", 3), "api.submitted": Trap("sleep", 1, 0.5),
        "dispatcher.sent": Trap("unavailable"),
    }  # fmt: skip
    assert parse("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker.stord=kill", "no failpoint 'worker.stord'; did you mean worker.stored"),
        ("worker.stored", "'' is no action"), ("worker.stored=burn", "'burn' is no action"),
        ("worker.stored=kill@0", "is no action"), ("worker.stored=kill(3)", "is no action"),
        ("worker.stored=sleep(-1)", "is no action"), ("worker.stored=kill;worker.stored=exit", "comes twice"),
        (f"worker.stored=sleep({'9' * 400})", "is no action"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTQ_FAILPOINTS", text)
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        WorkerSettings.load()
    assert caught.value.message.startswith("PROMPTQ_FAILPOINTS: ")


def test_without_the_setting_a_hit_is_an_empty_function() -> None:
    failpoints.arm("worker.stored=raise")
    armed = failpoints.hit
    failpoints.arm("")
    assert failpoints.hit is not armed
    assert failpoints.hit is vars(failpoints)["_nothing"]
    failpoints.hit("worker.stored")


def test_it_fails_once_at_its_hit_and_nowhere_else() -> None:
    failpoints.arm("worker.stored=raise@2;worker.claimed=unavailable")
    failpoints.hit("worker.stored")
    failpoints.hit("worker.finished")
    with pytest.raises(failpoints.FailpointHit, match=r"worker\.stored"):
        failpoints.hit("worker.stored")
    failpoints.hit("worker.stored")
    with pytest.raises(RedisUnavailable):
        failpoints.hit("worker.claimed")


def test_threads_are_counted_together() -> None:
    failpoints.arm("worker.stored=raise@400")
    raised: list[str] = []

    def hit() -> None:
        for _ in range(100):
            try:
                failpoints.hit("worker.stored")
            except failpoints.FailpointHit as error:
                raised.append(str(error))

    threads = [threading.Thread(target=hit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == ["worker.stored"]


@pytest.mark.parametrize(("action", "code"), [("kill", -signal.SIGKILL), ("exit", 1)])
def test_a_process_ends_there_at_once(action: str, code: int) -> None:
    program = (
        f"from promptq.runtime import failpoints\nfailpoints.arm('worker.stored={action}')\n"
        "try:\n failpoints.hit('worker.stored')\nfinally:\n print('cleaned up')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")


def test_each_is_in_one_place_of_the_programs_and_on_the_page() -> None:
    hit = re.compile(r"failpoints\.hit\(\"([a-z_.]+)\"\)")
    texts = (path.read_text() for program in PROGRAMS for path in (ROOT / program).rglob("*.py"))
    found = Counter(name for text in texts for name in hit.findall(text))
    page = (ROOT / "docs/failpoints.md").read_text()
    named = set(re.findall(r"`((?:worker|dispatcher|storage|scaler|api)\.[a-z_]+)`", page))
    assert found == Counter(POINTS)
    assert named == set(POINTS)
