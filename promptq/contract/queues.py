"""A queue is a model and a priority. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Priority = Literal["high", "default", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""The most urgent first."""


@dataclass(frozen=True, slots=True)
class QueueName:
    """One queue.

    Attributes:
        model: what clients call the model.
    """

    model: str
    priority: Priority

    def rq_name(self, default_model: str) -> str:
        """What RQ calls the queue: of the default model the priority alone, of another one `model:priority`."""
        return self.priority if self.model == default_model else f"{self.model}:{self.priority}"

    @classmethod
    def parse(cls, rq_name: str, default_model: str) -> QueueName:
        """The queue of that name in RQ; a name that is none of ours counts as the default model's `default`."""
        model, _, last = rq_name.rpartition(":")
        for priority in PRIORITIES:
            if priority == last:
                return cls(model or default_model, priority)
        return cls(default_model, "default")


def queues_of(model: str) -> tuple[QueueName, ...]:
    """The model's queues, the most urgent first."""
    return tuple(QueueName(model, priority) for priority in PRIORITIES)
