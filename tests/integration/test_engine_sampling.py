"""Sampling: exact greedy, the right distribution, and no row that depends on another."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gpu_worker.engines.continuous import sampling
from gpu_worker.engines.continuous.sampling import ARGMAX_BLOCK, NOT_FINITE, Draw, next_tokens, uniform

VOCABULARY = 50
PLACES = 4000
PARAMETERS = [
    (1.0, 0, 1.0, 0.0),
    (0.7, 0, 1.0, 0.0),
    (1.0, 5, 1.0, 0.0),
    (1.5, 0, 0.8, 0.0),
    (0.9, 12, 0.6, 0.0),
    (1.0, 49, 0.99, 0.0),
    (2.0, 500, 0.5, 0.0),
    (1.0, 0, 1.0, 0.05),
    (3.0, 0, 1.0, 0.3),
    (2.0, 9, 0.9, 0.1),
    (0.8, 0, 0.7, 0.6),
    (5.0, 3, 1.0, 0.9),
]


def logits(rows: int = 1, seed: int = 3) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def expected(row: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """The distribution by transformers' own warpers, in their order."""
    scores = row[None] / temperature
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    scores = TopPLogitsWarper(top_p)(None, scores) if top_p < 1 else scores
    scores = MinPLogitsWarper(min_p)(None, scores) if min_p else scores
    return scores.softmax(-1)[0]


@pytest.mark.parametrize("guess", [4, 1024])
@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), PARAMETERS)
def test_the_distribution_is_that_of_transformers(monkeypatch, temperature, top_k, top_p, min_p, guess):
    """Evenly spaced places in [0, 1) must fall on each token in proportion to its probability."""
    monkeypatch.setattr(sampling, "NUCLEUS_GUESS", guess)
    row = logits()[0]
    draws = [Draw(temperature, top_k, top_p, (index + 0.5) / PLACES, min_p) for index in range(PLACES)]
    tokens = next_tokens(row.expand(PLACES, -1), draws)
    shares = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY) / PLACES
    torch.testing.assert_close(shares, expected(row, temperature, top_k, top_p, min_p), atol=2 / PLACES, rtol=0)


@pytest.mark.parametrize("guess", [4, 1024])
@pytest.mark.parametrize("min_p", [0.01, 0.1, 0.5, 0.99])
def test_min_p_keeps_what_transformers_keeps(monkeypatch, min_p, guess):
    monkeypatch.setattr(sampling, "NUCLEUS_GUESS", guess)
    for seed in range(20):
        row = logits(seed=seed)[0] / 2
        draws = [Draw(1.0, 0, 1.0, (index + 0.5) / PLACES, min_p) for index in range(PLACES)]
        kept = MinPLogitsWarper(min_p)(None, row[None])[0].isfinite().nonzero()[:, 0].tolist()
        assert sorted(set(next_tokens(row.expand(PLACES, -1), draws))) == kept


def test_greedy_rows_are_the_exact_maximum():
    rows = logits(8)
    draws = [Draw(0.0, 5, 0.5, 0.9)] * 8
    assert next_tokens(rows, draws) == rows.argmax(-1).tolist()


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 4 * ARGMAX_BLOCK])
def test_the_maximum_is_the_first_of_equals_and_never_a_number_that_is_none(vocabulary):
    rows = torch.randn(5, vocabulary).clamp(max=2.0)
    rows[0, 7] = rows[0, vocabulary - 1] = 9.0
    rows[1] = 0.0
    rows[2, 11], rows[3], rows[4, 3] = math.nan, -math.inf, math.inf
    tokens = next_tokens(rows, [Draw(0.0, 0, 1.0, 0.0)] * 5)
    assert tokens == [7, 0, NOT_FINITE, NOT_FINITE, NOT_FINITE]


@pytest.mark.parametrize(
    "draw",
    [Draw(1.0, 1, 1.0, 0.999), Draw(1.0, 0, 1e-9, 0.999), Draw(1e-300, 0, 1.0, 0.999), Draw(1.0, 0, 1.0, 0.999, 1.0)],
)
def test_the_narrowest_draw_is_greedy(draw):
    rows = logits(4)
    assert next_tokens(rows, [draw] * 4) == rows.argmax(-1).tolist()


def test_a_row_does_not_depend_on_the_others():
    rows = logits(len(PARAMETERS) + 1)
    draws = [Draw(t, k, p, uniform(7, index), min_p) for index, (t, k, p, min_p) in enumerate(PARAMETERS)]
    draws.append(Draw(0.0, 0, 1.0, 0.0))
    alone = [next_tokens(rows[index : index + 1], [draw])[0] for index, draw in enumerate(draws)]
    assert next_tokens(rows, draws) == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_finite_are_marked_and_leave_the_others_alone(temperature):
    rows = logits(4)
    rows[0, 3], rows[1], rows[2, 5] = math.nan, -math.inf, math.inf
    rows[3, 9] = -math.inf
    draws = [Draw(temperature, 0, 1.0, 0.5)] * 4
    tokens = next_tokens(rows, draws)
    assert tokens[:3] == [NOT_FINITE] * 3
    assert tokens[3] == next_tokens(rows[3:], draws[:1])[0] != NOT_FINITE


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 4 * ARGMAX_BLOCK])
def test_no_rows_give_no_tokens(vocabulary):
    assert next_tokens(torch.empty(0, vocabulary), []) == []


def test_uniform_numbers_are_spread_and_repeatable():
    numbers = [uniform(seed, index) for seed in range(50) for index in range(200)]
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.01
    assert uniform(2**63 - 1, 10**6) == uniform(2**63 - 1, 10**6)
