"""`python -m tests.chaos.witness_worker`: a worker whose engine `echo` is the witness."""

from __future__ import annotations

import sys

from gpu_worker import __main__ as program
from gpu_worker.engines import registry
from promptq.runtime.lifecycle import leave

ENTRY = registry.EngineEntry("tests.chaos.witness:create")

if __name__ == "__main__":
    vars(registry)["ENGINES"] = {**registry.ENGINES, "echo": ENTRY}
    leave(program.main(sys.argv[1:]))
