"""The scaler's small web server: /metrics, /targets for Prometheus, /livez."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from flask import Flask, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from promptq.contract import addresses, metrics
from promptq.contract.errors import RedisUnavailable
from promptq.contract.redis_server import Grade, Trouble
from promptq.contract.settings import ScalerSettings
from promptq.queue.observe import Observer, Snapshot, WorkerRecord
from promptq.runtime.ports import listen
from scaler.fleets.gpus import Gpu

log = logging.getLogger(__name__)


class QueueCollector(Collector):
    """Queue gauges and exact totals, read from Redis at scrape time; left out while Redis is away.

    Args:
        leads: whether this scaler leads; of several, one tells what all see alike.
    """

    def __init__(self, observer: Observer, leads: Callable[[], bool] = lambda: True) -> None:
        self._observer = observer
        self._leads = leads

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every queue metric, from one snapshot."""
        if not self._leads():
            return
        try:
            snapshot = self._observer.snapshot()
        except RedisUnavailable:
            return
        yield from (_jobs(snapshot), _ages(snapshot), _expiries(snapshot), _requeued(snapshot))


class ServerCollector(Collector):
    """What is wrong with the queue's server, looked at when it is scraped; left out while Redis is away.

    Args:
        look: the troubles as they are now.
    """

    def __init__(self, look: Callable[[], Sequence[Trouble]]) -> None:
        self._look = look

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, with a sample for each grade."""
        try:
            grades = [trouble.grade for trouble in self._look()]
        except RedisUnavailable:
            return
        name, text, labels = metrics.REDIS_TROUBLES
        family = GaugeMetricFamily(name, text, labels=labels)
        for grade in Grade:
            family.add_metric([grade], grades.count(grade))
        yield family


class GpuCollector(Collector):
    """Gauges of this machine's GPUs, read at scrape time.

    Args:
        read: the GPUs as they are now.
    """

    def __init__(self, read: Callable[[], Sequence[Gpu]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Three gauges, with a sample for each GPU."""
        gpus = self._read()
        yield _per_gpu(metrics.GPU_UTILIZATION, gpus, attrgetter("utilization"))
        yield _per_gpu(metrics.GPU_MEMORY_USED, gpus, attrgetter("memory_used"))
        yield _per_gpu(metrics.GPU_MEMORY_TOTAL, gpus, attrgetter("memory_total"))


def create_app(registry: CollectorRegistry, observer: Observer, advertised_host: str) -> Flask:
    """The application.

    Args:
        advertised_host: where Prometheus finds workers that listen on this machine.
    """
    app = Flask("scaler")

    @app.get("/metrics")
    def read_metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    @app.get("/targets")
    def read_targets() -> Response:
        return jsonify(targets(observer.workers(), advertised_host))

    @app.get("/livez")
    def read_livez() -> Response:
        return jsonify(status="ok")

    @app.errorhandler(RedisUnavailable)
    def answer_unavailable(error: RedisUnavailable) -> tuple[Response, int]:
        # Prometheus keeps the targets it has when this is not a 200.
        return jsonify(error={"type": error.type, "message": error.message, "param": None}), 503

    return app


def targets(workers: Sequence[WorkerRecord], advertised_host: str) -> list[dict[str, Any]]:
    """The workers in Prometheus' http_sd form. A loopback or wildcard address is told as the advertised host."""
    found = ((worker.name, _address(worker, advertised_host)) for worker in workers)
    return [{"targets": [address], "labels": {"worker": name}} for name, address in found if address]


class MetricsServer:
    """Serves the application from a daemon thread.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's.
    """

    def __init__(self, app: Flask, settings: ScalerSettings) -> None:
        listener = listen("PROMPTQ_SCALER_PORT", settings.scaler_host, settings.scaler_port)
        self.port = int(listener.getsockname()[1])
        with listener:  # werkzeug works on a copy
            self._server: BaseWSGIServer = make_server(
                settings.scaler_host, self.port, app, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Scrapes every few seconds are not worth a line each."""


def _address(worker: WorkerRecord, advertised_host: str) -> str:
    """Empty for a worker whose record names no host and port: it must not hide the others."""
    host, port = addresses.split(worker.metrics_url) or ("", None)
    if port is None:
        if worker.metrics_url:
            log.warning("Worker %s is left out of the targets: its address is %r", worker.name, worker.metrics_url)
        return ""
    is_here = addresses.is_loopback(host) or addresses.is_wildcard(host)
    return addresses.host_port(advertised_host if is_here else host, port)


def _jobs(snapshot: Snapshot) -> GaugeMetricFamily:
    name, text, labels = metrics.QUEUE_JOBS
    family = GaugeMetricFamily(name, text, labels=labels)
    for queue in snapshot.queues:
        for state in ("queued", "running", "dead"):
            family.add_metric([queue.queue.model, queue.name, state], getattr(queue, state))
    return family


def _ages(snapshot: Snapshot) -> GaugeMetricFamily:
    name, text, labels = metrics.QUEUE_OLDEST_AGE
    family = GaugeMetricFamily(name, text, labels=labels)
    for queue in snapshot.queues:
        family.add_metric([queue.queue.model, queue.name], queue.oldest_age_seconds)
    return family


def _per_gpu(
    metric: tuple[str, str, tuple[str, ...]], gpus: Sequence[Gpu], value: Callable[[Gpu], float]
) -> GaugeMetricFamily:
    name, text, labels = metric
    family = GaugeMetricFamily(name, text, labels=labels)
    for gpu in gpus:
        family.add_metric([gpu.label], value(gpu))
    return family


def _expiries(snapshot: Snapshot) -> CounterMetricFamily:
    name, text, _ = metrics.LEASE_EXPIRIES
    return CounterMetricFamily(name, text, value=snapshot.totals.get("lease_expiries", 0))


def _requeued(snapshot: Snapshot) -> CounterMetricFamily:
    name, text, labels = metrics.JOBS_REQUEUED
    family = CounterMetricFamily(name, text, labels=labels)
    for reason in metrics.REQUEUE_REASONS:
        family.add_metric([reason], snapshot.totals.get(f"requeued:{reason}", 0))
    return family
