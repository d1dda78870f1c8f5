"""`python -m scaler`: settings, the metrics server, and the loop."""

from __future__ import annotations

import logging
import sys
from functools import partial

from prometheus_client import CollectorRegistry, disable_created_metrics

from promptq.contract import environment
from promptq.contract.errors import SettingsError
from promptq.contract.exit_codes import ExitCode
from promptq.contract.metrics import ScalerMetrics
from promptq.contract.settings import ScalerSettings
from promptq.queue.observe import Observer
from promptq.queue.server_check import check_at_start, look
from promptq.queue.store import JobStore, connect
from promptq.runtime import programs
from promptq.runtime.cgroups import processors
from promptq.runtime.lifecycle import run
from promptq.runtime.logs import configure, log_settings
from promptq.runtime.metrics import keep_in_memory
from promptq.runtime.parent_death import KillingStop
from scaler.fleets.base import Fleet
from scaler.fleets.gpus import Gpus
from scaler.fleets.local import SPARE_COMMAND, LocalFleet, LocalFleetSettings
from scaler.loop import ScalerLoop
from scaler.metrics_server import GpuCollector, MetricsServer, QueueCollector, ServerCollector, create_app
from scaler.policy import Limits

log = logging.getLogger("scaler")

REDIS_TIMEOUT_SECONDS = 2.0


def main() -> ExitCode:
    """Run until SIGTERM, then drain the workers. The exit code says how it ended."""
    try:
        settings = ScalerSettings.load()
        configure("scaler", settings)
        log_settings(log, settings)
        check_at_start(connect(settings.redis_url, REDIS_TIMEOUT_SECONDS), settings.keys)
        serve(settings)
    except SettingsError as error:
        print(f"scaler: {error.message}", file=sys.stderr)
        return ExitCode.SETTINGS
    return ExitCode.OK


def serve(settings: ScalerSettings) -> None:
    """Serve the metrics and scale until a stop is requested.

    Raises:
        SettingsError: the port is taken.
    """
    gpus = Gpus(allowed=environment.child_environment().get("CUDA_VISIBLE_DEVICES"))
    fleet, limits = create_fleet(settings, gpus)
    stop = KillingStop(fleet.kill).install()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    keep_in_memory()
    registry = CollectorRegistry()
    store = JobStore(connect(settings.redis_url, REDIS_TIMEOUT_SECONDS), settings)
    loop = ScalerLoop(fleet, limits, store, ScalerMetrics(registry))
    observer = Observer(connect(settings.redis_url, REDIS_TIMEOUT_SECONDS), settings)
    registry.register(QueueCollector(observer))
    registry.register(ServerCollector(partial(look, observer.client, settings.keys)))
    registry.register(GpuCollector(gpus.read))
    server = MetricsServer(create_app(registry, observer, settings.advertised_host), settings)
    try:
        run(loop, stop, settings.tick_seconds)
    finally:
        server.close()


def create_fleet(settings: ScalerSettings, gpus: Gpus) -> tuple[Fleet, Limits]:
    """The fleet that the settings ask for, and how many workers it may have."""
    placed_on = gpus if spreads_over_gpus(settings) else None
    count = len(placed_on.read()) if placed_on else 0
    limits = Limits.of(settings, max_workers(settings, count))
    return LocalFleet(fleet_settings(settings, limits.max_workers, count > 0), placed_on), limits


def spreads_over_gpus(settings: ScalerSettings) -> bool:
    """Whether workers are placed; not where the settings name a CPU, one GPU, or the echo engine."""
    return settings.engine != "echo" and settings.device in ("auto", "cuda")


def max_workers(settings: ScalerSettings, gpus: int) -> int:
    """The setting, or one worker per GPU; never fewer than min_workers."""
    return settings.max_workers or max(1, gpus, settings.min_workers)


def fleet_settings(settings: ScalerSettings, workers: int, has_gpu: bool) -> LocalFleetSettings:
    """What every worker is started with.

    Args:
        workers: the most there will be; on a CPU the cores are shared out among so many.
    """
    changes = {"PROMPTQ_WORKER_METRICS_PORT": "0"} if workers > 1 else {}
    if not has_gpu and not environment.is_set("worker_threads"):
        changes["PROMPTQ_WORKER_THREADS"] = str(max(1, processors() // workers))
    # A child that inherited the API's multiprocess folder would show up in the API's metrics.
    inherited = programs.environment(("PROMETHEUS_MULTIPROC_DIR",), **changes)
    # The echo engine has nothing to import that takes long.
    spare = SPARE_COMMAND if settings.spare_worker and settings.engine != "echo" else ()
    return LocalFleetSettings(
        workers, inherited, settings.drain_seconds, settings.start_timeout_seconds, spare_command=spare
    )


if __name__ == "__main__":
    sys.exit(main())
