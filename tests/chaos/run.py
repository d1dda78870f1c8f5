"""One run from start to table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.chaos.audit import Audit, Inspector, audit, wait_for_rest
from tests.chaos.clients import Crowd
from tests.chaos.faults import Injector
from tests.chaos.plan import KILLS, LEASE_SECONDS, make
from tests.chaos.stack import Stack
from tests.clocks import can_shift_clocks
from tests.disks import can_mount
from tests.processes import wait_until

REST_SECONDS = 240.0
START_SECONDS = 120.0


@dataclass
class Outcome:
    """What a run showed."""

    seed: int
    jobs: int
    seconds: float
    durability: str
    injector: Injector
    crowd: Crowd
    audit: Audit
    findings: list[str]
    restarts: int
    censuses: int

    def longest(self, undisturbed: bool, what: str = "taken_back") -> float:
        """The longest recovery of a killed worker's jobs."""
        chosen = [r for r in self.injector.recoveries if r.jobs and not (undisturbed and r.disturbed)]
        return max((getattr(recovery, what) for recovery in chosen), default=0.0)

    def figures(self) -> dict[str, Any]:
        """For machines."""
        counts = self.audit.counts
        return {
            "seed": self.seed, "jobs": self.jobs, "seconds": round(self.seconds, 1), "durability": self.durability,
            "faults": dict(self.injector.done), "kills": sum(self.injector.done[kind] for kind in KILLS),
            "ends": dict(self.audit.ends), "redeliveries": counts.get("requeued:worker_lost", 0),
            "put back": counts.get("requeued:drain", 0), "gave way": counts.get("requeued:preempted", 0),
            "read as it came": dict(self.audit.readings), "answers": dict(self.crowd.answers),
            "lost in window": self.audit.lost_in_window, "redone in window": self.audit.redone_in_window,
            "lease": LEASE_SECONDS, "longest recovery": round(self.longest(True), 2),
            "longest recovery, Redis or scaler down too": round(self.longest(False), 2),
            "longest until all ran again": round(self.longest(False, "begun_again"), 2),
            "worker kills with jobs": sum(r.jobs > 0 for r in self.injector.recoveries),
            "undisturbed": sum(r.jobs > 0 and not r.disturbed for r in self.injector.recoveries),
            "censuses": self.censuses, "findings": self.findings,
        }  # fmt: skip

    def table(self) -> str:
        """For people."""
        rows = [(name, value) for name, value in self.figures().items() if name != "findings"]
        lines = [f"  {name:<44}{value}" for name, value in rows]
        verdict = [f"BROKEN: {line}" for line in self.findings[:40]] or ["  every law held"]
        return "\n".join([*lines, *verdict])


def run(
    seed: int, jobs: int, shares: dict[str, int], folder: Path, durability: str = "everysec", pause: float = 5.0,
    **settings: Any,
) -> Outcome:  # fmt: skip
    """Start everything, break it as the seed says while clients submit, let it come to rest, and audit."""
    plan = make(seed, jobs, possible(shares), pause)
    stack = Stack(folder, durability, **settings)
    began = time.monotonic()
    stack.up()
    try:
        wait_until(lambda: _ready(stack), START_SECONDS, "the stack")
        crowd, inspector = Crowd(stack.url, seed, plan.specs), Inspector(stack)
        injector = Injector(stack, plan.faults, crowd)
        for part in (crowd, injector, inspector):
            part.start()
        injector.join()
        crowd.join()
        with stack.client as client:
            rested = wait_for_rest(client, REST_SECONDS)
        wait_until(lambda: _ready(stack), START_SECONDS, "the stack")
        inspector.close()
        kills = [begin for begin, _ in injector.outages]
        report = audit(stack, crowd.records, kills, settings.get("engine", "echo") == "echo")
    finally:
        left = stack.down()
    findings = [*crowd.wrong, *report.findings, *inspector.findings]
    findings += [] if rested else ["the queue did not come to rest"]
    findings += [f"process {process.pid} is left" for process in left]
    return Outcome(
        seed, jobs, time.monotonic() - began, durability, injector, crowd, report, findings, stack.restarts,
        inspector.taken,
    )  # fmt: skip


def possible(shares: dict[str, int]) -> dict[str, int]:
    """Those that this machine allows; says which are left out."""
    lacking = {"fill disk": not can_mount(), "step clock": not can_shift_clocks()}
    left_out = [kind for kind in shares if lacking.get(kind)]
    if left_out:
        print(f"left out, for want of a right to mount or of a compiler: {', '.join(left_out)}")
    return {kind: count for kind, count in shares.items() if kind not in left_out}


def _ready(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.url}/readyz", timeout=5).ok and len(stack.workers()) > 0
    except requests.RequestException:
        return False
