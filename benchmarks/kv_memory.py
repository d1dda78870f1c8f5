"""KV memory: slots beside spans, on a recorded mix of prompt and text lengths.

`python -m benchmarks.kv_memory` replays a mix through the scheduler and its allocators alone, without a model, with
more rows waiting than fit: how much of the tokens that rows hold is in use, and how many rows that lets run. Then a
process of each layout takes the memory of 64 rows of 8,192 tokens, of the shape of SmolLM2-135M, and writes what the
rows of the same mix would: how much is reserved, and how much of it becomes resident.

A mix is drawn (by default after the medians that Patel et al. 2024, https://arxiv.org/abs/2311.18677, give of a
conversation service), or read from a file in the form of the Azure LLM inference traces (`--trace`). Neither says what
`max_tokens` clients ask for, so that is an assumption that is named: `--limit double` (the next power of two from
twice what they get), `power` (from what they get), or a number for all.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from gpu_worker.engines.base import Row
from gpu_worker.engines.continuous.scheduler.room import Room, SlotRoom
from gpu_worker.engines.continuous.scheduler.scheduler import Scheduler
from gpu_worker.engines.continuous.scheduler.sequence import SequenceState
from gpu_worker.engines.continuous.scheduler.spans import Spans
from gpu_worker.engines.continuous.scheduler.step_cost import CPU_KERNELS, CUDA, StepCost
from promptq.contract.request import GenerateRequest

CONTEXT = 8192
# Slots of 8,192 tokens that an 8B model in 16 bits leaves room for on 80 GB.
SLOTS_OF_8B = 57
MOST_ROWS = 256
REQUEST = GenerateRequest(prompt="-")
# Key heads, size and layers of SmolLM2-135M, in float32.
HEADS, SIZE, LAYERS = 3, 64, 30
MEASURED_LAYERS = 1


@dataclass(frozen=True, slots=True)
class Lengths:
    """One request: prompt tokens, tokens that it gets, and the most that it asks for."""

    prompt: int
    text: int
    limit: int


@dataclass(slots=True)
class Shares:
    """Means over the steps of a replay in which rows waited."""

    used: list[float] = field(default_factory=list)
    reserved: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    steps: int = 0
    moved: int = 0


def drawn(count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Prompt and text lengths of a conversation service: medians 1,020 and 129."""
    rng = random.Random(seed)
    for _ in range(count):
        yield int(rng.lognormvariate(6.93, 0.9)) + 1, int(rng.lognormvariate(4.86, 0.9)) + 1


def recorded(path: Path) -> Iterator[tuple[int, int]]:
    """The lengths in a trace, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield int(line["ContextTokens"]), int(line["GeneratedTokens"])


def requests(pairs: Iterable[tuple[int, int]], limit: str) -> list[Lengths]:
    """Those that fit into the context, with what they ask for."""
    found = []
    for prompt, text in pairs:
        prompt, text = max(1, prompt), max(1, text)
        asked = _power(2 * text) if limit == "double" else _power(text) if limit == "power" else int(limit)
        text = min(text, asked)
        if prompt + text <= CONTEXT:
            found.append(Lengths(prompt, text, min(asked, CONTEXT - prompt)))
    return found


def _power(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())


Touch = Callable[[SequenceState], None]


class Replay:
    """Rows through a scheduler, as an engine would move them, with a queue that never runs dry."""

    def __init__(self, room: Room, slots: int, cost: StepCost, touch: Touch = lambda _row: None) -> None:
        self._scheduler = Scheduler(slots, replace(cost, free_tokens=0), room=room, reuse=False)
        self._room, self._touch = room, touch
        self._left: dict[SequenceState, int] = {}
        self.shares = Shares()

    def run(self, lengths: list[Lengths]) -> Shares:
        """All of them, in order."""
        waiting = list(reversed(lengths))
        while waiting or self._scheduler.live:
            for _ in range(min(self._scheduler.free_slots(), len(waiting))):
                self._add(waiting.pop(), len(waiting))
            self._step()
            if waiting:
                self._note()
        return self.shares

    def _add(self, one: Lengths, index: int) -> None:
        row = SequenceState(Row(str(index), REQUEST, queued_at=-index), [0] * one.prompt, one.limit)
        self._left[row] = one.text
        self._scheduler.add(row)

    def _step(self) -> None:
        self.shares.steps += 1
        for move in self._scheduler.plan_moves():
            self._scheduler.moved(move)
            self._touch(move.sequence)
            self.shares.moved += move.sequence.computed
        for chunk in self._scheduler.plan().chunks:
            row = chunk.sequence
            row.computed = chunk.stop - len(chunk.drafts)
            if row.is_prefilled:
                row.generated += 1
                self._left[row] -= 1
                if not self._left[row]:
                    self._touch(row)
                    self._scheduler.remove(row)

    def _note(self) -> None:
        running = [row for row in self._scheduler.live if row.slot is not None]
        self.shares.rows.append(len(running))
        self.shares.used.append(self._scheduler.kv_tokens.used / max(1, self._room.reserved))
        self.shares.reserved.append(self._room.reserved / self._room.tokens)


def replay(name: str, room: Room, slots: int, lengths: list[Lengths]) -> dict[str, Any]:
    """One layout's shares, as a line of the table."""
    shares = Replay(room, slots, CUDA).run(lengths)
    line = {
        "layout": name,
        "rows": _mean(shares.rows),
        "in use of reserved": _mean(shares.used),
        "reserved of all": _mean(shares.reserved),
        "steps": shares.steps,
        "moved of computed": shares.moved / sum(one.prompt + one.text for one in lengths),
    }
    shown = (f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items())
    print("  ".join(shown))
    return line


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / max(1, len(values))


def resident(layout: str, lengths: list[Lengths], rows: int) -> tuple[int, int]:
    """Bytes reserved, and bytes resident after the mix, of a process with as many layers as are measured."""
    import torch

    from gpu_worker.engines.continuous.kvcache.base import LayerShape
    from gpu_worker.engines.continuous.kvcache.slots import SlotCache
    from gpu_worker.engines.continuous.kvcache.spans import SpanCache

    shapes, device = [LayerShape((HEADS, SIZE), (HEADS, SIZE), torch.float32)] * MEASURED_LAYERS, torch.device("cpu")
    cache: SlotCache | SpanCache
    room: Room
    if layout == "slots":
        cache, room = SlotCache(shapes, rows, CONTEXT, device), SlotRoom(rows, CONTEXT)
    else:
        cache = SpanCache(shapes, rows, CONTEXT, rows * CONTEXT, device)
        room = Spans(rows * CONTEXT, CONTEXT)

    def touch(row: SequenceState) -> None:
        assert row.slot is not None
        for layer in range(MEASURED_LAYERS):
            for states in cache.read(layer, row.slot, 1, row.computed):
                states.fill_(1.0)

    before = psutil.Process().memory_info().rss
    Replay(room, rows, CPU_KERNELS, touch).run(lengths)
    return cache.bytes, psutil.Process().memory_info().rss - before


def _measured(arguments: tuple[str, list[Lengths], int]) -> tuple[int, int]:
    return resident(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="a CSV with ContextTokens and GeneratedTokens")
    parser.add_argument("--limit", default="double", help="double, power or a number")
    parser.add_argument("--count", type=int, default=2000, help="requests of the mix")
    parser.add_argument("--rows", type=int, default=64, help="rows whose resident memory is measured; 0: none")
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    given = parser.parse_args()
    pairs = list(recorded(given.trace))[: given.count] if given.trace else list(drawn(given.count, seed=1))
    lengths = requests(pairs, given.limit)
    print(f"{len(lengths)} requests, max_tokens: {given.limit}; {SLOTS_OF_8B * CONTEXT} tokens of memory")
    lines = [
        replay("slots", SlotRoom(SLOTS_OF_8B, CONTEXT), SLOTS_OF_8B, lengths),
        replay("spans", Spans(SLOTS_OF_8B * CONTEXT, CONTEXT), MOST_ROWS, lengths),
    ]
    for layout in ("slots", "spans") if given.rows else ():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            reserved, touched = pool.map(_measured, [(layout, lengths, given.rows)])[0]
        scale = LAYERS / MEASURED_LAYERS / 2**30
        line = {"layout": layout, "reserved GiB": reserved * scale, "resident GiB": touched * scale}
        lines.append(line)
        print(f"{layout}: {given.rows} rows of {CONTEXT}: reserved {line['reserved GiB']:.1f} GiB, "
              f"resident {line['resident GiB']:.2f} GiB ({MEASURED_LAYERS} of {LAYERS} layers measured)")  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
