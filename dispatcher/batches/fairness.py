"""Whose line is next: first between API keys, then between the batches of one. Pure."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many jobs of a batch wait or run."""

    batch: str
    owner: str
    jobs: int


class FairOrder:
    """Gives the next batch again and again: of the owner that has the fewest jobs under way, the batch that has.

    So whoever comes late, or with little, is not behind all of those who came before. Who asks says each time what
    became of the batch: `served`, or `drop` where it has nothing to submit now.
    """

    def __init__(self, occupancies: Iterable[Occupancy]) -> None:
        self._owners: Counter[str] = Counter()
        self._batches: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for place, one in enumerate(occupancies):
            self._owners[one.owner] += one.jobs
            heapq.heappush(self._batches[one.owner], (one.jobs, place, one.batch))
        self._heap = [(jobs, owner) for owner, jobs in self._owners.items()]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[str]:
        """The batch that is next, until all were dropped."""
        while self._heap:
            yield self._batches[self._heap[0][1]][0][2]

    def served(self, jobs: int) -> None:
        """The batch that was given last has submitted so many jobs."""
        total, owner = self._heap[0]
        own, place, batch = self._batches[owner][0]
        heapq.heapreplace(self._batches[owner], (own + jobs, place, batch))
        heapq.heapreplace(self._heap, (total + jobs, owner))

    def drop(self) -> None:
        """The batch that was given last can submit nothing now."""
        owner = self._heap[0][1]
        heapq.heappop(self._batches[owner])
        if not self._batches[owner]:
            heapq.heappop(self._heap)
