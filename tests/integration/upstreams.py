"""A real promptq as the upstream server of another one, and workers in front of servers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from gpu_worker.engines.base import Event, LostRow, Row, RowEnd
from gpu_worker.engines.upstream.creation import create
from gpu_worker.engines.upstream.engine import UpstreamEngine
from promptq.contract.request import GenerateRequest
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import TimedStore
from tests.faulty_server import Act, FaultyServer, faulty
from tests.integration.apis import Api, running
from tests.processes import wait_until, worker

NAME = "far"
"""What clients call the model that a server elsewhere runs."""


@dataclass
class Upstream:
    """A promptq that does the work: API, store and a worker."""

    api: Api
    store: TimedStore

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.port}/v1"


@contextmanager
def upstream(folder: Path, slots: int = 16, pace: float = 20.0, **settings: Any) -> Iterator[Upstream]:
    """Without a cache: it would give a whole text at once. With an echo worker, unless the settings say otherwise."""
    server = EmbeddedServer(folder / "upstream").start()
    common = {"engine": "echo", "cache_ttl_seconds": 0, **settings}
    try:
        with (
            running(server, folder, 1, **common) as api,
            worker(server, "echo", slots=slots, echo_tokens_per_second=pace, **common),
            connect(server.url) as client,
        ):
            yield Upstream(api, store_of(client, **common))
    finally:
        server.stop()


def embedding_upstream(folder: Path, model: Path) -> AbstractContextManager[Upstream]:
    """A promptq whose worker embeds with a model's folder."""
    return upstream(folder, engine="continuous", model=str(model), device="cpu", worker_threads=1)


def store_of(client: redis.Redis, **settings: Any) -> TimedStore:
    return TimedStore(client, WorkerSettings(_env_file=None, **settings))


def models_file(folder: Path, url: str, options: Mapping[str, Any] | None = None, **fields: Any) -> Path:
    """A catalogue of one model, which a server at this URL runs under the name `echo`."""
    entry = {"name": NAME, "engine": "upstream", "base_url": url, "upstream_model": "echo", "slots": 16, **fields}
    lines = ["[[model]]", *(f"{name} = {_toml(value)}" for name, value in entry.items())]
    lines += ["[model.options]", *(f"{name} = {_toml(value)}" for name, value in (options or {}).items())]
    path = folder / "models.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def worker_before(
    server: EmbeddedServer, models: Path, name: str = "up1", **settings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process whose jobs a server elsewhere runs."""
    with worker(server, name, models_file=models, engine="upstream", **settings) as process:
        yield process


def engine_before(url: str, folder: Path, options: Mapping[str, Any] | None = None, **fields: Any) -> UpstreamEngine:
    """The engine itself, in this process. What the echo engine there cannot do, it does not claim."""
    models = models_file(folder, url, {"capabilities": ["streaming"]} | dict(options or {}), **fields)
    return create(WorkerSettings.load(_env_file=None, models_file=str(models)), lambda _: None)


class Behind:
    """An engine before a faulty server, and what it made of its rows."""

    def __init__(self, server: FaultyServer, folder: Path, **options: Any) -> None:
        self.server = server
        self.engine = engine_before(server.url, folder, options)
        self.events: list[Event] = []
        self.handed_back: list[str] = []
        self.lost: list[LostRow] = []

    def run(self, *ids: str, deadline: float | None = None, **request: Any) -> Behind:
        """Send rows, once there is room, and step until they are gone."""
        asked = {"prompt": "p"} | request if "messages" not in request else request
        wait_until(lambda: self.engine.free_slots() >= len(ids), what="room")
        self.engine.add([Row(row_id, GenerateRequest(**asked), deadline) for row_id in ids])
        wait_until(self.step_until_idle, 20, "the ends of rows")
        return self

    def step_until_idle(self) -> bool:
        result = self.engine.step(time.monotonic())
        self.events += result.events
        self.handed_back += result.handed_back
        self.lost += result.lost
        return not self.engine.live_rows()

    @property
    def end(self) -> RowEnd:
        return next(event.end for event in reversed(self.events) if event.end)


@contextmanager
def before_faulty(folder: Path, *acts: Act, **options: Any) -> Iterator[Behind]:
    """An engine before a server that answers with these acts."""
    with faulty(*acts) as server:
        it = Behind(server, folder, **options)
        try:
            yield it
        finally:
            it.engine.close()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(each)}' for name, each in value.items())} }}"
    return f'"{value}"' if isinstance(value, str) else str(value)
