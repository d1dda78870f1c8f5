"""Which fleet the setting names."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from promptq.contract.errors import SettingsError
from scaler.assembly import Assembly
from scaler.fleets.base import Fleet
from scaler.fleets.external import ExternalFleet
from scaler.fleets.gpus import Gpus
from scaler.fleets.local import LocalFleet


class _Creator(Protocol):
    def create(self, assembly: Assembly) -> Fleet: ...


def create_fleet(assembly: Assembly, gpus: Gpus) -> Fleet:
    """The fleet of `PROMPTQ_FLEET`, without a worker yet.

    One on other machines is `create(assembly)` of a module `scaler.fleets.{name}.creation`, imported only where it is
    asked for: what it stands on is an extra.

    Raises:
        SettingsError: its packages are not installed, or it cannot be reached.
    """
    name = assembly.settings.fleet
    if name == "local":
        return LocalFleet(assembly.fleet_settings(), gpus if assembly.places_on_gpus else None)
    if name == "external":
        return ExternalFleet()
    try:
        module = importlib.import_module(f"scaler.fleets.{name}.creation")
    except ModuleNotFoundError as error:
        message = f"PROMPTQ_FLEET: {name} needs the module {error.name}; run: pip install 'promptq[{name}]'"
        raise SettingsError(message) from None
    return cast(_Creator, module).create(assembly)
