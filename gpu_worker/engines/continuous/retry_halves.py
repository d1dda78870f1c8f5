"""What to do when a step over many rows fails: find the row at fault, and keep the others going. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from gpu_worker.engines.continuous.device_errors import is_device_error
from gpu_worker.engines.continuous.scheduler.sequence import Failure
from promptq.contract.errors import EngineBroken, PromptqError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def failure(error: Exception) -> Failure:
    """What a row's error event says of an exception."""
    if isinstance(error, PromptqError):
        return error.type, error.message
    return "engine_error", f"{type(error).__name__}: {error}"


def run_in_halves(
    items: list[Item], run: Callable[[list[Item]], Result], give_up: Callable[[Item, Failure], None]
) -> list[tuple[list[Item], Result]]:
    """Run all items together; after an exception in halves, down to the item that fails alone.

    So a batch too large for the memory is done in parts, and one bad row costs the others a few retries.

    Args:
        run: must be repeatable: what a failed run has written, a later one writes again.
        give_up: called with each item that failed alone, and why.

    Returns:
        The groups that succeeded, in order, each with its result.

    Raises:
        EngineBroken: by `run`, or an item failed alone by an error of the device: any other would too.
    """
    if not items:
        return []
    try:
        return [(items, run(items))]
    except EngineBroken:
        raise
    except Exception as error:
        log.warning("a step of %d rows failed: %s", len(items), error, exc_info=len(items) == 1)
        reason, is_lost = failure(error), is_device_error(error)
    # Outside the handler: the exception, and with it the tensors of the failed step, is gone by now.
    if len(items) == 1:
        if is_lost:
            raise EngineBroken(f"the device fails: {reason[1].splitlines()[0]}")
        give_up(items[0], reason)
        return []
    half = len(items) // 2
    return run_in_halves(items[:half], run, give_up) + run_in_halves(items[half:], run, give_up)
