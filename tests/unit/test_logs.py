"""Lines for people, objects for machines, and the fields that tie them to a request, a job, a worker."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from promptq.contract.settings import ApiSettings, WorkerSettings
from promptq.runtime import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    yield
    root.handlers[:], sys.excepthook, threading.excepthook = before[0], before[2], before[3]
    root.setLevel(before[1])
    logging.captureWarnings(False)
    logs.begin()


def line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip()


def read(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(line(capsys))


def as_json(**fields: Any) -> WorkerSettings:
    return WorkerSettings(_env_file=None, log_format="json", **fields)


def test_text_names_the_program_and_what_the_line_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("api", ApiSettings(_env_file=None))
    logs.begin(request_id="r1")
    logs.add(job_id="j1")
    logging.getLogger("api.views.jobs").warning("It happened: %d", 3)
    assert line(capsys).endswith("api.views.jobs: It happened: 3 request_id=r1 job_id=j1")


def test_a_text_line_without_work_has_no_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("api", ApiSettings(_env_file=None))
    logging.getLogger("x").info("plain")
    assert line(capsys).endswith("x: plain")


def test_json_has_one_object_a_line_with_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gpu_worker", as_json(worker_name="w7"))
    logs.begin(request_id="r1", job_id="j1")
    logging.getLogger("gpu_worker.worker_loop").info("über\nzwei")
    said = read(capsys)
    assert said.pop("timestamp").endswith("+00:00")
    assert isinstance(said.pop("pid"), int)
    assert said == {
        "level": "INFO", "logger": "gpu_worker.worker_loop", "message": "über\nzwei", "program": "gpu_worker",
        "worker": "w7", "request_id": "r1", "job_id": "j1",
    }  # fmt: skip


def test_what_the_call_itself_says_of_the_job_wins(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gpu_worker", as_json())
    logs.begin(job_id="j1")
    logging.getLogger("x").info("m", extra={"job_id": "j2"})
    assert read(capsys)["job_id"] == "j2"


def test_a_new_piece_of_work_forgets_the_last_one(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("api", as_json())
    logs.begin(request_id="r1", job_id="j1")
    logs.begin(request_id="r2")
    logging.getLogger("x").info("m")
    said = read(capsys)
    assert said["request_id"] == "r2"
    assert "job_id" not in said


@pytest.mark.parametrize("library", ["gunicorn.error", "rq.worker", "py.warnings"])
def test_libraries_speak_json_too(capsys: pytest.CaptureFixture[str], library: str) -> None:
    logs.configure("api", as_json())
    logging.getLogger(library).warning("from outside")
    assert read(capsys)["logger"] == library


def test_a_warning_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("api", as_json())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    assert "careful" in read(capsys)["message"]


def test_a_crash_is_one_json_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("api", as_json())
    error = ValueError("broken")
    sys.excepthook(ValueError, error, None)
    said = read(capsys)
    assert (said["level"], said["message"]) == ("CRITICAL", "ended by ValueError")
    assert "ValueError: broken" in said["exc_info"]


def test_a_crashed_thread_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("api", as_json())
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in read(capsys)["exc_info"]
