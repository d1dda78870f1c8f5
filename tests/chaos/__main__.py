"""`python -m tests.chaos --seed 1 --jobs 2000`: one seeded run of faults over real processes, and its audit."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.chaos.plan import SHARES
from tests.chaos.run import Outcome, run


def main() -> int:
    """Run each seed; the exit code tells whether every law held."""
    arguments = _arguments()
    broken = 0
    for seed in arguments.seeds:
        folder = Path(tempfile.mkdtemp(prefix=f"promptq-chaos-{seed}-"))
        settings: dict[str, Any] = {"engine": "continuous", "slots": 8} if arguments.model else {}
        settings |= {"echo_tokens_per_second": arguments.pace} if arguments.pace else {}
        shares = {kind: count for kind, count in SHARES.items() if arguments.only in kind}
        shares = {kind: count * arguments.times for kind, count in shares.items()}
        outcome = run(seed, arguments.jobs, shares, folder, arguments.durability, arguments.pause, **settings)
        print(outcome.table(), flush=True)
        _write(arguments.json, outcome)
        broken += len(outcome.findings)
        print(f"logs and data: {folder}\n", flush=True)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", "--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--durability", choices=["everysec", "always"], default="everysec")
    parser.add_argument("--pause", type=float, default=5.0, help="longest time between two faults, in seconds")
    parser.add_argument("--only", default="", help="only faults with this in their names, as `kill worker`")
    parser.add_argument("--times", type=int, default=1, help="so many times the usual number of faults")
    parser.add_argument("--pace", type=float, help="words a second of each echo row: slow ones are read for longer")
    parser.add_argument("--model", action="store_true", help="the real model instead of the echo engine")
    parser.add_argument("--json", type=Path, help="append each run's figures to this file")
    return parser.parse_args()


def _write(path: Path | None, outcome: Outcome) -> None:
    if path:
        with path.open("a") as file:
            file.write(json.dumps(outcome.figures()) + "\n")


if __name__ == "__main__":
    sys.exit(main())
