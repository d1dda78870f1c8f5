"""Makes the engine from a catalogue's entry."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from pydantic_core import to_json

from gpu_worker.engines.base import Capabilities, EngineInfo
from gpu_worker.engines.upstream.breaker import Breaker
from gpu_worker.engines.upstream.concurrency import Concurrency
from gpu_worker.engines.upstream.connection import KEEP_ALIVE_SECONDS, Connection
from gpu_worker.engines.upstream.engine import UpstreamEngine
from gpu_worker.engines.upstream.options import ALL, UpstreamOptions
from gpu_worker.engines.upstream.request_body import Dialect
from promptq.contract.catalogue import ModelEntry
from promptq.contract.environment import secret
from promptq.contract.errors import SettingsError
from promptq.contract.settings import WorkerSettings

WRITE_SECONDS = 30.0


def create(settings: WorkerSettings, _done: Callable[[str], None]) -> UpstreamEngine:
    """The engine for the model that the settings name. Nothing is asked of the server: it may be down just now.

    Raises:
        SettingsError: the entry has no base_url, an option is wrong, or the variable of its key is not set.
    """
    entry = settings.entry
    if not entry.base_url:
        raise SettingsError("PROMPTQ_ENGINE: upstream needs an entry with a base_url in PROMPTQ_MODELS_FILE")
    options = UpstreamOptions.read(entry.name, entry.options)
    url, headers = entry.base_url.rstrip("/"), _headers(entry, options)
    slots = settings.slots
    least, first, most = _bounds(options) if slots == "auto" else (slots, slots, slots)
    model = entry.upstream_model or entry.name
    return UpstreamEngine(
        _info(entry, options, most),
        Dialect(model, entry.adapters, options.stop_limit, options.max_tokens_field, options.extra_body),
        Connection(_client(url, headers, options, most)),
        Breaker(options.max_retry_seconds, random.random),
        Concurrency(first, least, most),
        _shown(url),
    )


def _bounds(options: UpstreamOptions) -> tuple[int, int, int]:
    return options.min_slots, options.first_slots, options.max_slots


def _info(entry: ModelEntry, options: UpstreamOptions, slots: int) -> EngineInfo:
    able = {name: name in options.capabilities for name in ALL}
    return EngineInfo(
        model=entry.name,
        device="upstream",
        dtype="none",
        slots=slots,
        context_length=entry.context_length or 0,
        details={"base_url": _shown(entry.base_url)},
        capabilities=Capabilities(**able, adapters=bool(entry.adapters)),
        identity=_identity(entry, options),
    )


def _identity(entry: ModelEntry, options: UpstreamOptions) -> str:
    """What of the entry changes texts. What the server itself runs under that name it does not tell."""
    extra = to_json(options.extra_body).decode() if options.extra_body else ""
    parts = ["upstream", entry.base_url.rstrip("/"), entry.upstream_model or entry.name, extra]
    return "|".join([*parts, *(f"{name}={model}" for name, model in sorted(entry.adapters.items()))])


def _headers(entry: ModelEntry, options: UpstreamOptions) -> dict[str, str]:
    variable = entry.api_key_variable
    if not variable:
        return dict(options.headers)
    key = secret(variable)
    if not key:
        raise SettingsError(f"the model {entry.name}: api_key_variable: {variable} is not set", param=variable)
    return {"Authorization": f"Bearer {key}", **options.headers}


def _client(url: str, headers: Mapping[str, str], options: UpstreamOptions, slots: int) -> httpx2.AsyncClient:
    seconds: dict[str, Any] = {"connect": options.connect_timeout_seconds, "read": options.read_timeout_seconds}
    return httpx2.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=httpx2.Timeout(write=WRITE_SECONDS, pool=None, **seconds),
        limits=httpx2.Limits(
            max_connections=None, max_keepalive_connections=slots, keepalive_expiry=KEEP_ALIVE_SECONDS
        ),
    )


def _shown(url: str) -> str:
    """A URL without a name and password in it."""
    parts = httpx2.URL(url)
    return str(parts.copy_with(username=None, password=None) if parts.userinfo else parts)
