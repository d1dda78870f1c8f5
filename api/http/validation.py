"""How a request becomes the typed arguments of a view. Takes the place of flask-openapi3's own reading,
which goes through `get_json(silent=True)`: that forgives what we refuse, and cannot tell broken JSON from null."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

from flask import request
from flask_openapi3.blueprint import APIBlueprint
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api.errors import MAX_PARAM_CHARS, BodyTooLarge, UnreadableBody, UnsupportedEncoding, invalid_request
from promptq.contract.errors import InvalidRequest, JobNotFound
from promptq.runtime import logs

Model = TypeVar("Model", bound=BaseModel)
View = Callable[..., Any]
KEY_IF_ANY: list[dict[str, list[Any]]] = [{}, {"key": []}]
"""In the schema: an API key, where the service has any."""
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


class StrictBlueprint(APIBlueprint):
    """A blueprint whose views get headers, path, query and body checked by pydantic, the body as strict JSON."""

    def __init__(self, name: str, import_name: str, **options: Any) -> None:
        """Operations are known by the names of their views."""
        super().__init__(name, import_name, operation_id_callback=lambda name, **_: name, **options)

    @staticmethod
    def create_view_func(func: View, *parts: Any, **_: Any) -> View:
        """Wrap a view. `parts` are the types of its header, cookie, path, query, form, body and raw arguments."""
        header, _cookie, path, query, _form, body, _raw = parts

        @wraps(func)
        def view(**values: str) -> Any:
            try:
                arguments = _arguments(header, path, query, body, values)
            except ValidationError as error:
                raise invalid_request(error) from None
            return func(**arguments)

        return view


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
    # Second, and only for what is known to be small in structure and sane in its numbers.
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
        raise UnreadableBody("The body is incomplete, or its chunks are malformed.", param="body") from error
    return raw


def _arguments(header: Any, path: Any, query: Any, body: Any, values: dict[str, str]) -> dict[str, BaseModel]:
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


def readable_id(job_id: str) -> str:
    """The id, where it may be one of RQ's; no other text gets to be part of a Redis key.

    Raises:
        JobNotFound: it cannot be a job's.
    """
    if not is_readable_id(job_id):
        raise JobNotFound(job_id[:MAX_PARAM_CHARS])
    logs.add(job_id=job_id)
    return job_id


def is_readable_id(job_id: str) -> bool:
    """Whether it may be one of RQ's ids."""
    return bool(_JOB_ID.fullmatch(job_id))
