"""What dies is started again, ever later, and only what cannot start is given up."""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st

from promptq.contract.exit_codes import ExitCode
from promptq.up.restarts import (
    FIRST_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    MOST_FAILED_STARTS,
    STANDING_SECONDS,
    Decision,
    History,
    after_death,
    started,
)

CODES = st.integers(-64, 255).filter(lambda code: code != ExitCode.SETTINGS)


def deaths(history: History, lives: list[float], code: int = -signal.SIGKILL) -> list[Decision]:
    """One process after the other, each of which lives so long."""
    made, now = [], history.started_at
    for life in lives:
        now += life
        made.append(after_death(history, code, now))
        now += made[-1].delay_seconds or 0.0
        history = started(made[-1].history, now)
    return made


def test_delays_double_up_to_the_longest_and_begin_anew_once_it_stood() -> None:
    lives = [STANDING_SECONDS, *[0.1] * 9, STANDING_SECONDS, 0.1]
    delays = [decision.delay_seconds for decision in deaths(History(0.0), lives)]
    assert delays[:4] == [FIRST_DELAY_SECONDS, FIRST_DELAY_SECONDS, 2 * FIRST_DELAY_SECONDS, 4 * FIRST_DELAY_SECONDS]
    assert delays[9] == LONGEST_DELAY_SECONDS
    assert delays[10:] == [FIRST_DELAY_SECONDS, FIRST_DELAY_SECONDS]


def test_what_never_stood_is_given_up_after_some_tries() -> None:
    made = deaths(History(0.0), [0.1] * MOST_FAILED_STARTS)
    assert [decision.delay_seconds is None for decision in made] == [False] * (MOST_FAILED_STARTS - 1) + [True]
    assert str(MOST_FAILED_STARTS) in made[-1].reason


def test_wrong_settings_are_given_up_at_once() -> None:
    for lived in (0.0, 1000.0):
        (decision,) = deaths(History(0.0), [lived], ExitCode.SETTINGS)
        assert (decision.delay_seconds, decision.reason) == (None, "its settings are wrong")


@given(lives=st.lists(st.floats(0, 100), min_size=1, max_size=40), code=CODES)
def test_what_has_stood_once_is_always_started_again_and_never_late(lives: list[float], code: int) -> None:
    for decision in deaths(History(0.0, has_stood=True), lives, code):
        assert decision.delay_seconds is not None
        assert FIRST_DELAY_SECONDS <= decision.delay_seconds <= LONGEST_DELAY_SECONDS
