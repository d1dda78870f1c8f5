"""How a request becomes the typed arguments of a view.

In place of flask-openapi3's own reading, which goes through `get_json(silent=True)`: that accepts bodies that are
refused here, and cannot tell broken JSON from null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from flask import request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api.errors import BodyTooLarge, SlowBody, UnreadableBody, UnsupportedEncoding
from promptq.contract.admission import invalid_request
from promptq.contract.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


def read_arguments(header: Any, path: Any, query: Any, body: Any, values: Mapping[str, str]) -> dict[str, BaseModel]:
    """The arguments of a view, each as its type; None stands for one that the view does not have.

    Args:
        values: what the route found in the path.

    Raises:
        PromptqError: something does not fit; it names the field.
    """
    try:
        return _arguments(header, path, query, body, values)
    except ValidationError as error:
        raise invalid_request(error) from None


def read_body(model: type[Model]) -> Model:
    """The body as `model`. The content type does not matter: `curl -d` sends a form's.

    Raises:
        ValidationError: it does not fit, or is not JSON.
        InvalidRequest: a field is given twice, which JSON leaves open.
    """
    if request.environ.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        raise UnsupportedEncoding("Send the body uncompressed.", param="Content-Encoding")
    raw = _raw_body()
    body = model.model_validate_json(raw)
    # Only now: the model has refused deep nesting and huge numbers, which Python's own parser would choke on.
    _WITHOUT_DUPLICATES.decode(raw.decode())
    return body


def _raw_body() -> bytes:
    try:
        raw = request.get_data(cache=False)
        if "HTTP_TRANSFER_ENCODING" in request.environ:
            # Werkzeug cuts a chunked body at the limit without a word; only a read past the limit makes it say so.
            request.stream.read(1)
    except RequestEntityTooLarge:
        limit = request.max_content_length
        raise BodyTooLarge(f"The body is larger than {limit} bytes.", param="body") from None
    except (ClientDisconnected, ParseException, OSError) as error:
        if isinstance(error.__context__ or error, TimeoutError):
            raise SlowBody("The body has not arrived in time.", param="body") from error
        raise UnreadableBody("The body is incomplete, or its chunks are malformed.", param="body") from error
    return raw


def _arguments(header: Any, path: Any, query: Any, body: Any, values: Mapping[str, str]) -> dict[str, BaseModel]:
    arguments = {}
    if path:
        arguments["path"] = path.model_validate(values)
    if header:
        arguments["header"] = header.model_validate(_headers(header))
    if query:
        arguments["query"] = query.model_validate(request.args.to_dict())
    if body:
        arguments["body"] = read_body(body)
    return arguments


def _headers(model: type[BaseModel]) -> dict[str, str]:
    environ = request.environ
    return {name: environ[key] for name, key in _names(model) if key in environ}


@cache
def _names(model: type[BaseModel]) -> list[tuple[str, str]]:
    """The headers' names, and WSGI's for them."""
    aliases = [field.alias for field in model.model_fields.values() if field.alias]
    return [(alias, f"HTTP_{alias.upper().replace('-', '_')}") for alias in aliases]


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidRequest("The field is given more than once.", param=name)
        seen.add(name)


_WITHOUT_DUPLICATES = json.JSONDecoder(object_pairs_hook=_refuse_duplicates)
