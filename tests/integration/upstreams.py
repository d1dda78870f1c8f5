"""A real promptq as the upstream server of another one, and workers in front of servers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from gpu_worker.engines.upstream.creation import create
from gpu_worker.engines.upstream.engine import UpstreamEngine
from promptq.contract.settings import WorkerSettings
from promptq.queue.embedded import EmbeddedServer
from promptq.queue.store import connect
from tests.fakes import TimedStore
from tests.integration.apis import Api, running
from tests.processes import worker

NAME = "far"
"""What clients call the model that a server elsewhere runs."""


@dataclass
class Upstream:
    """A promptq that generates: API, store and an echo worker."""

    api: Api
    store: TimedStore

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api.port}/v1"


@contextmanager
def upstream(folder: Path, slots: int = 16, pace: float = 20.0, **settings: Any) -> Iterator[Upstream]:
    """Without a cache: it would give a whole text at once."""
    server = EmbeddedServer(folder / "upstream").start()
    common = {"engine": "echo", "cache_ttl_seconds": 0, **settings}
    try:
        with (
            running(server, folder, 1, **common) as api,
            worker(server, "echo", slots=slots, echo_tokens_per_second=pace, **common),
            connect(server.url) as client,
        ):
            yield Upstream(api, store_of(client, engine="echo"))
    finally:
        server.stop()


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


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(each)}' for name, each in value.items())} }}"
    return f'"{value}"' if isinstance(value, str) else str(value)
