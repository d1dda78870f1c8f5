"""The Ray cluster: the only module of the scaler that speaks with Ray."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, ActorUnschedulableError, RayError

from promptq.contract.errors import SettingsError
from scaler.fleets.base import Exit
from scaler.fleets.ray.actor import WorkerActor
from scaler.fleets.ray.order import Needs, Order
from scaler.fleets.ray.pending import Resources
from scaler.fleets.ray.protocol import Died

log = logging.getLogger(__name__)


class PromptqWorker(WorkerActor):
    """What Ray runs; its class has this name in Ray's own tools."""

    def __init__(self, order: Order) -> None:
        super().__init__(order, ray.util.get_node_ip_address())


class RayCluster:
    """A cluster that this machine is a node of; a `Cluster`. Call from one thread.

    Actors are detached and have names, so that they outlive the scaler, and the next one finds them.

    Raises:
        SettingsError: it cannot be reached.
    """

    def __init__(self, address: str, namespace: str) -> None:
        self._namespace = namespace
        self._actors: dict[str, Any] = {}
        self._places: dict[str, Any] = {}
        self._ends: dict[str, Any] = {}
        self._class = ray.remote(max_restarts=0, max_task_retries=0)(PromptqWorker)
        try:
            # Workers' logs stay on their nodes, where Ray keeps all logs.
            ray.init(address=address, namespace=namespace, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise SettingsError(f"PROMPTQ_RAY_ADDRESS: no Ray cluster at {address!r}: {error}") from None

    def found(self) -> Mapping[str, str]:
        """See `Cluster`."""
        self._actors, self._places, self._ends = {}, {}, {}
        pools = {}
        for full in ray.util.list_named_actors():
            pool, _, name = full.rpartition("/")
            try:
                self._attend(name, ray.get_actor(full, namespace=self._namespace))
                pools[name] = pool
            except ValueError:  # it has ended since
                continue
        return pools

    def start(self, order: Order, pool: str, needs: Needs) -> None:
        """See `Cluster`."""
        actor = self._class.options(
            name=f"{pool}/{order.name}", namespace=self._namespace, lifetime="detached", num_cpus=needs.cpus,
            num_gpus=needs.gpus, memory=needs.memory or None, resources=dict(needs.others),
        )  # fmt: skip
        self._attend(order.name, actor.remote(order))

    def places(self) -> Mapping[str, str]:
        """See `Cluster`."""
        placed = {}
        for name in _done(self._places):
            try:
                placed[name] = ray.get(self._places.pop(name))
            except RayError as error:  # its end says more
                log.debug("%s has no place: %s", name, error)
        return placed

    def ends(self) -> list[Exit | Died]:
        """See `Cluster`."""
        ended = (self._end(name) for name in _done(self._ends))
        return [end for end in ended if end]

    def retire(self, name: str) -> None:
        """See `Cluster`."""
        self._actors[name].retire.remote()

    def kill(self, name: str, sentence: str) -> None:
        """See `Cluster`."""
        self._actors[name].kill.remote(sentence)

    def destroy(self, name: str) -> None:
        """See `Cluster`."""
        ray.kill(self._actors[name])

    def room(self) -> tuple[Sequence[Resources], Resources]:
        """See `Cluster`."""
        return [node["Resources"] for node in ray.nodes() if node["Alive"]], ray.available_resources()

    def _attend(self, name: str, actor: Any) -> None:
        self._actors[name] = actor
        self._places[name] = actor.place.remote()
        self._ends[name] = actor.ended.remote()

    def _end(self, name: str) -> Exit | Died | None:
        try:
            end: Exit | Died = ray.get(self._ends[name])
            ray.kill(self._actors[name])  # its worker has ended; it waits for nothing
        except ActorUnavailableError:
            # The connection broke. Whether the actor has died Ray finds out, and says to the next one who asks.
            self._ends[name] = self._actors[name].ended.remote()
            return None
        except (ActorDiedError, ActorUnschedulableError, RayError) as error:
            end = Died(name, _words(error))
        for known in (self._ends, self._places, self._actors):
            known.pop(name, None)
        return end


def _done(refs: Mapping[str, Any]) -> list[str]:
    """The names whose calls have been answered."""
    if not refs:
        return []
    done, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=0, fetch_local=False)
    return [name for name, ref in refs.items() if ref in set(done)]


def _words(error: RayError) -> str:
    """The last of what Ray says that is not about itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[-2:])
