"""The fewest worker-hours of somebody who knows all arrivals in advance: a linear program, solved by HiGHS.

Fluid: workers and jobs may be fractions, rows that a worker runs are always full, and one that goes costs nothing more.
So no policy can do better, and none can be quite as good. Starts take their time and are paid for; 95 % of the jobs
begin within the wait that is allowed, the others before the end. Lengths are those of the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix
from sim_model import LENGTHS, SERVICE_SECONDS, SLOTS
from sim_traces import Trace

LATE = 0.05
LONG_SECONDS = 10
"""For starts of so long a step of two seconds is fine enough."""


class Program:
    """A linear program whose variables are series: one number for each step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.columns = 0
        self.rows: dict[str, list[tuple[list[int], list[float], float]]] = {"eq": [], "le": []}

    def series(self) -> range:
        """A new series of variables, none of them negative."""
        self.columns += self.steps
        return range(self.columns - self.steps, self.columns)

    def add(self, kind: str, terms: list[tuple[int, float]], bound: float) -> None:
        """The sum of the terms is (eq), or is at most (le), the bound."""
        self.rows[kind].append(([column for column, _ in terms], [factor for _, factor in terms], bound))

    def sums_up(self, series: range) -> range:
        """The running total of a series."""
        total = self.series()
        for step in range(self.steps):
            before = [(total[step - 1], -1.0)] if step else []
            self.add("eq", [(total[step], 1.0), (series[step], -1.0), *before], 0.0)
        return total

    def least(self, cost: Any, bounds: Any) -> float:
        """The least cost."""
        matrices = {kind: self.matrix(kind) for kind in self.rows}
        (less, most), (same, exact) = matrices["le"], matrices["eq"]
        for method in ("highs-ipm", "highs-ds"):  # the first one is fast, but not always sure
            done = linprog(cost, A_ub=less, b_ub=most, A_eq=same, b_eq=exact, bounds=bounds, method=method)
            if done.status == 0 and done.fun is not None:
                return float(done.fun)
        raise ArithmeticError(done.message)

    def matrix(self, kind: str) -> tuple[Any, Any]:
        """The rows of a kind, sparse, and their bounds."""
        rows = self.rows[kind]
        place = np.repeat(np.arange(len(rows)), [len(columns) for columns, _, _ in rows])
        columns = np.concatenate([columns for columns, _, _ in rows])
        factors = np.concatenate([factors for _, factors, _ in rows])
        return csr_matrix((factors, (place, columns)), (len(rows), self.columns)), [bound for *_, bound in rows]


def bound(trace: Trace, wait_seconds: float, start_seconds: float) -> float:
    """Worker-hours, of a fleet of at most one worker; of a larger fleet as many times as many.

    Args:
        wait_seconds: that 95 % of the jobs may wait; rounded up to a step.
        start_seconds: rounded down to a step.
    """
    step = 1 if start_seconds < LONG_SECONDS else 2
    steps, start, wait = len(trace) // step, int(start_seconds / step), math.ceil(wait_seconds / step)
    arrived = np.cumsum(trace)[step - 1 :: step] * SLOTS / SERVICE_SECONDS
    program = Program(steps)
    workers, started, on_time, late, given_up = (program.series() for _ in range(5))
    _rows_have_slots(program, step, workers, on_time, late)
    _workers_are_started(program, workers, started, start)
    totals = [program.sums_up(series) for series in (on_time, late, given_up)]
    _jobs_begin(program, totals, arrived, wait, step)
    cost = np.zeros(program.columns)
    cost[workers], cost[started] = step, start * step
    bounds = np.zeros((program.columns, 2))
    bounds[:, 1] = np.inf
    bounds[workers, 1] = 1
    bounds[given_up, 1] = np.diff(arrived, prepend=0.0)
    return program.least(cost, bounds) / 3600


def _rows_have_slots(program: Program, seconds: int, workers: range, *begun: range) -> None:
    """What runs of each kind of job decays as its length says; all of it has a slot."""
    running = [program.series() for _ in LENGTHS]
    for series, (share, mean) in zip(running, LENGTHS, strict=True):
        stays = math.exp(-seconds / mean)
        # A job that begins within a step has, on average, run for half of it at its end.
        enters = mean / seconds * (1 - stays)
        for step in range(program.steps):
            before = [(series[step - 1], -stays)] if step else []
            program.add("eq", [(series[step], 1.0), *((jobs[step], -share * enters) for jobs in begun), *before], 0.0)
    for step in range(program.steps):
        program.add("le", [*((series[step], 1 / SLOTS) for series in running), (workers[step], -1.0)], 0.0)


def _workers_are_started(program: Program, workers: range, started: range, start: int) -> None:
    for step in range(program.steps):
        before = [(workers[step - 1], -1.0)] if step else []
        new = [(started[step - start], -1.0)] if step >= start else []
        program.add("le", [(workers[step], 1.0), *before, *new], 0.0)


def _jobs_begin(program: Program, totals: list[range], arrived: Any, wait: int, seconds: int) -> None:
    on_time, late, given_up = totals
    last = program.steps - 1
    for step in range(program.steps):
        program.add("le", [(on_time[step], 1.0), (given_up[step], 1.0)], float(arrived[step]))
        if step + wait <= last:
            program.add("le", [(on_time[step + wait], -1.0), (given_up[step], -1.0)], -float(arrived[step]))
        program.add("le", [(late[step], 1.0), (given_up[step], -1.0)], 0.0)
    program.add("le", [(given_up[last], 1.0)], LATE * float(arrived[last]))
    # What is late is run too, but for the last moments.
    program.add("le", [(late[last], -1.0), (given_up[max(0, last - 10 // seconds)], 1.0)], 0.0)
