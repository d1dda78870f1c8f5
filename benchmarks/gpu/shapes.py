"""The shapes of models that are measured, and the arithmetic of what a step must take at least. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's.

    Attributes:
        is_short: it has the name of a larger shape, and is for trying the script out.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    is_short: bool = False

    @property
    def read_weights(self) -> int:
        """Weights that each step reads: all but the embedding, of which it reads a line for each token."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """All that lie in memory; the head is not tied to the embedding."""
        return self.read_weights + self.vocabulary * self.hidden

    @property
    def token_numbers(self) -> int:
        """Numbers that are kept of each token: its keys and values in all layers."""
        return 2 * self.layers * self.key_heads * self.head_size


# SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B.
FULL = (
    Shape("135M", 30, 576, 9, 3, 64, 1536, 49_152),
    Shape("1B", 16, 2048, 32, 8, 64, 8192, 128_256),
    Shape("8B", 32, 4096, 32, 8, 128, 14_336, 128_256),
)
SHORT = (
    Shape("135M", 3, 48, 3, 1, 16, 96, 1024, is_short=True),
    Shape("1B", 2, 64, 4, 2, 16, 128, 1024, is_short=True),
    Shape("8B", 4, 64, 4, 2, 16, 128, 1024, is_short=True),
)


def shape_named(name: str, short: bool) -> Shape:
    """The shape of this name, or the tiny one that stands for it."""
    return next(shape for shape in (SHORT if short else FULL) if shape.name == name)


def step_bytes(shape: Shape, lengths: Sequence[int], number_bytes: int) -> int:
    """What a step reads at least, of rows that are so long: each weight once, and all keys and values."""
    return (shape.read_weights + shape.token_numbers * sum(lengths)) * number_bytes


def floor_seconds(shape: Shape, lengths: Sequence[int], number_bytes: int, bandwidth: float) -> float:
    """How long a step takes at least, at so many bytes a second.

    Weights and keys are read once and little is written, so the bandwidth is that of a copy, read and written bytes
    counted. Arithmetic is left out: up to a few hundred rows it takes less time than reading.
    """
    return step_bytes(shape, lengths, number_bytes) / bandwidth


# What a layer takes beside what it reads: about ten kernels of a recorded graph, of 3 µs each at the least, and what
# norms, rotary positions and activations of one more row take.
LAYER_SECONDS = 30e-6
LAYER_ROW_SECONDS = 0.08e-6


def estimate_seconds(shape: Shape, lengths: Sequence[int], number_bytes: int, bandwidth: float) -> float:
    """How long a step is expected to take with CUDA graphs and flash attention: arithmetic, not a measurement."""
    beside = shape.layers * (LAYER_SECONDS + LAYER_ROW_SECONDS * len(lengths))
    return floor_seconds(shape, lengths, number_bytes, bandwidth) + beside
