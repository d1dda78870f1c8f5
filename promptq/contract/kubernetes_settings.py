"""Settings of workers that are pods."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

_Name = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")]


class KubernetesSettings(BaseSettings):
    """Of `PROMPTQ_FLEET=kubernetes`; a base of the fleet's settings."""

    kubernetes_owner: _Name = Field(
        "", description="The scaler's Deployment: it owns the workers' pods, which go when it is deleted."
    )
    kubernetes_template: str = Field(
        "/etc/promptq/templates/worker.yaml",
        description="YAML file of a worker's pod; a file beside it named `MODEL.yaml` is for that model's alone.",
    )
    kubernetes_namespace: _Name = Field("", description="Where the pods are; empty: where the scaler is.")
    kubernetes_gpu_resource: str = Field("nvidia.com/gpu", description="What the cluster calls a GPU.")
