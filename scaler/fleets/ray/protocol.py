"""What the fleet asks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from scaler.fleets.base import Exit
from scaler.fleets.ray.order import Needs, Order
from scaler.fleets.ray.pending import Resources


@dataclass(frozen=True, slots=True)
class Died:
    """An actor's end that was not its worker's own: with its node, its process, or before it had either.

    Attributes:
        words: Ray's, in one line.
    """

    name: str
    words: str


class Cluster(Protocol):
    """What the fleet asks of Ray. Names are workers'; nothing waits for an actor."""

    def found(self) -> Mapping[str, str]:
        """The workers that there are, whoever started them, with their pools: from now on they are looked after."""
        ...

    def start(self, order: Order, pool: str, needs: Needs) -> None:
        """Ask for an actor; Ray places it when there is room."""
        ...

    def places(self) -> Mapping[str, str]:
        """The addresses of the nodes of workers that were placed since the last call."""
        ...

    def ends(self) -> list[Exit | Died]:
        """What ended since the last call."""
        ...

    def retire(self, name: str) -> None:
        """Tell a worker to finish and go."""
        ...

    def kill(self, name: str, sentence: str) -> None:
        """End a worker at once, for this reason."""
        ...

    def destroy(self, name: str) -> None:
        """End an actor at once, or its wait for a node."""
        ...

    def room(self) -> tuple[Sequence[Resources], Resources]:
        """What each live node has in all, and what is free of all together."""
        ...
