"""From the catalogue and the settings to pools, and to how their workers are started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from promptq.contract import environment
from promptq.contract.catalogue import Catalogue, ModelEntry
from promptq.contract.settings import ScalerSettings
from promptq.runtime import programs
from promptq.runtime.cgroups import processors
from scaler.fleets.gpus import Gpus
from scaler.fleets.launch import Launch
from scaler.fleets.local import SPARE_COMMAND, WORKER_COMMAND, LocalFleetSettings
from scaler.load import Limits
from scaler.pools import PoolSpec

UNSEEN_SLOTS = {"cpu": 16, "gpu": 256}
"""What a worker is taken to have before one has registered: too few start workers that are not needed, too many only
start them a moment later."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is room for: units of each resource."""

    cpu: int
    gpu: int

    @classmethod
    def of(cls, settings: ScalerSettings, gpus: int) -> Machine:
        """By the settings, or one worker for each GPU, and one without."""
        given = settings.max_workers
        return cls(given or max(1, settings.min_workers), given or max(gpus, settings.min_workers if gpus else 0))

    @property
    def rooms(self) -> dict[str, int]:
        """Units by resource."""
        return {"cpu": self.cpu, "gpu": self.gpu}


class Assembly:
    """Makes pools of a catalogue's entries, when the scaler starts and whenever the catalogue changes."""

    def __init__(self, settings: ScalerSettings, gpus: Gpus) -> None:
        self.settings = settings
        self._catalogue = settings.catalogue
        self._is_local = settings.fleet == "local"
        may_use_gpus = self._is_local and any(map(self._may_use_gpus, self._catalogue.models))
        self._gpu_count = len(gpus.read()) if may_use_gpus else 0
        self.machine = Machine.of(settings, self._gpu_count) if self._is_local else self._cluster()
        self._launches: dict[str, Launch] = {}
        self.serve(self._catalogue)

    @property
    def places_on_gpus(self) -> bool:
        """Whether there are GPUs, and a model that may use them."""
        return self._gpu_count > 0

    @property
    def launches(self) -> Mapping[str, Launch]:
        """By pool, how its workers are started: a view, which follows the catalogue."""
        return MappingProxyType(self._launches)

    def specs(self) -> list[PoolSpec]:
        """A pool for each model, in the catalogue's order."""
        return [self._spec(entry) for entry in self._catalogue.models]

    def serve(self, catalogue: Catalogue) -> list[PoolSpec]:
        """Let these be the models from now on; workers that are started then are as their entries say."""
        self._catalogue = catalogue
        self._launches.update({entry.name: self._launch(entry) for entry in catalogue.models})
        return self.specs()

    def fleet_settings(self) -> LocalFleetSettings:
        """What every worker of this machine is started with."""
        settings, machine = self.settings, self.machine
        workers = sum(spec.limits.max_workers for spec in self.specs())
        changes = {"PROMPTQ_WORKER_METRICS_PORT": "0"} if workers > 1 else {}
        if not self.places_on_gpus and not environment.is_set("worker_threads"):
            changes["PROMPTQ_WORKER_THREADS"] = str(max(1, processors() // machine.cpu))
        # NVML counts GPUs along the PCI bus, and CUDA does by itself from the fastest on.
        changes["CUDA_DEVICE_ORDER"] = environment.child_environment().get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        # A child that inherited the API's multiprocess folder would show up in the API's metrics.
        inherited = programs.environment(("PROMETHEUS_MULTIPROC_DIR",), **changes)
        return LocalFleetSettings(
            machine.cpu, inherited, settings.drain_seconds, settings.start_timeout_seconds,
            spare_command=self._spare_command(), rooms=machine.rooms, pools=self._launches,
            spare_environment=self._spare_environment(),
        )  # fmt: skip

    def _spec(self, entry: ModelEntry) -> PoolSpec:
        resource, units = self._needs(entry)
        least = entry.min_workers if self.settings.models_file else self.settings.min_workers
        most = entry.max_workers or (max(1, least) if not units else max(1, self.machine.rooms[resource] // units))
        follows = self.settings.target_jobs_per_worker == "auto"
        slots = entry.slots if isinstance(entry.slots, int) else UNSEEN_SLOTS[resource]
        return PoolSpec(entry.name, Limits.of(self.settings, least, most, slots), resource, units, follows)

    def _launch(self, entry: ModelEntry) -> Launch:
        resource, units = self._needs(entry)
        own = {"PROMPTQ_WORKER_MODEL": entry.name} if self.settings.models_file else {}
        command = (entry.python, *WORKER_COMMAND[1:]) if entry.python else None
        gpus = units if resource == "gpu" else 0
        return Launch(own, units, resource, gpus, entry.resources, _takes_spare(entry), command)

    def _cluster(self) -> Machine:
        """How much a cluster has room for nobody here knows, and it may grow: as much as the settings let it."""
        given = self.settings.max_workers
        most = {"cpu": 0, "gpu": 0}
        for entry in self._catalogue.models:
            resource, units = self._needs(entry)
            least = entry.min_workers if self.settings.models_file else self.settings.min_workers
            most[resource] += units * (entry.max_workers or max(1, least))
        return Machine(given or most["cpu"], given or most["gpu"])

    def _needs(self, entry: ModelEntry) -> tuple[str, int]:
        """Whose room a worker of the model takes, and how much of it."""
        if entry.is_elsewhere:
            return "cpu", 0
        if not self._is_local:
            gpus = self._gpus_of(entry)
            return ("gpu", gpus) if gpus else ("cpu", 1)
        on_gpu = self._gpu_count and self._may_use_gpus(entry)
        return ("gpu", entry.gpus or 1) if on_gpu else ("cpu", 1)

    def _gpus_of(self, entry: ModelEntry) -> int:
        """Of each of its workers on a cluster, where nobody looks what a machine has: none, unless it is said."""
        if entry.engine == "echo":
            return 0
        device = entry.device or self.settings.device
        return int(device.startswith("cuda")) if entry.gpus is None else entry.gpus

    def _may_use_gpus(self, entry: ModelEntry) -> bool:
        """Not where a CPU is named, or one GPU by number, or where nothing is computed."""
        device = entry.device or self.settings.device
        return entry.engine not in ("echo", "upstream") and entry.gpus != 0 and device in ("auto", "cuda")

    def _spare_command(self) -> Sequence[str]:
        return SPARE_COMMAND if self.settings.spare_worker and self._for_spare() else ()

    def _spare_environment(self) -> dict[str, str]:
        entry = self._for_spare()
        return {"PROMPTQ_WORKER_MODEL": entry.name} if entry and self.settings.models_file else {}

    def _for_spare(self) -> ModelEntry | None:
        """A model whose engine's imports take long, and are ours."""
        return next(filter(_takes_spare, self._catalogue.models), None)


def _takes_spare(entry: ModelEntry) -> bool:
    return entry.engine == "continuous" and not entry.python
