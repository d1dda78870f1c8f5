"""The store's laws hold on fakeredis and on a real server alike."""

from __future__ import annotations

import fakeredis
import pytest

from promptq.contract.settings import WorkerSettings
from promptq.queue.store import JobStore


@pytest.fixture(params=["fakeredis", "server"])
def store(request: pytest.FixtureRequest, settings: WorkerSettings) -> JobStore:
    """A store on each of them."""
    client = fakeredis.FakeRedis() if request.param == "fakeredis" else request.getfixturevalue("client")
    return JobStore(client, settings)
