"""Which kernels are the fastest, by what was measured of them."""

from __future__ import annotations

from gpu_worker.engines.continuous.kernels.fastest import fastest


def test_the_least_time_over_all_numbers_of_rows_decides() -> None:
    """Each number weighs the same: a tenth of the time at few rows is worth more than a few hundredths at many."""
    one = {"avx512": (1.0, 10.0), "avx2": (2.0, 10.0), "torch": (3.0, 9.5)}
    choice = fastest([one, one])
    assert (choice.name, choice.is_sure) == ("avx512", True)
    assert choice.reason == "avx2 takes 1.49 times as long, torch takes 1.95 times as long"


def test_each_candidate_counts_by_its_best_rounds() -> None:
    """A round that something else has disturbed says nothing."""
    rounds = [
        {"avx512": (9.0, 10.0), "avx2": (2.0, 20.0)},
        {"avx512": (1.0, 90.0), "avx2": (2.0, 20.0)},
        {"avx512": (1.0, 10.0), "avx2": (2.0, 20.0)},
    ]
    assert fastest(rounds).name == "avx512"


def test_torch_must_be_faster_by_more_than_what_else_our_kernels_bring() -> None:
    assert fastest([{"avx2": (1.08,), "torch": (1.0,)}] * 2).name == "avx2"
    choice = fastest([{"avx2": (1.25,), "torch": (1.0,)}] * 2)
    assert (choice.name, choice.reason) == ("torch", "avx2 takes 1.25 times as long")


def test_it_is_not_sure_while_the_rounds_disagree() -> None:
    ours, theirs = {"avx2": (1.0,), "torch": (2.0,)}, {"avx2": (3.0,), "torch": (0.9,)}
    assert not fastest([ours]).is_sure, "one round may be chance"
    assert not fastest([ours, theirs]).is_sure
    assert fastest([ours, ours, theirs, ours]).is_sure is False
    assert fastest([ours, ours]).is_sure
