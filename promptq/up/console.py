"""What is said to the person at the terminal."""

from __future__ import annotations

import contextlib
import sys

from promptq.contract.addresses import local_url
from promptq.contract.errors import PromptqError
from promptq.contract.exit_codes import ExitCode
from promptq.contract.redis_url import mask
from promptq.up.checks import UpSettings

QUESTION = '{"messages":[{"role":"user","content":"What is the capital of France?"}]}'


def say(text: str) -> None:
    """One message to somebody who may have closed the terminal."""
    with contextlib.suppress(OSError):
        print(f"promptq: {text}", flush=True)


def fail(error: PromptqError, code: ExitCode) -> ExitCode:
    """Say on stderr why it ends."""
    print(f"promptq: {error.message}", file=sys.stderr, flush=True)
    return code


def banner(settings: UpSettings, redis_url: str) -> str:
    """Where everything is, and a first call to copy."""
    call = "-H 'Prefer: wait=60' -H 'content-type: application/json'"
    scaler = local_url(settings.scaler.scaler_host, settings.scaler.scaler_port)
    return f"""ready.

  API      {settings.api_url}         reference: {settings.api_url}/docs
  metrics  {settings.api_url}/metrics and {scaler}/metrics
  queue    {mask(redis_url)}

  curl -s {settings.api_url}/v1/jobs {call} -d '{QUESTION}'

Ctrl-C stops: running jobs are finished, waiting ones are kept.
"""


def death(name: str, code: int, reason: str, delay_seconds: float | None) -> str:
    """That a program has ended, and what follows."""
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    if delay_seconds is None:
        return f"{name} has ended {how}: {reason}"
    return f"{name} has ended {how}; {reason} in {delay_seconds:g} s"
