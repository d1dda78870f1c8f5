"""`/v1/models`: what `model` may be."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Response
from pydantic import BaseModel

from api.current import services
from api.http.blueprints import OpenAIBlueprint
from api.openai.schemas import Model, ModelList, ModelState, OpenAIError
from api.presenter import json_response
from promptq.contract.errors import RedisUnavailable

_STARTED_AT = int(time.time())

blueprint = OpenAIBlueprint("openai_models", __name__, tag="OpenAI", url_prefix="/v1/models")


class ModelPath(BaseModel):
    """A model's name, which may have slashes."""

    model: str


@blueprint.get("", responses={200: ModelList})
def list_models() -> Response:
    """The models that are served, those of adapters included"""
    state_of = _states()
    names = services().settings.catalogue.names
    return json_response(ModelList(data=[_model(name, state_of) for name in names]))


@blueprint.get("/<path:model>", responses={200: Model, 404: OpenAIError})
def read_model(path: ModelPath) -> Response:
    """One model"""
    services().settings.catalogue.find(path.model)
    return json_response(_model(path.model, _states()))


def _model(name: str, state_of: Callable[[str], ModelState]) -> Model:
    return Model(id=name, created=_STARTED_AT, state=state_of(name.partition(":")[0]))


def _states() -> Callable[[str], ModelState]:
    """How each model is. Without Redis the list is there, and nothing is known of its models."""
    try:
        workers, fleet = services().observer.workers(), services().observer.fleet()
    except RedisUnavailable:
        return lambda _model: "unknown"
    serving = {worker.model for worker in workers if worker.state in ("idle", "busy")}
    pools = {pool.name: pool for pool in fleet.pools} if fleet else {}

    def state_of(model: str) -> ModelState:
        if model in serving:
            return "ready"
        if (pool := pools.get(model)) is None:
            return "unknown"
        if pool.trouble:
            return "trouble"
        return "starting" if pool.workers else "waiting"

    return state_of
