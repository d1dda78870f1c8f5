"""Which rows go through the model together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.scheduler.scheduler import AGEING_STEPS
from promptq.contract.queues import PRIORITIES

PADDING_SHARE = 0.25
"""Of a batch so much may be padding: rows of similar length go together."""


@dataclass(slots=True, eq=False)
class WaitingRow:
    """A row until its step.

    Attributes:
        ids: tokens of its prompt.
        ending: why it ends without a step, and the error if that is the reason.
        batch_size: rows of the step that it was computed in.
        passed_over: steps that others took before it.
    """

    row: Row
    ids: list[int] = field(default_factory=list)
    ending: tuple[FinishReason, tuple[str, str] | None] | None = None
    batch_size: int = 0
    passed_over: int = 0

    @property
    def order(self) -> tuple[int, float]:
        """Smaller goes first: the more urgent, then the older. Waiting makes urgent, so nobody waits for ever."""
        return PRIORITIES.index(self.row.priority) - self.passed_over // AGEING_STEPS, self.row.queued_at


def next_batch(rows: Sequence[WaitingRow], tokens: int, *, pads: bool = True) -> list[WaitingRow]:
    """The row whose turn it is, and with it those that are nearest in length; without padding, those in their order.

    Args:
        tokens: the most that a step computes, padding included; a longer row goes alone.
        pads: whether rows are filled up to the longest one's length.
    """
    if not rows:
        return []
    return _padded(rows, tokens) if pads else _in_order(rows, tokens)


def _in_order(rows: Sequence[WaitingRow], tokens: int) -> list[WaitingRow]:
    ordered = sorted(rows, key=lambda row: row.order)
    sums = accumulate(len(row.ids) for row in ordered)
    return [row for at, (row, total) in enumerate(zip(ordered, sums, strict=True)) if at == 0 or total <= tokens]


def _padded(rows: Sequence[WaitingRow], tokens: int) -> list[WaitingRow]:
    first = min(rows, key=lambda row: row.order)
    near = sorted(
        (row for row in rows if row is not first), key=lambda row: (abs(len(row.ids) - len(first.ids)), row.order)
    )
    batch, longest, real = [first], len(first.ids), len(first.ids)
    for row in near:
        padded = (len(batch) + 1) * max(longest, len(row.ids))
        if padded > tokens or real + len(row.ids) < (1 - PADDING_SHARE) * padded:
            break
        batch.append(row)
        longest, real = max(longest, len(row.ids)), real + len(row.ids)
    return batch
