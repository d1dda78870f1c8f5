"""What running jobs have generated so far, kept so that whoever runs them next goes on there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic_core import to_json

from promptq.contract.job import Status, read_status
from promptq.contract.logprobs import TokenLogprob, read_logprobs
from promptq.queue.records import Claim
from promptq.queue.store import JobStore

LIFE_SECONDS = 86_400
"""A bound for the progress of a job whose own key is lost; no run may take longer."""


@dataclass(frozen=True, slots=True)
class Append:
    """What a claimed job has generated since it was last kept.

    Attributes:
        before: how many tokens came before these.
        text: what these tokens added to the text that can no longer change.
        logprobs: one for each token, where the request asks for them.
    """

    claim: Claim
    before: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()

    def arguments(self, rq_queue: str) -> list[str]:
        """The append script's values for one job."""
        claim, after = self.claim, self.before + len(self.token_ids)
        ids = " ".join(map(str, self.token_ids))
        logprobs = to_json(self.logprobs).decode() if self.logprobs else ""
        return [rq_queue, claim.id, claim.execution, str(self.before), str(after), ids, self.text, logprobs]


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader of a job's text has come: `source`, the job whose entries it read, and `last`, the last one."""

    job_id: str
    source: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """What a reader finds.

    Attributes:
        status: None: the job is there no more.
        resets: how often the job started over.
        source: the job whose entries these are: the one that this one joined, or itself.
        entries: (id, text) in order.
        before: tokens that came before the first of these.
        logprobs: of the tokens of these entries, where the request asks for them.
    """

    status: Status | None
    resets: int
    source: str
    entries: list[tuple[str, str]]
    before: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()

    def goes_on_behind(self, last: str) -> bool:
        """Whether nothing is missing after the entry that was read last; a server may have lost what it had."""
        return not self.entries or self.before == int(last.partition("-")[2] or 0)


def follow(store: JobStore, places: Sequence[Place], *, watch: bool) -> list[Followed]:
    """What jobs have generated since, in one round trip.

    Args:
        watch: have their workers tell at every step from now on, not only at checkpoints.
    """
    if not places:
        return []
    values = chain.from_iterable((place.job_id, place.source, place.last) for place in places)
    return [_followed(row) for row in store.scripts.run("follow", ["1" if watch else "", *values])]


def _followed(row: Sequence[Any]) -> Followed:
    status, error_type, resets, source, before, flat = row
    values = [value.decode() for value in flat]
    entries = list(zip(values[::3], values[1::3], strict=True))
    known = read_status(status.decode(), error_type.decode()) if status else None
    return Followed(known, resets, source.decode(), entries, before, read_logprobs(values[2::3]))


def append(store: JobStore, identity: str, appends: Sequence[Append]) -> list[str]:
    """Keep what running jobs have generated. Tells for each `ok`, `watched`, `lost` (the claim), or `failed`.

    Args:
        identity: of the model that generates it: only one like it goes on with these tokens.

    Raises:
        RedisUnavailable: as the store does; the same once more adds nothing twice.
    """
    if not appends:
        return []
    rows = chain.from_iterable(one.arguments(one.claim.queue.rq_name(store.settings.default_model)) for one in appends)
    return [reply.decode() for reply in store.scripts.run("append", [identity, LIFE_SECONDS, *rows])]
