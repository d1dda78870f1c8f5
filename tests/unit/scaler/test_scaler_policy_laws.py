"""The policy, whatever the limits and the load."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scaler.policy import History, Limits, Load, Reason, decide

LIMITS_OF_ANY_KIND = st.builds(
    lambda low, more, target, up, window, zero: Limits(low, max(1, low + more), target, 10, up, window, zero),
    st.integers(0, 5), st.integers(0, 20), st.floats(0.5, 50), st.floats(0, 10), st.floats(0.1, 60),
    st.floats(0.1, 60),
)  # fmt: skip
LOADS = st.builds(
    lambda queued, running, oldest, there, starting: Load(queued, running, oldest, there, min(there, starting)),
    st.integers(0, 400), st.integers(0, 400), st.floats(0, 60), st.integers(0, 30), st.integers(0, 30),
)  # fmt: skip
STEPS = st.lists(st.tuples(st.floats(0.01, 20), LOADS), min_size=1, max_size=30)


@given(LIMITS_OF_ANY_KIND, STEPS)
def test_the_number_is_always_within_the_limits_and_the_action_fits_the_reason(
    limits: Limits, steps: list[tuple[float, Load]]
) -> None:
    history, now = History(), 0.0
    for seconds, seen in steps:
        now += seconds
        decision = decide(seen, history, limits, now)
        history = decision.history
        assert limits.min_workers <= decision.workers <= limits.max_workers
        ups = {Reason.DEMAND, Reason.WAIT, Reason.BURST, Reason.FROM_ZERO, Reason.BELOW_MIN}
        assert (decision.workers > seen.workers) == (decision.reason in ups)
        if decision.reason in (Reason.WINDOW_DOWN, Reason.TO_ZERO):
            assert decision.workers < seen.workers


@given(LIMITS_OF_ANY_KIND, STEPS, st.integers(0, 400))
def test_more_jobs_never_mean_fewer_workers(limits: Limits, steps: list[tuple[float, Load]], more: int) -> None:
    history, now = History(), 0.0
    for seconds, seen in steps:
        now += seconds
        last, history = history, decide(seen, history, limits, now).history
    fuller = replace(seen, queued=seen.queued + more)
    assert decide(fuller, last, limits, now).workers >= decide(seen, last, limits, now).workers
