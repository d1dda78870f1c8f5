"""`python -m dispatcher`: settings, the metrics server, and the loop."""

from __future__ import annotations

import logging
import sys

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from dispatcher.batches.context import Context
from dispatcher.batches.duty import BatchesDuty
from dispatcher.batches.models import Models
from dispatcher.catalogue import CatalogueDuty
from dispatcher.deliveries.duty import DeliveriesDuty
from dispatcher.expiry import ExpiryDuty
from dispatcher.lease_keeper import LeaseKeeper
from dispatcher.loop import DispatcherLoop
from dispatcher.sweep import SweepDuty
from promptq.contract.errors import SettingsError
from promptq.contract.exit_codes import ExitCode
from promptq.contract.metrics import DispatcherMetrics
from promptq.contract.settings import DispatcherSettings
from promptq.queue.batches import BatchRecords
from promptq.queue.connection import seconds_within
from promptq.queue.files import FileRecords
from promptq.queue.listener import Listener
from promptq.queue.server_check import check_at_start
from promptq.queue.store import JobStore, connect
from promptq.runtime import failpoints
from promptq.runtime.lifecycle import Stop
from promptq.runtime.logs import configure, log_settings
from promptq.runtime.metrics import keep_in_memory
from promptq.runtime.ports import listen
from promptq.runtime.tracing import make_traces
from promptq.storage.storage import Storage

log = logging.getLogger("dispatcher")


def main() -> ExitCode:
    """Run until SIGTERM; what has ended by then is written. The exit code says how it ended."""
    try:
        settings = DispatcherSettings.load()
        configure("dispatcher", settings)
        failpoints.arm(settings.failpoints)
        log_settings(log, settings)
        timeout = seconds_within(settings.lease_seconds)
        check_at_start(connect(settings.redis_url, timeout), settings.keys)
        storage = Storage(settings.storage_url(settings.data_dir))
        serve(settings, storage, timeout)
    except SettingsError as error:
        print(f"dispatcher: {error.message}", file=sys.stderr)
        return ExitCode.SETTINGS
    return ExitCode.OK


def serve(settings: DispatcherSettings, storage: Storage, timeout: float) -> None:
    """Serve the metrics, and do every duty until a stop is requested.

    Raises:
        SettingsError: the port is taken.
    """
    stop = Stop().install()
    catalogue = CatalogueDuty(settings)
    catalogue.install()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    keep_in_memory()
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry)
    store = JobStore(connect(settings.redis_url, timeout), settings)
    listen("PROMPTQ_DISPATCHER_PORT", settings.dispatcher_host, settings.dispatcher_port).close()
    start_http_server(settings.dispatcher_port, settings.dispatcher_host, registry)
    leases = LeaseKeeper(store)
    files = FileRecords(store)
    traces = make_traces("dispatcher", settings)
    context = Context(settings, store, BatchRecords(store), files, storage, Models(store), metrics, traces)
    batches = BatchesDuty(context, leases)
    deliveries = DeliveriesDuty(settings, store, leases, metrics)
    listener = Listener(
        settings.redis_url, [settings.keys.done_channel], lambda _channel, ids: batches.hear(ids), lambda: None
    )
    listener.start()
    expiry, sweep = ExpiryDuty(files, storage, metrics), SweepDuty(context.batches, storage, leases)
    try:
        DispatcherLoop([catalogue, batches, deliveries, expiry, sweep], metrics).run(stop)
    finally:
        listener.close()
        leases.close()
        traces.close()


if __name__ == "__main__":
    sys.exit(main())
