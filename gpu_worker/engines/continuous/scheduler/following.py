"""Which step may follow one whose tokens are not known yet, so that a device need not wait for the host between them.

The device knows the tokens: it goes on with the likeliest of each row. So a step may follow where nothing but the
tokens' ids depends on them. A row that turns out to have ended by then has computed one token too many, which nobody
reads. No torch here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gpu_worker.engines.continuous.scheduler.sequence import Chunk, SequenceState


def following(chunks: Sequence[Chunk], live: Collection[SequenceState]) -> list[Chunk]:
    """The step behind the one of these chunks, by slot; empty: it cannot be said yet.

    It cannot where a row needs its token on the host to choose the next one (`is_plain`), guessed ahead, goes on with
    its prompt, or has no chunk: it waits for its turn, or for what its text must fit. Rows whose last token this step
    chooses are left out.

    Args:
        live: rows that have not ended, and are not kept out for want of memory: a step that follows frees none.
    """
    rows = {chunk.sequence: chunk for chunk in chunks if chunk.sequence in live}
    if len(rows) < len(live) or not all(row.is_plain and chunk.gives == 1 for row, chunk in rows.items()):
        return []
    going_on = [(row, chunk.stop) for row, chunk in rows.items() if row.generated + 1 < row.limit]
    return sorted((Chunk(row, stop, stop + 1) for row, stop in going_on), key=lambda chunk: chunk.slot)
