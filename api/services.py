"""The parts that an application is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from api.access import Access
from api.fleet_view import FleetView
from api.model_checks import ModelChecks
from api.open_requests import OpenRequests
from api.submit_metrics import SubmitMetrics
from api.threads import in_thread
from api.waiting.streams import Streams
from api.waiting.submit_batcher import SubmitBatcher
from api.waiting.subscription import Subscription
from api.waiting.waiters import Waiters
from promptq.contract.errors import RedisUnavailable
from promptq.contract.metrics import ApiMetrics
from promptq.contract.settings import ApiSettings
from promptq.queue.batches import BatchRecords
from promptq.queue.deliveries import DeliveryRecords
from promptq.queue.endings import ended
from promptq.queue.files import FileRecords
from promptq.queue.listener import Listener
from promptq.queue.observe import Observer
from promptq.queue.progress import follow
from promptq.queue.store import JobStore, connect
from promptq.queue.webhooks import WebhookRecords
from promptq.runtime.traces import Traces
from promptq.runtime.tracing import make_traces
from promptq.storage.outside import StorageOutside
from promptq.storage.storage import Objects, Storage


@dataclass(frozen=True, slots=True)
class Services:
    """Made once for an application; a view reaches them by `api.current.services()`."""

    settings: ApiSettings
    store: JobStore
    observer: Observer
    fleet_view: FleetView
    waiters: Waiters
    streams: Streams
    registry: CollectorRegistry
    metrics: ApiMetrics
    access: Access
    open_requests: OpenRequests
    model_checks: ModelChecks
    submit_batcher: SubmitBatcher
    submit_metrics: SubmitMetrics
    storage: Objects
    files: FileRecords
    batches: BatchRecords
    webhooks: WebhookRecords
    deliveries: DeliveryRecords
    traces: Traces


def make_services(
    settings: ApiSettings, store: JobStore | None = None, make_listener: Callable[..., Listener] = Listener
) -> Services:
    """Make the parts from the settings. Opens no connection yet.

    Raises:
        SettingsError: the file of API keys cannot be used, or the storage of files, or traces cannot be made.
    """
    store = store or JobStore(connect(settings.redis_url, settings.redis_timeout_seconds), settings)
    registry = CollectorRegistry()
    metrics = ApiMetrics(registry)
    subscription = Subscription(settings.redis_url, partial(_note_loss, store, metrics), make_listener)
    submit_metrics = SubmitMetrics(metrics)
    observer = Observer(store.client, settings)
    return Services(
        settings=settings,
        store=store,
        observer=observer,
        fleet_view=FleetView(observer.fleet),
        waiters=_waiters(subscription, store),
        streams=_streams(subscription, store),
        registry=registry,
        metrics=metrics,
        access=Access(settings, store),
        open_requests=OpenRequests(settings),
        model_checks=ModelChecks(store),
        submit_batcher=SubmitBatcher(store, submit_metrics.count),
        submit_metrics=submit_metrics,
        storage=_storage(settings.storage_url(settings.data_dir)),
        files=FileRecords(store),
        batches=BatchRecords(store),
        webhooks=WebhookRecords(store),
        deliveries=DeliveryRecords(store),
        traces=make_traces("api", settings),
    )


def _streams(subscription: Subscription, store: JobStore) -> Streams:
    channels = (store.keys.moved_channel, store.keys.done_channel)
    return Streams(subscription, channels, partial(follow, store), store.get_many)


def _waiters(subscription: Subscription, store: JobStore) -> Waiters:
    def find_ended(ids: Sequence[str]) -> Sequence[str]:
        try:
            return ended(store, ids)
        except RedisUnavailable:
            store.drop_idle()
            raise

    return Waiters(subscription, store.keys.done_channel, find_ended)


def _storage(url: str) -> Objects:
    storage = Storage(url, in_thread)
    return storage if storage.is_local else StorageOutside(url)


def _note_loss(store: JobStore, metrics: ApiMetrics) -> None:
    """A subscription is away: the connections beside it may have fallen silent too."""
    metrics.subscription_losses.inc()
    store.drop_idle()
