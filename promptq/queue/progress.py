"""What running jobs have generated so far, kept so that whoever runs them next goes on there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

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
    """

    claim: Claim
    before: int
    token_ids: tuple[int, ...]
    text: str

    def arguments(self, rq_queue: str) -> list[str]:
        """The append script's values for one job."""
        claim, after = self.claim, self.before + len(self.token_ids)
        ids = " ".join(map(str, self.token_ids))
        return [rq_queue, claim.id, claim.execution, str(self.before), str(after), ids, self.text]


def append(store: JobStore, identity: str, appends: Sequence[Append]) -> list[str]:
    """Keep what running jobs have generated. Tells for each `ok`, `lost` (the claim), or `failed`.

    Args:
        identity: of the model that generates it: only one like it goes on with these tokens.

    Raises:
        RedisUnavailable: as the store does; the same once more adds nothing twice.
    """
    if not appends:
        return []
    rows = chain.from_iterable(one.arguments(one.claim.queue.rq_name(store.settings.model_id)) for one in appends)
    return [reply.decode() for reply in store.scripts.run("append", [identity, LIFE_SECONDS, *rows])]
