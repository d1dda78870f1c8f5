"""Settings of where the workers run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

FleetName = Literal["local", "ray", "kubernetes"]


class FleetSettings(BaseSettings):
    """Of the scaler's fleet; a base beside the scaler's own settings."""

    fleet: FleetName = Field(
        "local", description="Where the scaler starts workers: `local`, this machine; `ray`; `kubernetes`."
    )
