"""Halving: a row that fails alone fails alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.continuous.retry_halves import failure, run_in_halves
from promptq.contract.errors import EngineBroken, InvalidRequest


@given(st.integers(0, 20), st.sets(st.integers(0, 19)), st.integers(1, 20))
def test_every_good_item_is_run_once_and_every_bad_one_given_up(count, bad, most):
    """Groups above `most` fail as if memory ran out."""

    def run(items):
        if bad & set(items) or len(items) > most:
            raise RuntimeError("no")
        return [item * 2 for item in items]

    lost = []
    groups = run_in_halves(list(range(count)), run, lambda item, reason: lost.append((item, reason)))
    assert [item for items, _ in groups for item in items] == [item for item in range(count) if item not in bad]
    assert all(result == [item * 2 for item in items] for items, result in groups)
    assert lost == [(item, ("engine_error", "RuntimeError: no")) for item in range(count) if item in bad]


def test_what_breaks_the_engine_is_tried_no_more():
    runs = []

    def run(items):
        runs.append(items)
        raise EngineBroken("gone")

    with pytest.raises(EngineBroken, match="gone"):
        run_in_halves([1, 2, 3], run, lambda *_: pytest.fail("no row is to blame"))
    assert runs == [[1, 2, 3]]


def test_our_own_errors_keep_their_type():
    assert failure(InvalidRequest("bad")) == ("invalid_request", "bad")
