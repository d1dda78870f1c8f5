"""Renews the leases of this dispatcher in a thread of its own, however long a round takes."""

from __future__ import annotations

import logging
import threading

from promptq.contract.errors import RedisUnavailable
from promptq.queue.leases import hold, let_go
from promptq.queue.store import JobStore

log = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


class LeaseKeeper:
    """Takes leases, keeps them, and gives them up. Its token is this process's alone.

    Whether a lease is held is only what was true at the last renewal: what must not happen twice is fenced by the
    token where it is written.
    """

    def __init__(self, store: JobStore, token: str) -> None:
        self.token = token
        self._store = store
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
        self._thread.start()

    def take(self, what: str) -> bool:
        """Take a lease. False: another holds it.

        Raises:
            RedisUnavailable: it is not known who holds it.
        """
        if not hold(self._store, what, self.token):
            return False
        with self._lock:
            self._held.add(what)
        return True

    def holds(self, what: str) -> bool:
        """Whether the lease was held at its last renewal."""
        with self._lock:
            return what in self._held

    def give_up(self, what: str) -> None:
        """Let others have it."""
        with self._lock:
            self._held.discard(what)
        try:
            let_go(self._store, what, self.token)
        except RedisUnavailable:
            log.info("The lease of %s ends by itself.", what)

    def close(self) -> None:
        """Give up all."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            held = list(self._held)
        for what in held:
            self.give_up(what)

    def renew(self) -> None:
        """Renew all; one that another has taken is held no more.

        Raises:
            RedisUnavailable: some were not renewed.
        """
        with self._lock:
            held = list(self._held)
        for what in held:
            if not hold(self._store, what, self.token):
                log.warning("Another dispatcher has taken %s over.", what)
                with self._lock:
                    self._held.discard(what)

    def _keep(self) -> None:
        while not self._closed.wait(self._store.settings.lease_seconds / RENEWALS_PER_LEASE):
            try:
                self.renew()
            except RedisUnavailable as error:
                log.warning("Leases were not renewed: %s", error)
            except Exception:
                log.exception("Leases were not renewed; the next round goes on.")
