"""Connections to Redis that break between two calls."""

from __future__ import annotations

from tests.fakes import TimedStore


def test_a_connection_that_was_lost_since_it_answered_is_made_anew(store: TimedStore) -> None:
    store.ping()
    (held,) = store.client.connection_pool._available_connections
    held._sock.shutdown(2)
    store.ping()
