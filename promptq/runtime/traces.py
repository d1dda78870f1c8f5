"""Traces of jobs, from the client's request to the stored text. Off unless the settings say otherwise.

A job carries the `traceparent` (W3C Trace Context) of the span that submitted it; what a worker does for it, on
whichever host, comes below that span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]
NO_ATTRIBUTES: Attributes = {}


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a run, in seconds since the epoch by this host's clock."""

    name: str
    begun: float
    ended: float


@dataclass(frozen=True, slots=True)
class Trail:
    """What is known of one run of a job when it is over.

    Attributes:
        traceparent: that the job carries; empty: the run begins a trace of its own.
        phases: in order of time, at least one.
        error: why it failed, or an empty string.
    """

    traceparent: str
    phases: Sequence[Phase]
    attributes: Attributes = field(default_factory=dict)
    error: str = ""


class SubmitSpan:
    """A submit while it goes on. `traceparent`: what its jobs carry."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""


class Traces:
    """Where spans go; as it stands, nowhere: jobs carry what their clients sent."""

    is_on = False

    def submit(
        self,
        traceparent: str,
        attributes: Attributes = NO_ATTRIBUTES,  # noqa: ARG002
        link: str = "",  # noqa: ARG002
    ) -> AbstractContextManager[SubmitSpan]:
        """Around a submit.

        Args:
            traceparent: that came with the request, or an empty string.
            link: traceparent of what the submit is part of, such as the request that made a batch.
        """
        return nullcontext(SubmitSpan(traceparent))

    def record(self, trail: Trail) -> None:
        """Send a run's spans. Never waits for the network."""

    def close(self) -> None:
        """Send what is left, waiting a few seconds at most."""
