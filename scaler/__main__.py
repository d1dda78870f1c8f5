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
from promptq.contract.scaler_settings import RETIRED
from promptq.contract.settings import ScalerSettings
from promptq.queue.observe import Observer
from promptq.queue.server_check import check_at_start, look
from promptq.queue.store import JobStore, connect
from promptq.runtime import failpoints
from promptq.runtime.lifecycle import run
from promptq.runtime.logs import configure, log_settings
from promptq.runtime.metrics import keep_in_memory
from promptq.runtime.parent_death import KillingStop
from scaler.assembly import Assembly
from scaler.catalogue_reload import CatalogueReload
from scaler.fleet_choice import create_fleet
from scaler.fleets.gpus import Gpus
from scaler.leadership import Leadership
from scaler.loop import ScalerLoop
from scaler.metrics_server import GpuCollector, MetricsServer, QueueCollector, ServerCollector, create_app
from scaler.scaling import Scaling

log = logging.getLogger("scaler")

REDIS_TIMEOUT_SECONDS = 2.0


def main() -> ExitCode:
    """Run until SIGTERM, then drain the workers. The exit code says how it ended."""
    try:
        settings = ScalerSettings.load()
        configure("scaler", settings)
        failpoints.arm(settings.failpoints)
        log_settings(log, settings)
        warn_of_retired()
        check_at_start(connect(settings.redis_url, REDIS_TIMEOUT_SECONDS), settings.keys)
        serve(settings)
    except SettingsError as error:
        print(f"scaler: {error.message}", file=sys.stderr)
        return ExitCode.SETTINGS
    return ExitCode.OK


def serve(settings: ScalerSettings) -> None:
    """Serve the metrics and scale until a stop is requested.

    Raises:
        SettingsError: the port is taken, or the user's numbers of GPUs say too little.
    """
    given = environment.child_environment()
    gpus = Gpus(allowed=given.get("CUDA_VISIBLE_DEVICES"))
    gpus.check_order(given.get("CUDA_DEVICE_ORDER"))
    assembly = Assembly(settings, gpus)
    fleet = create_fleet(assembly, gpus)
    stop = KillingStop(_leave if fleet.capabilities.outlives else fleet.kill).install()
    catalogue = CatalogueReload(assembly)
    catalogue.install()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    keep_in_memory()
    registry = CollectorRegistry()
    store = JobStore(connect(settings.redis_url, REDIS_TIMEOUT_SECONDS), settings)
    scaling = Scaling(fleet, assembly.specs(), assembly.machine.rooms, ScalerMetrics(registry), settings)
    leadership = Leadership(store, settings)
    loop = ScalerLoop(fleet, scaling, store, reload=catalogue.specs, leadership=leadership)
    observer = Observer(connect(settings.redis_url, REDIS_TIMEOUT_SECONDS), settings)
    registry.register(QueueCollector(observer, lambda: leadership.leads))
    registry.register(ServerCollector(partial(look, observer.client, settings.keys)))
    registry.register(GpuCollector(gpus.read))
    server = MetricsServer(create_app(registry, observer, settings.advertised_host), settings)
    try:
        run(loop, stop, settings.tick_seconds)
    finally:
        server.close()


def _leave() -> None:
    """Workers that outlive the scaler are not its to kill."""


def warn_of_retired() -> None:
    """Say of each setting of an earlier policy that is given what has replaced it."""
    for name, words in RETIRED.items():
        if environment.is_set(name):
            log.warning("%s%s %s.", environment.PREFIX, name.upper(), words)


if __name__ == "__main__":
    sys.exit(main())
