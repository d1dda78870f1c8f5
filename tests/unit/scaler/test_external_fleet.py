"""A scaler whose workers somebody else starts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from promptq.contract.metrics import ScalerMetrics
from promptq.contract.settings import ScalerSettings
from promptq.queue.observe import Observer
from scaler.assembly import Assembly
from scaler.fleet_choice import create_fleet
from scaler.fleets.gpus import Gpus
from scaler.loop import ScalerLoop
from scaler.scaling import Scaling
from tests.fakes import NOW, TimedStore, fake_redis, submit


def test_it_says_what_is_wanted_and_starts_and_ends_nobody() -> None:
    settings = ScalerSettings(_env_file=None, fleet="external", engine="echo", max_workers=4)
    store = TimedStore(fake_redis(), settings)
    store.uptime_seconds = lambda: 9999.0  # type: ignore[method-assign]  # fakeredis says nothing of it
    assembly = Assembly(settings, Gpus())
    fleet = create_fleet(assembly, Gpus())
    scaling = Scaling(fleet, assembly.specs(), assembly.machine.rooms, ScalerMetrics(CollectorRegistry()), settings)
    loop = ScalerLoop(fleet, scaling, store, lambda: 0.0)
    loop.initialize()
    submit(store, "a b c", now=NOW)
    loop.loop(NOW)
    told = Observer(store.client, settings).fleet()
    assert told is not None
    assert (told.wanted, told.starting, told.trouble, fleet.roster()) == (1, [], "", [])
    loop.shutdown()
