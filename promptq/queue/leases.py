"""Leases in Redis: of several processes one does a piece of work, and writes nothing once another has taken it over."""

from __future__ import annotations

from promptq.queue.connection import answering
from promptq.queue.store import JobStore


def hold(store: JobStore, what: str, token: str) -> bool:
    """Take a lease, or renew one's own, for `lease_seconds`. False: another holds it.

    Args:
        what: the piece of work, such as `batch:{id}`.
        token: of the holder, and of nobody else.

    Raises:
        RedisUnavailable: it is not known who holds it.
    """
    return bool(store.scripts.run("lease", [what, token, store.settings.lease_seconds]) == 1)


def holds(store: JobStore, what: str, token: str) -> bool:
    """Whether a lease is held now, under this token.

    Raises:
        RedisUnavailable: it is not known who holds it.
    """
    with answering():
        return bool(store.client.get(store.keys.lease(what)) == token.encode())


def let_go(store: JobStore, what: str, token: str) -> None:
    """Give up a lease at once, so that others need not wait for its end.

    Raises:
        RedisUnavailable: it ends by itself.
    """
    store.scripts.run("lease", [what, token, 0.001])
