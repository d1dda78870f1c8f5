"""From the settings to a fleet on Ray: what its nodes are told."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

import promptq
from promptq.contract import environment
from promptq.contract.addresses import is_loopback
from promptq.contract.environment import PREFIX
from promptq.contract.settings import ScalerSettings, WorkerSettings
from scaler.assembly import Assembly
from scaler.fleets.launch import Launch
from scaler.fleets.ray.cluster import RayCluster
from scaler.fleets.ray.fleet import RayFleet, RayFleetSettings
from scaler.fleets.ray.order import Needs, Order

log = logging.getLogger(__name__)

NOT_SENT = ("models_file", "worker_name", "worker_model")
"""Settings of workers that each has of its own, or whose file is sent in their place."""


def create(assembly: Assembly) -> RayFleet:
    """The fleet of the cluster that the settings name.

    Raises:
        SettingsError: it cannot be reached.
    """
    settings = assembly.settings
    if is_loopback(urlsplit(settings.redis_url).hostname or "localhost"):
        log.warning("PROMPTQ_REDIS_URL is of this machine alone: workers on other nodes will not find it.")
    cluster = RayCluster(settings.ray_address, settings.ray_namespace)
    own = RayFleetSettings(
        assembly.machine.rooms, assembly.launches, settings.drain_seconds, settings.start_timeout_seconds
    )
    return RayFleet(cluster, own, lambda name, launch: order(settings, name, launch))


def order(settings: ScalerSettings, name: str, launch: Launch) -> Order:
    """What starts one worker: the settings that are given here, and what the models' file says now."""
    models = Path(settings.models_file).read_text(encoding="utf-8") if settings.models_file else ""
    keys = [entry.api_key_variable for entry in settings.catalogue.models if entry.api_key_variable]
    names = {PREFIX + name.upper() for name in WorkerSettings.model_fields if name not in NOT_SENT}
    threads = str(max(1, int(Needs.of(launch.gpus, launch.resources).cpus)))
    defaults = {"PROMPTQ_WORKER_THREADS": threads} if launch.resource == "cpu" else {}
    return Order(
        name, promptq.__version__, environment.given({*names, *keys}) | dict(launch.environment), defaults, models,
        launch.command or (),
    )  # fmt: skip
