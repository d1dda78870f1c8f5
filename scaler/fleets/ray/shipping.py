"""What a node is told, of what is set where the scaler runs."""

from __future__ import annotations

from pathlib import Path

import promptq
from promptq.contract import environment
from promptq.contract.environment import PREFIX
from promptq.contract.settings import ScalerSettings, WorkerSettings
from scaler.fleets.launch import Launch
from scaler.fleets.ray.order import Needs, Order

NOT_SENT = ("models_file", "worker_name", "worker_model")
"""Settings of workers that each has of its own, or whose file is sent in their place."""


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
