"""Of several scalers one leads: it alone decides, starts workers and reaps; the others wait to take over."""

from __future__ import annotations

import logging
import os
import secrets
import socket

from promptq.contract.errors import RedisUnavailable
from promptq.contract.settings import ScalerSettings
from promptq.queue.leases import hold, holder, let_go
from promptq.queue.store import JobStore
from promptq.runtime.process_identity import has_ended, this_process

log = logging.getLogger(__name__)

LEASE = "scaler"
ROUNDS_PER_LEASE = 3
_SEPARATOR = "|"


class Leadership:
    """The lease of the scaler that leads, renewed once a round by the thread that decides: one that hangs loses it.

    Attributes:
        name: of this scaler, for people.
        leads: whether it led at the last renewal.
    """

    def __init__(self, store: JobStore, settings: ScalerSettings) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.leads = False
        self._store = store
        self._seconds = max(store.settings.lease_seconds, ROUNDS_PER_LEASE * settings.tick_seconds)
        self._token = _SEPARATOR.join((self.name, this_process(), secrets.token_hex(8)))
        self._waits_for = ""

    def renew(self) -> bool:
        """Whether this scaler leads until its lease ends.

        Raises:
            RedisUnavailable: it is not known; nothing can be decided either.
        """
        self.leads = hold(self._store, LEASE, self._token, self._seconds)
        if not self.leads:
            self._look_at_leader()
        return self.leads

    def resign(self) -> None:
        """Let another one lead at once."""
        try:
            if self.leads:
                let_go(self._store, LEASE, self._token)
        except RedisUnavailable:
            log.info("The lead ends by itself.")
        self.leads = False

    def _look_at_leader(self) -> None:
        """The lease of one of this machine that has ended without a word is not waited for: the next round has it."""
        token = holder(self._store, LEASE)
        name, _, rest = token.partition(_SEPARATOR)
        if has_ended(rest.partition(_SEPARATOR)[0]):
            let_go(self._store, LEASE, token)
        elif name != self._waits_for:
            self._waits_for = name
            log.info("Scaler %s leads; this one waits.", name)
