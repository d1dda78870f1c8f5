"""From an exit status to a reason."""

from __future__ import annotations

import signal

from promptq.contract.exit_codes import ExitCode

_BY_CODE = {
    ExitCode.OK: "exited",
    ExitCode.SETTINGS: "settings",
    ExitCode.REDIS_UNAVAILABLE: "redis_unavailable",
    ExitCode.ENGINE: "engine",
    ExitCode.ENGINE_BROKEN: "engine_broken",
    ExitCode.WORKER_REPLACED: "replaced",
}


def reason_of(code: int, was_told: bool) -> str:
    """One of `scaler.fleets.base.REASONS`, for a worker that nobody killed.

    Args:
        code: the exit status; negative for a signal.
        was_told: to finish and go.
    """
    if was_told and code in (ExitCode.OK, -signal.SIGTERM):  # by the signal: not yet handled
        return "retired"
    if code < 0:
        return "killed"
    return _BY_CODE.get(ExitCode(code), "crashed") if code in set(ExitCode) else "crashed"
