"""How often each token of a row was generated."""

from __future__ import annotations

import random
from collections import Counter

from gpu_worker.engines.continuous.scheduler.token_counts import TokenCounts


def counted(counts: TokenCounts) -> dict[int, int]:
    assert len(counts.ids) == len(counts.counts)
    return dict(zip(counts.ids, counts.counts, strict=True))


def test_prompt_tokens_count_nothing_until_they_are_generated() -> None:
    counts = TokenCounts(100, [5, 7, 5])
    assert counted(counts) == {5: 0, 7: 0}
    counts.add([7, 9, 7])
    assert counted(counts) == {5: 0, 7: 2, 9: 1}


def test_tokens_behind_drafts_leave_the_row_as_it_is() -> None:
    counts = TokenCounts(100, [5])
    counts.add([6])
    assert counted(counts.behind([6, 8])) == {5: 0, 6: 2, 8: 1}
    assert counted(counts) == {5: 0, 6: 1}
    counts.add([8])
    assert counted(counts) == {5: 0, 6: 1, 8: 1}
    assert counts.behind(()) is counts


def test_tokens_that_the_logits_do_not_have_are_left_out() -> None:
    counts = TokenCounts(10, [10, 3])
    counts.add([11, 4, 11, 3])
    assert counted(counts) == {3: 1, 4: 1}


def test_any_text_is_counted_however_it_comes() -> None:
    rng = random.Random(2)
    for _ in range(50):
        text = [rng.randrange(12) for _ in range(rng.randrange(40))]
        counts, rest = TokenCounts(10), list(text)
        while rest:
            count = rng.randint(1, 5)
            counts.add(rest[:count])
            del rest[:count]
        assert counted(counts) == Counter(token for token in text if token < 10)
