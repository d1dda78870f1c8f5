"""A Ray cluster in memory, for unit tests of its fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scaler.fleets.base import Exit
from scaler.fleets.ray.order import Needs, Order
from scaler.fleets.ray.pending import Resources
from scaler.fleets.ray.protocol import Died


class FakeCluster:
    """Nodes are for tests to add; a `Cluster`.

    Attributes:
        actors: pools of all actors by their workers' names, whoever started them.
        nodes: what each has in all.
        told: what was asked of each actor.
    """

    def __init__(self, *nodes: Resources) -> None:
        self.nodes = list(nodes)
        self.actors: dict[str, str] = {}
        self.orders: dict[str, tuple[Order, Needs]] = {}
        self.told: list[tuple[str, str]] = []
        self._waiting: list[str] = []
        self._new_places: dict[str, str] = {}
        self._new_ends: list[Exit | Died] = []

    def found(self) -> Mapping[str, str]:
        self._new_places = {name: "10.0.0.1" for name in self.actors if name not in self._waiting}
        return dict(self.actors)

    def start(self, order: Order, pool: str, needs: Needs) -> None:
        self.actors[order.name] = pool
        self.orders[order.name] = order, needs
        self._waiting.append(order.name)

    def place(self, host: str = "10.0.0.1") -> None:
        """Every actor that waits gets this node."""
        self._new_places |= dict.fromkeys(self._waiting, host)
        self._waiting.clear()

    def places(self) -> Mapping[str, str]:
        placed, self._new_places = self._new_places, {}
        return placed

    def end(self, end: Exit | Died) -> None:
        """A worker, or its node, ends."""
        self.actors.pop(end.name, None)
        self._new_ends.append(end)

    def ends(self) -> list[Exit | Died]:
        ends, self._new_ends = self._new_ends, []
        return ends

    def retire(self, name: str) -> None:
        self.told.append((name, "retire"))

    def kill(self, name: str, sentence: str) -> None:
        self.told.append((name, sentence))

    def destroy(self, name: str) -> None:
        self.told.append((name, "destroy"))
        self.end(Died(name, "The actor was killed by ray.kill"))

    def room(self) -> tuple[Sequence[Resources], Resources]:
        taken = len(self.actors) - len(self._waiting)
        total = {name: sum(node.get(name, 0.0) for node in self.nodes) for node in self.nodes for name in node}
        return self.nodes, {name: amount - taken for name, amount in total.items()}
