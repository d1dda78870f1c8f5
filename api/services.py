"""The parts that an application is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from api.access import Access
from api.open_requests import OpenRequests
from api.prompt_limit import PromptLimit
from api.submit_metrics import SubmitMetrics
from api.waiting.streams import Streams
from api.waiting.submit_batcher import SubmitBatcher
from api.waiting.waiters import Waiters
from promptq.contract.errors import RedisUnavailable
from promptq.contract.metrics import ApiMetrics
from promptq.contract.settings import ApiSettings
from promptq.queue import model_facts
from promptq.queue.endings import ended
from promptq.queue.observe import Observer
from promptq.queue.progress import follow
from promptq.queue.store import JobStore, connect


@dataclass(frozen=True, slots=True)
class Services:
    """Made once for an application; a view reaches them by `api.current.services()`."""

    settings: ApiSettings
    store: JobStore
    observer: Observer
    waiters: Waiters
    streams: Streams
    registry: CollectorRegistry
    metrics: ApiMetrics
    access: Access
    open_requests: OpenRequests
    prompt_limit: PromptLimit
    submit_batcher: SubmitBatcher
    submit_metrics: SubmitMetrics


def make_services(settings: ApiSettings, store: JobStore | None = None, waiters: Waiters | None = None) -> Services:
    """Make the parts from the settings. Opens no connection yet.

    Raises:
        SettingsError: the file of API keys cannot be used.
    """
    store = store or JobStore(connect(settings.redis_url, settings.redis_timeout_seconds), settings)
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    submit_metrics = SubmitMetrics(metrics, settings.model_id)
    return Services(
        settings=settings,
        store=store,
        observer=Observer(store.client, settings),
        waiters=waiters or _waiters(settings, store, metrics),
        streams=_streams(settings, store, metrics),
        registry=registry,
        metrics=metrics,
        access=Access(settings, store),
        open_requests=OpenRequests(settings),
        prompt_limit=PromptLimit(partial(model_facts.read, store.client, settings.keys.model(settings.model_id))),
        submit_batcher=SubmitBatcher(store, submit_metrics.count),
        submit_metrics=submit_metrics,
    )


def _streams(settings: ApiSettings, store: JobStore, metrics: ApiMetrics) -> Streams:
    channels = (settings.keys.moved_channel, settings.keys.done_channel)
    look, on_loss = partial(follow, store), partial(_note_loss, store, metrics)
    return Streams(settings.redis_url, channels, look, store.get_many, on_loss)


def _waiters(settings: ApiSettings, store: JobStore, metrics: ApiMetrics) -> Waiters:
    def find_ended(ids: Sequence[str]) -> Sequence[str]:
        try:
            return ended(store, ids)
        except RedisUnavailable:
            store.drop_idle()
            raise

    on_loss = partial(_note_loss, store, metrics)
    return Waiters(settings.redis_url, settings.keys.done_channel, find_ended, on_loss)


def _note_loss(store: JobStore, metrics: ApiMetrics) -> None:
    """A subscription is away: the connections beside it may have fallen silent too."""
    metrics.subscription_losses.inc()
    store.drop_idle()
