"""How the workers of one pool are started, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Launch:
    """How the workers of one pool are started.

    Attributes:
        environment: in what theirs differs from that of all workers.
        units: of the room, for each; 0: they take none.
        resource: whose room it is.
        gpus: that each is placed on, where there are any.
        resources: what else each takes of a cluster, under its names; none of a machine.
        takes_spare: whether a spare can become one.
        command: None: as all are.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    units: int = 1
    resource: str = "cpu"
    gpus: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    takes_spare: bool = True
    command: Sequence[str] | None = None
