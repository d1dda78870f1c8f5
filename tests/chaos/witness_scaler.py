"""`python -m tests.chaos.witness_scaler`: a scaler whose workers have the witness as their engine."""

from __future__ import annotations

import sys
from dataclasses import replace

from promptq.runtime.programs import command
from scaler import __main__ as program
from scaler.assembly import Assembly
from scaler.fleets.local import LocalFleetSettings

WITNESS = tuple(command("tests.chaos.witness_worker"))


class WitnessAssembly(Assembly):
    """Starts all workers as witnesses."""

    def fleet_settings(self) -> LocalFleetSettings:
        return replace(super().fleet_settings(), command=WITNESS)


if __name__ == "__main__":
    vars(program)["Assembly"] = WitnessAssembly
    sys.exit(program.main())
