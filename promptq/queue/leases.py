"""Leases in Redis: of several processes one does a piece of work, and writes nothing once another has taken it over."""

from __future__ import annotations

from typing import Any

from promptq.queue.connection import answering
from promptq.queue.store import JobStore


def hold(store: JobStore, what: str, token: str, seconds: float = 0) -> bool:
    """Take a lease, or renew one's own. False: another holds it.

    Args:
        what: the piece of work, such as `batch:{id}`.
        token: of the holder, and of nobody else.
        seconds: for how long; 0: `lease_seconds`.

    Raises:
        RedisUnavailable: it is not known who holds it.
    """
    return bool(store.scripts.run("lease", [what, token, seconds or store.settings.lease_seconds]) == 1)


def holds(store: JobStore, what: str, token: str) -> bool:
    """Whether a lease is held now, under this token.

    Raises:
        RedisUnavailable: it is not known who holds it.
    """
    return holder(store, what) == token


def holder(store: JobStore, what: str) -> str:
    """The token under which a lease is held now; empty: nobody holds it.

    Raises:
        RedisUnavailable: it is not known.
    """
    with answering():
        found: Any = store.client.get(store.keys.lease(what))
    return found.decode() if found else ""


def let_go(store: JobStore, what: str, token: str) -> None:
    """Give up a lease at once, so that others need not wait for its end.

    Raises:
        RedisUnavailable: it ends by itself.
    """
    store.scripts.run("lease", [what, token, 0])
