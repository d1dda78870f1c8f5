"""Sampling: exact greedy, the right distribution, and no row that depends on another."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from gpu_worker.engines.continuous.draws import Draw, draw_key, waiting_times
from gpu_worker.engines.continuous.sampling import ARGMAX_BLOCK, NOT_FINITE, next_tokens

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY = 50
KEYS = [draw_key(11, index) for index in range(20_000)]
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


def drawn(row: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """How often each token comes, over all keys."""
    draws = [Draw(temperature, top_k, top_p, key, min_p) for key in KEYS]
    return torch.bincount(torch.tensor(next_tokens(row.expand(len(KEYS), -1), draws)), minlength=VOCABULARY)


def assert_fits(counts: torch.Tensor, shares: torch.Tensor) -> None:
    """Pearson's chi-square, within five standard deviations; tokens that hardly ever come are taken together."""
    due = shares.double() * counts.sum()
    assert not counts[due == 0].any()
    rare = due < 5
    counts, due = (torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, due))
    counts, due = counts[due > 0], due[due > 0]
    freedom = max(1, len(due) - 1)
    assert float(((counts - due) ** 2 / due).sum()) < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), PARAMETERS)
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p, min_p):
    row = logits()[0]
    counts = drawn(row, temperature, top_k, top_p, min_p)
    assert_fits(counts, expected(row, temperature, top_k, top_p, min_p))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_two_draws_in_a_row_have_nothing_to_do_with_each_other(temperature):
    row = logits()[0][:6]
    tokens = torch.tensor(next_tokens(row.expand(len(KEYS), -1), [Draw(temperature, 0, 1.0, key) for key in KEYS]))
    shares = (row / temperature).softmax(-1)
    pairs = torch.bincount(tokens[:-1] * 6 + tokens[1:], minlength=36)
    assert_fits(pairs, (shares[:, None] * shares).flatten())


@pytest.mark.parametrize("min_p", [0.01, 0.1, 0.5, 0.99])
def test_min_p_keeps_what_transformers_keeps(min_p):
    for seed in range(3):
        row = logits(seed=seed)[0] / 2
        kept = MinPLogitsWarper(min_p)(None, row[None])[0].isfinite()
        assert torch.equal(drawn(row, 1.0, 0, 1.0, min_p) > 0, kept)


@pytest.mark.parametrize("limits", [(0, 1.0, 0.0), (0, 0.95, 0.0), (900, 1.0, 0.0), (0, 1.0, 0.001)])
def test_rounding_changes_a_draw_at_a_tie_only(limits):
    """A prompt and a decode step round differently; a text that goes on elsewhere must stay the same."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(200, 49_152, generator=generator) * 2.5
    top_k, top_p, min_p = limits
    draws = [Draw(0.8, top_k, top_p, key, min_p) for key in KEYS[:200]]
    rounded = rows + torch.randn(rows.shape, generator=generator) * 1e-5
    differ = [one != two for one, two in zip(next_tokens(rows, draws), next_tokens(rounded, draws), strict=True)]
    assert sum(differ) <= 1


def test_noise_is_the_same_everywhere():
    """On every device and for every batch: 32 bits by MurmurHash3's finalizer, here with Python's numbers."""

    def mixed(bits: int, shift: int, factor: int) -> int:
        return (bits ^ bits >> shift) * factor % 2**32

    def seconds(token: int, key: int) -> float:
        bits = token * 0x9E3779B1 % 2**32 ^ key % 2**32
        bits = mixed(mixed(mixed(bits, 16, 0x85EBCA6B), 13, 0xC2B2AE35), 16, 1)
        bits = mixed(bits ^ key >> 32, 16, 0x85EBCA6B) % 2**31
        return -math.log1p(-(bits + 0.5) / 2**31)

    ids, keys = [0, 1, 7, 49_151, 250_000], [0, 1, 2**64 - 1, *KEYS[:20]]
    exact = torch.tensor([[seconds(token, key) for token in ids] for key in keys])
    torch.testing.assert_close(waiting_times(torch.tensor([ids]), keys), exact, rtol=1e-4, atol=1e-6)


def test_greedy_rows_are_the_exact_maximum():
    rows = logits(8)
    draws = [Draw(0.0, 5, 0.5, 9)] * 8
    assert next_tokens(rows, draws) == rows.argmax(-1).tolist()


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 4 * ARGMAX_BLOCK])
def test_the_maximum_is_the_first_of_equals_and_never_a_number_that_is_none(vocabulary):
    rows = torch.randn(5, vocabulary).clamp(max=2.0)
    rows[0, 7] = rows[0, vocabulary - 1] = 9.0
    rows[1] = 0.0
    rows[2, 11], rows[3], rows[4, 3] = math.nan, -math.inf, math.inf
    tokens = next_tokens(rows, [Draw(0.0, 0, 1.0, 0)] * 5)
    assert tokens == [7, 0, NOT_FINITE, NOT_FINITE, NOT_FINITE]


@pytest.mark.parametrize(
    "draw",
    [Draw(1.0, 1, 1.0, 999), Draw(1.0, 0, 1e-9, 999), Draw(1e-300, 0, 1.0, 999), Draw(1.0, 0, 1.0, 999, 1.0)],
)
def test_the_narrowest_draw_is_greedy(draw):
    rows = logits(4)
    assert next_tokens(rows, [draw] * 4) == rows.argmax(-1).tolist()


def test_a_row_does_not_depend_on_the_others():
    rows = logits(len(PARAMETERS) + 1)
    draws = [Draw(t, k, p, draw_key(7, index), min_p) for index, (t, k, p, min_p) in enumerate(PARAMETERS)]
    draws.append(Draw(0.0, 0, 1.0, 0))
    alone = [next_tokens(rows[index : index + 1], [draw])[0] for index, draw in enumerate(draws)]
    assert next_tokens(rows, draws) == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_finite_are_marked_and_leave_the_others_alone(temperature):
    rows = logits(4)
    rows[0, 3], rows[1], rows[2, 5] = math.nan, -math.inf, math.inf
    rows[3, 9] = -math.inf
    draws = [Draw(temperature, 0, 1.0, 5)] * 4
    tokens = next_tokens(rows, draws)
    assert tokens[:3] == [NOT_FINITE] * 3
    assert tokens[3] == next_tokens(rows[3:], draws[:1])[0] != NOT_FINITE


@pytest.mark.parametrize("vocabulary", [VOCABULARY, 4 * ARGMAX_BLOCK])
def test_no_rows_give_no_tokens(vocabulary):
    assert next_tokens(torch.empty(0, vocabulary), []) == []


def test_keys_are_spread_and_repeatable():
    keys = [draw_key(seed, index) for seed in range(50) for index in range(200)]
    assert all(0 <= key < 2**64 for key in keys)
    assert len(set(keys)) == len(keys)
    assert draw_key(2**63 - 1, 10**6) == draw_key(2**63 - 1, 10**6)
    times = waiting_times(torch.arange(VOCABULARY)[None], keys)
    assert 0 < float(times.min()) < float(times.max()) < math.inf
    assert abs(float(times.mean()) - 1) < 0.01
