"""`python -m benchmarks.gpu`: every stage, a file of results, and a short table last; see docs/engine-cuda.md."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from benchmarks.gpu.plan import STAGES, chosen
from benchmarks.gpu.run_stages import Options, run_stages
from benchmarks.gpu.table import table


def main() -> int:
    """Run what is asked for. The exit code is 1 if some stage failed."""
    asked = _arguments()
    stages = chosen([name for name in asked.only.split(",") if name])
    vllm = asked.vllm or (sys.executable if importlib.util.find_spec("vllm") else "")
    options = Options(asked.device, asked.short, vllm, asked.seconds, asked.out)
    started = time.monotonic()
    path, results = run_stages(stages, options, lambda line: print(line, file=sys.stderr, flush=True))
    print(table(results))
    print(f"{time.monotonic() - started:.0f} s in all; everything is in {path}")
    return int(any(result["status"] not in ("ok", "skipped") for result in results.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="as torch names it: cuda, cuda:1, cpu")
    parser.add_argument("--short", action="store_true", help="tiny shapes under the same names: proves that all runs")
    parser.add_argument("--only", default="", help="some of " + ",".join(stage.name for stage in STAGES))
    parser.add_argument("--vllm", default="", metavar="PYTHON", help="an interpreter that has vLLM")
    parser.add_argument("--seconds", type=float, default=570, help="for all stages together")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of gpu-<card>.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
