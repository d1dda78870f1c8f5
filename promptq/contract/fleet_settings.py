"""Settings of where the workers run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from promptq.contract.kubernetes_settings import KubernetesSettings

FleetName = Literal["local", "ray", "kubernetes", "external"]


class FleetSettings(KubernetesSettings):
    """Of the scaler's fleet; a base beside the scaler's own settings."""

    fleet: FleetName = Field(
        "local",
        description="Where the scaler starts workers: `local`, this machine; `ray`; `kubernetes`; `external`: nowhere, "
        "somebody else does.",
    )
    ray_address: str = Field(
        "auto", description="Of the Ray cluster that this machine is a node of: `auto`, or the head's `host:port`."
    )
    ray_namespace: str = Field(
        "promptq", min_length=1, description="Ray's namespace of the workers' actors: one for each deployment."
    )
