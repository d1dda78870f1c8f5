"""The fleet of `PROMPTQ_FLEET=kubernetes`, from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptq.contract.errors import SettingsError
from scaler.fleets.base import Fleet
from scaler.fleets.kubernetes.api import PodApi
from scaler.fleets.kubernetes.fleet import KubernetesFleet, KubernetesFleetSettings
from scaler.fleets.kubernetes.template import read_template

if TYPE_CHECKING:
    from scaler.assembly import Assembly


def create(assembly: Assembly) -> Fleet:
    """The fleet, without a pod yet.

    Raises:
        SettingsError: the template is wrong, or no cluster is known here.
    """
    settings = assembly.settings
    if not settings.kubernetes_owner:
        name = "PROMPTQ_KUBERNETES_OWNER"
        raise SettingsError(f"{name}: PROMPTQ_FLEET=kubernetes needs the name of the scaler's Deployment", param=name)
    template = Path(settings.kubernetes_template)
    for entry in settings.catalogue.models:
        read_template(template, entry.name)
    api = PodApi.of_the_cluster(settings.kubernetes_namespace, settings.kubernetes_owner)
    return KubernetesFleet(
        KubernetesFleetSettings(
            settings.kubernetes_owner, template, assembly.machine.cpu, settings.kubernetes_gpu_resource,
            settings.drain_seconds, settings.start_timeout_seconds, assembly.machine.rooms, assembly.launches,
        ),
        api,
    )  # fmt: skip
