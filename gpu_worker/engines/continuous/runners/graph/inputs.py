"""What a step's pass is given, first as numbers on the host, then as tensors on the device. One copy carries all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """One step's numbers. Vectors are those of key head 0, see `kvcache/places`.

    Attributes:
        ids: of each token, as far as the host knows it, [tokens].
        sources: where each token's id is: in the tokens that the step before chose, and behind those in `ids`.
        positions: of each token in its row.
        places: the vector that each token's key and value go to.
        first_queries, starts, lengths: see `attention.QueryRows`.
        kept: indices of the tokens that another one follows from.
    """

    ids: list[int]
    sources: list[int]
    positions: list[int]
    places: list[int]
    first_queries: list[int]
    starts: list[int]
    lengths: list[int]
    kept: list[int]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each list has."""
        return tuple(len(getattr(self, each.name)) for each in fields(self))

    def line(self, *, pinned: bool) -> Tensor:
        """All of them behind one another, on the host; pinned memory is copied to a device beside other work."""
        numbers = [number for each in fields(self) for number in getattr(self, each.name)]
        return torch.tensor(numbers, dtype=torch.int32, pin_memory=pinned)


@dataclass(frozen=True, slots=True)
class StepTensors:
    """The same on the device, int32."""

    ids: Tensor
    sources: Tensor
    positions: Tensor
    places: Tensor
    first_queries: Tensor
    starts: Tensor
    lengths: Tensor
    kept: Tensor

    @classmethod
    def of(cls, line: Tensor, sizes: Sequence[int]) -> StepTensors:
        """Views of the line."""
        return cls(*(line[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))))


def running_sizes(tokens: int) -> tuple[int, ...]:
    """The sizes of a step of so many tokens, each of which is a row of queries and gives a token."""
    return (tokens, tokens, tokens, tokens, tokens + 1, tokens + 1, tokens, tokens)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens [first, stop) of a row, which are one row of queries."""

    ids: list[int]
    source: int | None
    start: int
    first: int
    stop: int
    gives: int


class InputLayout:
    """Lays steps out for one cache.

    Args:
        start: the vector of a slot's first column.
        spare: a vector that no row reads, for what is padding.
        chosen: how many tokens of the step before are kept on the device.
    """

    def __init__(self, start: Callable[[int], int], spare: int, chosen: int) -> None:
        self._start, self._spare, self._chosen = start, spare, chosen

    def running(
        self, chunks: Sequence[Chunk], before: Mapping[SequenceState, int], bucket: int | None = None
    ) -> StepNumbers:
        """A step of running rows: each token, drafts too, is a row of queries by itself, and gives a token.

        Args:
            before: which of the tokens that the step before chose is a row's newest one, for rows of which the host
                does not know it yet.
            bucket: padding makes up for so many tokens; None: there is none.
        """
        pieces = [piece for chunk in chunks for piece in self._single_tokens(chunk, before)]
        padding = (bucket or len(pieces)) - len(pieces)
        pieces += [_Piece([0], None, self._spare, 0, 1, 1)] * padding
        return self._numbers(pieces)

    def mixed(self, chunks: Sequence[Chunk], before: Mapping[SequenceState, int]) -> StepNumbers:
        """Any step: each chunk is a row of queries. `before` as in `running`."""
        return self._numbers(
            [
                _Piece(
                    chunk.tokens,
                    before.get(chunk.sequence),
                    self._start(chunk.slot),
                    chunk.start,
                    chunk.stop,
                    chunk.gives,
                )
                for chunk in chunks
            ]
        )

    def _single_tokens(self, chunk: Chunk, before: Mapping[SequenceState, int]) -> Iterator[_Piece]:
        start = self._start(chunk.slot)
        for position, id in enumerate(chunk.tokens, chunk.start):
            yield _Piece([id], before.get(chunk.sequence), start, position, position + 1, 1)

    def _numbers(self, pieces: Sequence[_Piece]) -> StepNumbers:
        ids = [id for piece in pieces for id in piece.ids]
        positions = [position for piece in pieces for position in range(piece.first, piece.stop)]
        ends = list(accumulate(len(piece.ids) for piece in pieces))
        return StepNumbers(
            ids,
            list(self._sources(pieces)),
            positions,
            [piece.start + position for piece in pieces for position in range(piece.first, piece.stop)],
            [0, *ends],
            [*(piece.start for piece in pieces), 0],
            [piece.stop for piece in pieces],
            [at for piece, end in zip(pieces, ends, strict=True) for at in range(end - piece.gives, end)],
        )

    def _sources(self, pieces: Sequence[_Piece]) -> Iterator[int]:
        at = self._chosen
        for piece in pieces:
            yield from range(at, at + len(piece.ids)) if piece.source is None else [piece.source]
            at += len(piece.ids)
