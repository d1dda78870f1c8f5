"""Fixtures: a store on fakeredis for unit tests, a real server for everything else. Redis is never skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import TimedStore, fake_redis
from tests.warm import link_made


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many random mixes the engine's parity tests run of each kind of model; `make parity` asks for more."""
    parser.addoption("--mixes", type=int, default=6)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One real server for the whole session."""
    running = EmbeddedServer(tmp_path_factory.mktemp("server")).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def warm() -> Callable[[Path], None]:
    """Puts into a data folder what a worker would make at its first start."""
    return link_made


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from two, and on a busy machine threads mostly wait for one another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A real server that the test may stop, kill and start again."""
    running = EmbeddedServer(tmp_path / "valkey").start()
    yield running
    running.stop()


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the real server, emptied."""
    with connect(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def settings() -> WorkerSettings:
    """Defaults, whatever the environment says."""
    return WorkerSettings(_env_file=None)


@pytest.fixture
def store(client: redis.Redis, settings: WorkerSettings) -> TimedStore:
    """A store on the real server."""
    return TimedStore(client, settings)


@pytest.fixture
def fake_store(settings: WorkerSettings) -> TimedStore:
    """A store on fakeredis, for unit tests."""
    return TimedStore(fake_redis(), settings)
