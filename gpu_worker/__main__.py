"""`python -m gpu_worker`: settings, engine, registration, and the loop; with `--spare` it first waits to be needed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, start_http_server

from gpu_worker.assembly import Worker
from gpu_worker.engines.base import Engine
from gpu_worker.engines.registry import create_engine
from gpu_worker.registration import WorkerRegistration
from gpu_worker.run_traces import run_traces
from gpu_worker.spare import await_assignment
from gpu_worker.startup import Startup
from gpu_worker.telemetry import Telemetry
from promptq.contract.addresses import host_port
from promptq.contract.errors import EngineBroken, EngineError, RedisUnavailable, SettingsError, WorkerReplaced
from promptq.contract.exit_codes import ExitCode
from promptq.contract.metrics import WorkerMetrics
from promptq.contract.settings import WorkerSettings
from promptq.queue.connection import connect, seconds_within
from promptq.queue.server_check import check_at_start
from promptq.queue.store import JobStore
from promptq.queue.upgrade import upgrade
from promptq.runtime import failpoints
from promptq.runtime.lifecycle import Stop, leave
from promptq.runtime.logs import configure, log_settings
from promptq.runtime.metrics import keep_in_memory
from promptq.runtime.ports import listen
from promptq.runtime.tracing import make_traces

log = logging.getLogger("gpu_worker")


def main(arguments: Sequence[str]) -> ExitCode:
    """Load, register, work, drain. The exit code says how it ended."""
    try:
        assigned_at = await_assignment().at if "--spare" in arguments else None
        stop, startup = Stop().install(), Startup(assigned_at)
        settings = WorkerSettings.load()
        configure("gpu_worker", settings)
        failpoints.arm(settings.failpoints)
        log_settings(log, settings)
        check_at_start(connect(settings.redis_url, seconds_within(settings.lease_seconds)), settings.keys)
        startup.done("imports")
        engine = create_engine(settings, startup.done)
        log.info("engine ready after %s", startup)
        serve(settings, engine, stop)
    except SettingsError as error:
        return _fail(ExitCode.SETTINGS, error.message)
    except EngineBroken as error:
        return _fail(ExitCode.ENGINE_BROKEN, error.message)
    except EngineError as error:
        return _fail(ExitCode.ENGINE, error.message)
    except WorkerReplaced as error:
        return _fail(ExitCode.WORKER_REPLACED, error.message)
    except RedisUnavailable as error:
        return _fail(ExitCode.REDIS_UNAVAILABLE, error.message)
    return ExitCode.OK


def serve(settings: WorkerSettings, engine: Engine, stop: Stop) -> None:
    """Export metrics, register, and work until the stop is requested.

    Raises:
        SettingsError: the metrics port is taken, or what traces need is not installed.
    """
    keep_in_memory()
    registry = CollectorRegistry()
    host = settings.worker_metrics_host
    listen("PROMPTQ_WORKER_METRICS_PORT", host, settings.worker_metrics_port).close()
    server, thread = start_http_server(settings.worker_metrics_port, host, registry)
    url = f"http://{host_port(host, server.server_port)}/metrics"
    answer_seconds = seconds_within(settings.lease_seconds)
    store = JobStore(connect(settings.redis_url, answer_seconds), settings)
    registration = WorkerRegistration(store, settings, engine.info, url)
    upgrade(store)
    traces = make_traces("gpu_worker", settings, registration.name)
    telemetry = Telemetry(WorkerMetrics(registry), engine, run_traces(traces, engine.info, registration.name))
    try:
        Worker(store, engine, registration, telemetry, settings).run(stop)
    finally:
        traces.close()
        server.shutdown()
        server.server_close()
        thread.join()


def _fail(code: ExitCode, message: str) -> ExitCode:
    print(f"gpu_worker: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
