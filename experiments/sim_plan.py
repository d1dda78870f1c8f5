"""The clairvoyant's linear program over a window, solved again and again as time goes on.

The model is that of `sim_bound`, written so that only bounds of columns change from one moment to the next: what is
there is a column that is held at its value. So HiGHS goes on from the last basis. SciPy's own interface to it begins
anew each time, so its binding is used, whose version requirements/experiments.txt pins.

That a window is looked into, its first step is done, and the window moves on, is receding-horizon control; for the
number of servers see Lin, Wierman, Andrew and Thereska, "Dynamic right-sizing for power-proportional data centers"
(INFOCOM 2011; IEEE/ACM Transactions on Networking 21, 2013).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize._highspy import _core as highs
from scipy.sparse import vstack
from sim_bound import Program
from sim_model import LENGTHS, SERVICE_SECONDS, SLOTS

WORK = SERVICE_SECONDS / SLOTS
"""Worker-seconds that a job takes."""
EARLIER = 2e-4
"""Worker-seconds for a job to begin a second earlier: as good as none, but of two plans that cost the same it has the
one in which nobody waits beside a free slot."""
SERIES = ("settled", "late", "given_up", "workers", "started", "short", "long")


class Step(NamedTuple):
    """The first step of a plan, or what there is before it.

    Attributes:
        settled: jobs that began in time or were given up, a running total.
        late: jobs that were given up and have not begun.
        given_up, started: jobs and workers, in this step.
        short, long: jobs that run, by the two means of `LENGTHS`.
    """

    settled: float = 0.0
    late: float = 0.0
    given_up: float = 0.0
    workers: float = 0.0
    started: float = 0.0
    short: float = 0.0
    long: float = 0.0

    @property
    def least_workers(self) -> float:
        """As many as have the slots of what runs; rounding may have left a trifle less."""
        return max(self.workers, (self.short + self.long) / SLOTS, 0.0)


class Prices(NamedTuple):
    """Worker-seconds for a job that is late, and for each second until it begins then."""

    late: float
    second: float = EARLIER


class Guess(NamedTuple):
    """What is expected after the seconds that are known: the mean of the last `past` ones, times a margin."""

    past: float
    margin: float = 1.0


class Plan:
    """The least worker-seconds of a window, starts, late jobs and the work that is left after it included.

    Args:
        steps: length of the window, at least eight and longer than a start.
        seconds: length of a step.
        start: steps that a start takes.
        prices: of jobs that do not begin within the wait that is allowed.
        largest: number of workers.
    """

    def __init__(self, steps: int, seconds: float, start: int, prices: Prices, largest: float) -> None:
        self.steps, self.seconds, self.start = steps, seconds, start
        program = Program(steps)
        self._columns = {name: program.series() for name in SERIES}
        self._before, self._coming = program.series(), program.series()
        for step in range(steps):
            self._jobs(program, step)
            self._rows(program, step)
            self._workers(program, step)
        self.lower, self.upper = np.zeros(program.columns), np.full(program.columns, np.inf)
        self.upper[self._columns["workers"]] = largest
        self._solver = Solver(program, self._cost(program.columns, prices), self.lower, self.upper)

    def first(self, due: Any, there: Any, before: Step, coming: Any) -> Step:
        """The first step of the best plan.

        Args:
            due, there: running totals of the jobs that have to be settled by each step, and of those that have come.
            coming: workers that are ready in each of the next steps, as many steps as a start takes.
        """
        settled, held, more = self._columns["settled"], self._before, self._coming[: self.start]
        self.lower[settled], self.upper[settled] = due, there
        self.lower[held[: len(SERIES)]] = self.upper[held[: len(SERIES)]] = before
        self.lower[more] = self.upper[more] = coming
        values = self._solver.least(self.lower, self.upper)
        return Step(*(float(values[self._columns[name][0]]) for name in SERIES))

    def _at(self, name: str, step: int) -> int:
        return self._columns[name][step] if step >= 0 else self._before[SERIES.index(name)]

    def _jobs(self, program: Program, step: int) -> None:
        """What is given up is late until it begins, and is not begun in time."""
        given_up = self._at("given_up", step)
        late, settled = (self._change(name, step, 1.0) for name in ("late", "settled"))
        program.add("le", [*late, (given_up, -1.0)], 0.0)
        program.add("le", [(given_up, 1.0), *((column, -factor) for column, factor in settled)], 0.0)

    def _rows(self, program: Program, step: int) -> None:
        """What runs decays as its length says; what begins is what is settled, less what is late the longer for it."""
        slots = []
        for name, (share, mean) in zip(("short", "long"), LENGTHS, strict=True):
            stays = math.exp(-self.seconds / mean)
            enters = share * mean / self.seconds * (1 - stays)
            begun = [*self._change("settled", step, -enters), *self._change("late", step, enters)]
            program.add("eq", [(self._at(name, step), 1.0), (self._at(name, step - 1), -stays), *begun], 0.0)
            slots.append((self._at(name, step), 1 / SLOTS))
        program.add("le", [*slots, (self._at("workers", step), -1.0)], 0.0)

    def _workers(self, program: Program, step: int) -> None:
        new = self._at("started", step - self.start) if step >= self.start else self._coming[step]
        program.add("le", [*self._change("workers", step, 1.0), (new, -1.0)], 0.0)

    def _change(self, name: str, step: int, factor: float) -> list[tuple[int, float]]:
        return [(self._at(name, step), factor), (self._at(name, step - 1), -factor)]

    def _cost(self, columns: int, prices: Prices) -> Any:
        """What has not begun or ended when the window ends costs its work."""
        cost = np.zeros(columns)
        cost[self._columns["workers"]] = self.seconds
        cost[self._columns["started"]] = self.seconds * self.start
        cost[self._columns["given_up"]] = prices.late
        cost[self._columns["settled"]] = -EARLIER * self.seconds
        cost[self._columns["late"]] = prices.second * self.seconds
        for name, left in (("settled", -WORK), ("late", WORK), *_lengths_left()):
            cost[self._columns[name][-1]] += left
        return cost


def _lengths_left() -> list[tuple[str, float]]:
    return [(name, mean / SLOTS) for name, (_, mean) in zip(("short", "long"), LENGTHS, strict=True)]


def expected(arrived: Any, now: int, known: int, waits: int, steps: int, guess: Guess) -> Any:
    """Running totals of the arrivals, from `waits` steps ago to `steps` from now; after `known` they are a guess."""
    past = max(1, min(now + 1, round(guess.past)))
    rate = guess.margin * (arrived[now] - (arrived[now - past] if now >= past else 0.0)) / past
    sure = arrived[max(0, now - waits) : known + 1][: waits + steps]
    before, after = max(0, waits - now), waits + steps - len(sure) - max(0, waits - now)
    return np.concatenate([np.zeros(before), sure, sure[-1] + rate * np.arange(1, after + 1)])


class Solver:
    """HiGHS with one program, whose columns' bounds change; every row's bound is 0."""

    def __init__(self, program: Program, cost: Any, lower: Any, upper: Any) -> None:
        (less, _), (same, _) = program.matrix("le"), program.matrix("eq")
        matrix = vstack([less, same]).tocsc()
        model = highs.HighsLp()
        model.num_col_, model.num_row_ = matrix.shape[1], matrix.shape[0]
        model.col_cost_, model.col_lower_, model.col_upper_ = cost, lower, upper
        model.row_lower_ = np.concatenate([np.full(less.shape[0], -np.inf), np.zeros(same.shape[0])])
        model.row_upper_ = np.zeros(matrix.shape[0])
        held = model.a_matrix_
        held.num_col_, held.num_row_, held.format_ = model.num_col_, model.num_row_, highs.MatrixFormat.kColwise
        held.start_, held.index_, held.value_ = matrix.indptr, matrix.indices, matrix.data
        self._highs = highs._Highs()
        self._highs.setOptionValue("output_flag", False)
        self._highs.passModel(model)
        self._columns = np.arange(model.num_col_, dtype=np.int32)

    def least(self, lower: Any, upper: Any) -> Any:
        """The values of all columns at the least cost.

        Raises:
            ArithmeticError: it was not solved.
        """
        self._highs.changeColsBounds(len(self._columns), self._columns, lower, upper)
        for method in ("simplex", "ipm"):
            self._highs.setOptionValue("solver", method)
            self._highs.run()
            if (status := self._highs.getModelStatus()) == highs.HighsModelStatus.kOptimal:
                return np.array(self._highs.getSolution().col_value)
            self._highs.clearSolver()  # the last basis may be a bad beginning
        raise ArithmeticError(self._highs.modelStatusToString(status))
