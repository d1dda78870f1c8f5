"""A spare: a worker process that has imported everything and waits to be told which worker it is.

It has no model and no GPU, is registered nowhere and claims nothing. The scaler keeps one ready.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

from gpu_worker.engines.registry import preload
from promptq.contract import environment
from promptq.contract.assignment import Assignment
from promptq.contract.exit_codes import ExitCode
from promptq.contract.settings import WorkerSettings
from promptq.runtime.logs import configure


def await_assignment() -> Assignment:
    """Import, wait for one line on stdin, and take its environment. Without one (the end of stdin, or a signal)
    the process ends here, with code 0 and without a word.

    Raises:
        SettingsError: a setting is wrong, or the line is no assignment.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: _end())
    settings = WorkerSettings.load()
    configure("gpu_worker", settings)  # what an import has to say comes in the log's format
    preload(settings)
    gc.collect()
    gc.freeze()  # or the collector goes through all of torch once more while the model is loaded
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        _end()
    assignment = Assignment.parse(line)
    environment.publish_to_environment(**assignment.environment)
    return assignment


def _end() -> NoReturn:
    # Nothing is held that had to be given back, and a signal may come in the middle of an import.
    os._exit(ExitCode.OK)
