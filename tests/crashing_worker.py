"""`CRASH_AT=point python -m tests.crashing_worker`: an echo worker that is killed at one exact point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from gpu_worker import progress
from gpu_worker.__main__ import serve
from gpu_worker.engines.echo import EchoEngine
from gpu_worker.engines.registry import create_engine
from promptq.contract.settings import WorkerSettings
from promptq.queue.progress import append
from promptq.queue.store import JobStore
from promptq.runtime.lifecycle import Stop


def die(*_: Any, **__: Any) -> Any:
    """Gone, with nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(call: Callable[..., Any], done: Callable[[Any], object] = bool) -> Callable[..., Any]:
    """Die once the call has done something, as its value tells."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        value = call(*arguments, **options)
        if done(value):
            die()
        return value

    return wrapped


def after_storing(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Die once an ending has been stored."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        stored, claims = exchange(*arguments, **options)
        if any(stored):
            die()
        return stored, claims

    return wrapped


def arm(point: str) -> None:
    """Set the trap."""
    traps: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "claimed": (JobStore, "claim", after(JobStore.claim)),
        "starting": (EchoEngine, "add", after(lambda engine, rows: bool(rows))),
        "decoding": (EchoEngine, "step", after(EchoEngine.step, lambda result: result.events)),
        "keeping": (progress, "append", lambda store, identity, appends: die() if appends else []),
        "kept": (progress, "append", after(append)),
        "generated": (JobStore, "_finish_call", die),
        "finished": (JobStore, "finish_and_claim", after_storing(JobStore.finish_and_claim)),
        "releasing": (JobStore, "release", die),
        "released": (JobStore, "release", after(JobStore.release)),
    }
    owner, name, trap = traps[point]
    setattr(owner, name, trap)


if __name__ == "__main__":
    arm(os.environ["CRASH_AT"])
    settings = WorkerSettings.load()
    serve(settings, create_engine(settings), Stop().install())
    sys.exit(0)
