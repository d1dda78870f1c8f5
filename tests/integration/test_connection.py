"""How requests leave for Redis, on a server's other end of the line."""

from __future__ import annotations

import pytest

from promptq.queue import connection
from promptq.queue.store import JobStore


def test_a_pipeline_leaves_in_one_piece_and_a_fresh_connection_is_not_looked_at(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these is a call to the kernel at which another thread may take the interpreter for milliseconds."""
    store.ping()
    pool = store.client.connection_pool
    kind = pool.connection_class.__mro__[2]  # redis's own
    asked: list[str] = []
    sent: list[int] = []
    send, look = kind.send_packed_command, kind.can_read
    monkeypatch.setattr(kind, "can_read", lambda *a, **k: (asked.append("can_read"), look(*a, **k))[1])
    monkeypatch.setattr(kind, "send_packed_command", lambda c, p, **k: (sent.append(len(p)), send(c, p, **k))[1])
    with store.client.pipeline(transaction=False) as pipe:
        for number in range(2):
            pipe.set(f"key {number}", "x" * 20_000)
        assert pipe.execute() == [True, True]
    assert (asked, sent) == ([], [1])
    monkeypatch.setattr(connection, "FRESH_SECONDS", 0.0)
    store.ping()
    assert asked == ["can_read"]


def test_a_connection_that_was_lost_since_it_answered_is_made_anew(store: JobStore) -> None:
    store.ping()
    (held,) = store.client.connection_pool._available_connections
    held._sock.shutdown(2)
    store.ping()
