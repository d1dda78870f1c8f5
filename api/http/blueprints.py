"""What an endpoint is written with: its blueprint, and the marks by which the code around views knows it.

A blueprint is guarded (keys, limits, no other site's web pages) unless it says `guarded=False`. A view that submits
jobs is marked by `@submits_jobs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from flask import Blueprint, current_app, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.http.validation import read_arguments
from api.schemas import ErrorResponse

View = Callable[..., Any]
AnyView = TypeVar("AnyView", bound=View)
_KEY_IF_ANY: list[dict[str, list[Any]]] = [{}, {"key": []}]
"""In the schema: an API key, where the service has any."""


class StrictBlueprint(APIBlueprint):
    """A blueprint whose views get headers, path, query and body checked by pydantic, the body as strict JSON.

    Args:
        tag: the heading that its operations have in the schema; empty: they are not in the schema.
        guarded: whether its views are for callers with a key (where keys are in use) and not for other sites' pages.
        options: those of `APIBlueprint`.
    """

    def __init__(self, name: str, import_name: str, *, tag: str = "", guarded: bool = True, **options: Any) -> None:
        super().__init__(
            name,
            import_name,
            abp_tags=[Tag(name=tag)] if tag else None,
            abp_security=_KEY_IF_ANY if guarded else None,
            abp_responses={"default": ErrorResponse},
            doc_ui=bool(tag),
            operation_id_callback=lambda name, **_: name,  # the name of the view
            **options,
        )
        self.guarded = guarded

    @staticmethod
    def create_view_func(func: View, *parts: Any, **_: Any) -> View:
        """Wrap a view. `parts` are the types of its header, cookie, path, query, form, body and raw arguments."""
        header, _cookie, path, query, form, body, _raw = parts

        @wraps(func)
        def view(**values: str) -> Any:
            arguments = read_arguments(header, path, query, body, values)
            # A form may be hundreds of megabytes, so it reads the request by itself.
            return func(**arguments, form=form.receive()) if form else func(**arguments)

        return view


class OpenAIBlueprint(StrictBlueprint):
    """A blueprint whose errors are in OpenAI's form."""

    speaks_openai = True


class OpenPages(Blueprint):
    """Pages for everyone, which are no calls of the API and not in its schema."""

    guarded = False


def submits_jobs(view: AnyView) -> AnyView:
    """Mark a view as one that submits jobs: its errors count as refused submits, until it has acknowledged one."""
    # On the innermost function, where it is found whatever other decorators the view has, in any order.
    inspect.unwrap(view).submits_jobs = True
    return view


def is_submit() -> bool:
    """Whether the present request is for a view that submits jobs."""
    if request.endpoint is None or request.method == "OPTIONS":
        return False
    return hasattr(inspect.unwrap(current_app.view_functions[request.endpoint]), "submits_jobs")


def speaks_openai() -> bool:
    """Whether the present request is for a view whose errors are in OpenAI's form."""
    return request.blueprint is not None and hasattr(current_app.blueprints[request.blueprint], "speaks_openai")


def is_guarded() -> bool:
    """Whether the present request is for a guarded view.

    One that no view answers is guarded where it starts like a guarded view's, so that it tells strangers nothing.
    """
    if request.endpoint is None:
        return _first_segment(request.path) in _guarded_segments()
    return _is_guarded(request.endpoint)


def _is_guarded(endpoint: str) -> bool:
    """The innermost blueprint that says something decides; a view outside of all blueprints is guarded."""
    names = endpoint.split(".")[:-1]
    while names:
        guarded: bool | None = getattr(current_app.blueprints[".".join(names)], "guarded", None)
        if guarded is not None:
            return guarded
        names.pop()
    return True


def _guarded_segments() -> set[str]:
    return {_first_segment(rule.rule) for rule in current_app.url_map.iter_rules() if _is_guarded(rule.endpoint)}


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""
