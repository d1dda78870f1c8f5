"""How long steps take, by what they compute: what the scheduler weighs prompts and drafts with. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class StepCost:
    """What was measured of a device.

    Attributes:
        prefill_tokens: the most prompt tokens of one step, over all rows. More gain little. A longer prompt is
            computed in chunks, so that the rows already running wait for no more than this.
        beside: beside n running rows, if no more wait, a step takes n + beside prompt tokens at most: then it takes
            about twice as long as without. None: prefill_tokens always.
        free_tokens: tokens that a step computes in about the time of one. 0: rows guess no tokens ahead.
        double_tokens: so many more, and a step takes twice as long.
        bucket: a step with prompts is to have a multiple of so many tokens.
        overlap_gain: how many times faster steps follow one another where each is submitted before the host has read
            the one before. Guessing ahead rules that out, so it must gain more than this. 1: no step is.
    """

    prefill_tokens: int
    beside: int | None = None
    free_tokens: int = 0
    double_tokens: int = 1
    bucket: int = 1
    overlap_gain: float = 1.0

    def limited(self, prefill_tokens: int = 0, *, drafts: bool = True) -> StepCost:
        """The same, with what the settings say of it; `prefill_tokens` 0 says nothing."""
        cost = replace(self, prefill_tokens=prefill_tokens, beside=None) if prefill_tokens else self
        return cost if drafts else replace(cost, free_tokens=0)


# Measured on two cores (Zen 3), a small model in float32. The bucket is for oneDNN, which makes a kernel of 0.6 MB or
# more for each product and number of tokens, and keeps it; prompts would otherwise have all numbers.
CPU = StepCost(prefill_tokens=512, beside=20, free_tokens=6, double_tokens=18, bucket=16)
_AVX2 = StepCost(prefill_tokens=512, beside=12, free_tokens=12, double_tokens=24)
# Measured on two cores (Cascade Lake): twice the arithmetic, on memory that is no faster.
_AVX512 = StepCost(prefill_tokens=512, beside=16, free_tokens=16, double_tokens=30)
# With our kernels, by what they are compiled for. That of NEON is a guess.
CPU_KERNELS = {"avx2": _AVX2, "avx512": _AVX512, "neon": _AVX2}
# A guess that no GPU has confirmed; `make bench-gpu` prints what these numbers are on a card.
CUDA = StepCost(prefill_tokens=2048, free_tokens=32, double_tokens=96, bucket=16)
# Guesses too.
CUDA_GRAPHS = StepCost(prefill_tokens=2048, free_tokens=32, double_tokens=96, overlap_gain=1.3)
