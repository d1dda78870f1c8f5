"""`/v1/queues` and `/v1/workers`: what waits, and who works on it."""

from __future__ import annotations

from dataclasses import asdict

from flask import Response
from flask_openapi3.models.tag import Tag

from api.http.validation import KEY_IF_ANY, StrictBlueprint
from api.schemas import ErrorResponse, QueueList, QueueResource, ScalerResource, WorkerList, WorkerResource
from api.services import services
from api.views.presenter import iso_or_none, json_answer
from promptq.queue.observe import FleetRecord, QueueState, WorkerRecord

blueprint = StrictBlueprint(
    "fleet", __name__, url_prefix="/v1", abp_tags=[Tag(name="fleet")], abp_security=KEY_IF_ANY,
    abp_responses={503: ErrorResponse, "default": ErrorResponse},
)  # fmt: skip


@blueprint.get("/queues", responses={200: QueueList})
def queues() -> Response:
    """Depth, jobs in flight and oldest age of each queue"""
    states = services().observer.queues()
    return json_answer(QueueList(queues=[_queue(state) for state in states]))


@blueprint.get("/workers", responses={200: WorkerList})
def workers() -> Response:
    """Every worker, and why none starts if none does"""
    registered = [_worker(record) for record in services().observer.workers()]
    fleet = services().observer.fleet()
    known = {worker.name for worker in registered}
    starting = [WorkerResource(name=name, state="starting") for name in (fleet.starting if fleet else ())]
    listed = registered + [worker for worker in starting if worker.name not in known]
    return json_answer(WorkerList(workers=listed, scaler=_scaler(fleet) if fleet else None))


def _queue(state: QueueState) -> QueueResource:
    counts = {name: value for name, value in asdict(state).items() if name != "queue"}
    return QueueResource(name=state.name, **counts)


def _worker(record: WorkerRecord) -> WorkerResource:
    times = {"started_at": iso_or_none(record.started_at), "last_heartbeat": iso_or_none(record.last_heartbeat)}
    return WorkerResource(**asdict(record) | times)


def _scaler(fleet: FleetRecord) -> ScalerResource:
    return ScalerResource(
        min_workers=fleet.min_workers,
        max_workers=fleet.max_workers,
        wanted=fleet.wanted,
        trouble=fleet.trouble,
        retry_at=iso_or_none(fleet.retry_at),
    )
