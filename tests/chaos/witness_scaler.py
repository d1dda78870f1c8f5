"""`python -m tests.chaos.witness_scaler`: a scaler whose workers have the witness as their engine."""

from __future__ import annotations

import sys

from promptq.runtime.programs import command
from scaler import __main__ as program
from scaler.fleets import local

if __name__ == "__main__":
    made = program.Assembly.fleet_settings

    def with_witnesses(assembly: program.Assembly) -> local.LocalFleetSettings:
        """As the scaler makes them, with another command."""
        settings = made(assembly)
        witness = tuple(command("tests.chaos.witness_worker"))
        return type(settings)(**{name: getattr(settings, name) for name in settings.__slots__} | {"command": witness})

    vars(program)["Assembly"].fleet_settings = with_witnesses
    sys.exit(program.main())
