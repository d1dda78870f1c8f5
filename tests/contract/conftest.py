"""The store's laws hold on fakeredis and on a real server alike."""

from __future__ import annotations

import pytest

from promptq.contract.settings import WorkerSettings
from tests.fakes import TimedStore, fake_redis


@pytest.fixture(params=["fakeredis", "server"])
def store(request: pytest.FixtureRequest, settings: WorkerSettings) -> TimedStore:
    """A store on each of them."""
    client = fake_redis() if request.param == "fakeredis" else request.getfixturevalue("client")
    return TimedStore(client, settings)
