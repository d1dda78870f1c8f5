"""`/v1/queues` and `/v1/workers`: what waits, and who works on it."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus

from flask import Response

from api.current import services
from api.fleet_schemas import (
    Draining,
    PoolResource,
    QueueList,
    QueueResource,
    ScalerResource,
    WorkerList,
    WorkerResource,
)
from api.http.blueprints import StrictBlueprint
from api.parameters import WorkerPath
from api.presenter import iso_or_none, json_response
from api.schemas import ErrorResponse
from promptq.queue.draining import drain_worker as ask_to_drain
from promptq.queue.observe import FleetRecord, QueueState, WorkerRecord

blueprint = StrictBlueprint("fleet", __name__, tag="fleet", url_prefix="/v1")


@blueprint.get("/queues", responses={200: QueueList, 503: ErrorResponse})
def queues() -> Response:
    """Depth, jobs in flight and oldest age of each queue"""
    states = services().observer.queues()
    return json_response(QueueList(queues=[_queue(state) for state in states]))


@blueprint.get("/workers", responses={200: WorkerList, 503: ErrorResponse})
def workers() -> Response:
    """Every worker, and why none starts if none does"""
    registered = [_worker(record) for record in services().observer.workers()]
    fleet = services().observer.fleet()
    known = {worker.name for worker in registered}
    starting = _starting(fleet) if fleet else []
    listed = registered + [worker for worker in starting if worker.name not in known]
    return json_response(WorkerList(workers=listed, scaler=_scaler(fleet) if fleet else None))


@blueprint.post("/workers/<name>/drain", responses={202: Draining, 404: ErrorResponse, 503: ErrorResponse})
def drain_worker(path: WorkerPath) -> Response:
    """Tell a worker to finish: it claims nothing more, puts back what it runs, and ends

    Whoever started it may start another one, as the scaler does where the policy wants one.
    """
    ask_to_drain(services().store, path.name)
    return json_response(Draining(name=path.name), HTTPStatus.ACCEPTED)


def _queue(state: QueueState) -> QueueResource:
    counts = {name: value for name, value in asdict(state).items() if name != "queue"}
    return QueueResource(model=state.queue.model, name=state.name, **counts)


def _worker(record: WorkerRecord) -> WorkerResource:
    times = {"started_at": iso_or_none(record.started_at), "last_heartbeat": iso_or_none(record.last_heartbeat)}
    return WorkerResource(**asdict(record) | times)


def _starting(fleet: FleetRecord) -> list[WorkerResource]:
    waits = fleet.waits
    return [WorkerResource(name=name, state="starting", trouble=waits.get(name, "")) for name in fleet.starting]


def _scaler(fleet: FleetRecord) -> ScalerResource:
    return ScalerResource(
        min_workers=fleet.min_workers,
        max_workers=fleet.max_workers,
        wanted=fleet.wanted,
        leader=fleet.leader,
        trouble=fleet.trouble,
        retry_at=iso_or_none(fleet.retry_at),
        pools=[PoolResource(**asdict(pool)) for pool in fleet.pools],
    )
