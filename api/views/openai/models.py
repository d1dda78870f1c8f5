"""`/v1/models`: what `model` may be."""

from __future__ import annotations

import time

from flask import Response
from pydantic import BaseModel

from api.current import services
from api.http.blueprints import OpenAIBlueprint
from api.openai.schemas import Model, ModelList, OpenAIError
from api.presenter import json_response

_STARTED_AT = int(time.time())

blueprint = OpenAIBlueprint("openai_models", __name__, tag="OpenAI", url_prefix="/v1/models")


class ModelPath(BaseModel):
    """A model's name, which may have slashes."""

    model: str


@blueprint.get("", responses={200: ModelList})
def list_models() -> Response:
    """The models that are served"""
    names = services().settings.catalogue.names
    return json_response(ModelList(data=[Model(id=name, created=_STARTED_AT) for name in names]))


@blueprint.get("/<path:model>", responses={200: Model, 404: OpenAIError})
def read_model(path: ModelPath) -> Response:
    """One model"""
    services().settings.catalogue.find(path.model)
    return json_response(Model(id=path.model, created=_STARTED_AT))
