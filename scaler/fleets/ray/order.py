"""What a node is told to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Needs:
    """What Ray keeps free for one worker.

    Attributes:
        others: further resources, under the names that the cluster's nodes have for them.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0
    others: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, gpus: int, resources: Mapping[str, float]) -> Needs:
        """As a model's entry has it: `CPU`, `GPU` and `memory` are Ray's own names."""
        others = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU", "memory")}
        return cls(resources.get("CPU", 1.0), resources.get("GPU", gpus), resources.get("memory", 0.0), others)

    @property
    def by_name(self) -> dict[str, float]:
        """Everything that is asked for, as Ray names it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **self.others}
        return {name: amount for name, amount in asked.items() if amount}


@dataclass(frozen=True, slots=True)
class Order:
    """One worker, for whichever node takes it.

    Attributes:
        version: of the promptq that gives it: a node with another one refuses.
        environment: settings, and what else the worker reads; the node's own environment lies under it.
        defaults: settings for where nobody gave one, on the node neither.
        models: the text of the file that lists the models; empty: there is none.
        python: the interpreter; empty: that of the node's promptq.
    """

    name: str
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    models: str = ""
    command: Sequence[str] = ()
