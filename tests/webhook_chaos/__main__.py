"""Webhooks while everything fails: `python -m tests.webhook_chaos --events 10000 --seed 1`.

Jobs end, and receivers answer 500, 503, 410 and redirects at random, hang, reset and speak nonsense, while dispatchers
and Redis are killed. Then each event must have been taken at least once, by each destination that it is for, under one
id; every body that came was verified by OpenAI's client; and nothing may have come to the address inside.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.webhook_chaos.run import run


def main() -> int:
    """0: nothing is lost, and nothing came where it should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults, about")
    parser.add_argument("--pace", type=float, default=200.0, help="jobs that end each second, about")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), given.events, given.seed, given.every, given.pace)
    print(result.report)
    print("\n".join(result.wrong[:20]) or "no event is lost")
    return 1 if result.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
