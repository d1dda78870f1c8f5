from __future__ import annotations

import signal
import subprocess
import sys
import time

from promptq.contract.exit_codes import ExitCode
from promptq.runtime.lifecycle import Stop, run

PROGRAM = """
import sys, time
from promptq.runtime.lifecycle import Stop
stop = Stop().install()
print("ready", flush=True)
while not stop.wait(60): pass
print("draining", flush=True)
time.sleep(float(sys.argv[1]))
"""


def program(drain: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(drain)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_signal_drains() -> None:
    with program(0) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == ExitCode.OK


def test_the_second_signal_kills() -> None:
    with program(60) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == ExitCode.KILLED


def test_waiting_ends_with_the_request() -> None:
    stop = Stop()
    assert not stop.wait(0.01)
    stop.request()
    started = time.monotonic()
    assert stop.wait(60)
    assert time.monotonic() - started < 5


class Recorder:
    def __init__(self, stop: Stop) -> None:
        self.calls: list[str] = []
        self.stop = stop

    def initialize(self) -> None:
        self.calls.append("initialize")

    def loop(self, now: float) -> None:
        self.calls.append("loop")
        if self.calls.count("loop") == 3:
            self.stop.request()
        raise RuntimeError("a failed round does not end the program")

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_a_program_is_initialized_looped_and_shut_down() -> None:
    stop = Stop()
    recorder = Recorder(stop)
    run(recorder, stop, 0.0, clock=lambda: 1.0)
    assert recorder.calls == ["initialize", "loop", "loop", "loop", "shutdown"]


def test_whoever_leaves_says_all_and_waits_for_nothing() -> None:
    leaves = """
import atexit, threading, time
from promptq.runtime.lifecycle import leave
atexit.register(time.sleep, 60)
threading.Thread(target=time.sleep, args=(60,)).start()
print("the last word", end="")
leave(7)
"""
    done = subprocess.run([sys.executable, "-c", leaves], check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (7, "the last word")
