"""Renews the leases of this dispatcher in a thread of its own, however long a round takes."""

from __future__ import annotations

import logging
import secrets
import threading

from promptq.contract.errors import RedisUnavailable
from promptq.queue.leases import hold, let_go
from promptq.queue.store import JobStore

log = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


class LeaseKeeper:
    """Takes leases, keeps them, and gives them up. Each has a token of its own, also where it is taken once more: what
    still goes on under an earlier one is fenced off.

    Whether a lease is held is only what was true at the last renewal: what must not happen twice is fenced by the
    token where it is written.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._held: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)
        self._thread.start()

    def take(self, what: str) -> str:
        """Take a lease; gives its token. Empty: another holds it.

        Raises:
            RedisUnavailable: it is not known who holds it.
        """
        token = secrets.token_hex(8)
        if not hold(self._store, what, token):
            return ""
        with self._lock:
            self._held[what] = token
        return token

    def holds(self, what: str, token: str) -> bool:
        """Whether the lease was held under this token at its last renewal."""
        with self._lock:
            return self._held.get(what) == token

    def give_up(self, what: str) -> None:
        """Let others have it."""
        with self._lock:
            token = self._held.pop(what, "")
        try:
            if token:
                let_go(self._store, what, token)
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
            held = dict(self._held)
        for what, token in held.items():
            if not hold(self._store, what, token):
                log.warning("Another dispatcher has taken %s over.", what)
                with self._lock:
                    self._held.pop(what, None)
            elif not self.holds(what, token):  # given up meanwhile, and just taken again
                let_go(self._store, what, token)

    def _keep(self) -> None:
        while not self._closed.wait(self._store.settings.lease_seconds / RENEWALS_PER_LEASE):
            try:
                self.renew()
            except RedisUnavailable as error:
                log.warning("Leases were not renewed: %s", error)
            except Exception:
                log.exception("Leases were not renewed; the next round goes on.")
