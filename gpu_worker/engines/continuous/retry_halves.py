"""What to do when a step over many rows fails: find the row at fault, and keep the others going. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from gpu_worker.engines.continuous.device_errors import is_device_error, is_memory_error
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


def row_failure(error: Exception) -> Failure:
    """The same, where a device may be at fault, and then no row is.

    Raises:
        EngineBroken: it is.
    """
    reason = failure(error)
    if is_device_error(error):
        raise EngineBroken(_lost(reason))
    return reason


def run_in_halves(
    items: list[Item],
    run: Callable[[list[Item]], Result],
    give_up: Callable[[Item, Failure], None],
    shorten: Callable[[Item], Item | None] = lambda _: None,
    note_too_large: Callable[[Sequence[Item]], None] = lambda _: None,
) -> list[tuple[list[Item], Result]]:
    """Run all items together; after an exception in halves, down to the item that fails alone.

    So a batch too large for the memory is done in parts, and one bad row costs the others a few retries.

    Args:
        run: must be repeatable: what a failed run has written, a later one writes again.
        give_up: called with each item that failed alone, and why.
        shorten: a part of an item that alone is too large for the memory, to be run in its place; None: it has none.
        note_too_large: called with items that together were too large for the memory.

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
        reason, is_lost, is_short = failure(error), is_device_error(error), is_memory_error(error)

    def again(part: list[Item]) -> list[tuple[list[Item], Result]]:
        return run_in_halves(part, run, give_up, shorten, note_too_large)

    # Outside the handler: the exception, and with it the tensors of the failed step, is gone by now.
    if is_short:
        note_too_large(items)
    if half := len(items) // 2:
        return again(items[:half]) + again(items[half:])
    if is_lost:
        raise EngineBroken(_lost(reason))
    if is_short and (part := shorten(items[0])) is not None:
        return again([part])
    give_up(items[0], reason)
    return []


def _lost(reason: Failure) -> str:
    return f"the device fails: {reason[1].splitlines()[0]}"
