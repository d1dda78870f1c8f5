"""From the settings to a fleet on Ray."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from promptq.contract.addresses import is_loopback
from scaler.fleets.ray.cluster import RayCluster
from scaler.fleets.ray.fleet import RayFleet, RayFleetSettings
from scaler.fleets.ray.shipping import order

if TYPE_CHECKING:
    from scaler.assembly import Assembly

log = logging.getLogger(__name__)


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
