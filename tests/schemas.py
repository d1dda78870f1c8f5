"""Random JSON schemas, of bounded texts: nested objects, arrays, enums, patterns, references."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

PATTERNS = ("^[a-z]{1,6}$", "^[A-Z][a-z]{0,4}$", "^(north|south)-[0-9]{2}$", "^[0-9]{4}-[0-9]{2}$", "^a+b?$")
REFERENCED = {"type": "object", "properties": {"of": {"enum": ["us", "them"]}}, "required": ["of"],
              "additionalProperties": False}  # fmt: skip


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """An object's schema, some with references into their own definitions."""
    schema = _object(rng, depth)
    if rng.random() < 0.4:
        schema["$defs"] = {"thing": REFERENCED}
        schema["properties"]["thing"] = {"$ref": "#/$defs/thing"}
        schema["required"].append("thing")
    return schema


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(["name", "age", "kind", "tags", "inner", "on"], rng.randint(1, 3))
    properties = {name: _any(rng, depth - 1) for name in names}
    required = [name for name in names if rng.random() < 0.8]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _any(rng: random.Random, depth: int) -> dict[str, Any]:
    kinds: list[Callable[..., dict[str, Any]]] = [_string, _pattern, _number, _enum, _boolean]
    if depth > 0:
        kinds += [_array, _object, _either]
    return rng.choice(kinds)(rng, depth)


def _string(rng: random.Random, _depth: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": rng.randint(1, 8)}


def _pattern(rng: random.Random, _depth: int) -> dict[str, Any]:
    pattern = rng.choice(PATTERNS)
    return {"type": "string", "pattern": "^a{1,4}b?$" if pattern == "^a+b?$" else pattern}


def _number(rng: random.Random, _depth: int) -> dict[str, Any]:
    low = rng.randint(-50, 50)
    return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 500)}


def _enum(rng: random.Random, _depth: int) -> dict[str, Any]:
    return {"enum": rng.sample(["red", "green", "wörd", 'a "quoted" one', 1, 2.5, True, None], rng.randint(1, 4))}


def _boolean(_rng: random.Random, _depth: int) -> dict[str, Any]:
    return {"type": "boolean"}


def _array(rng: random.Random, depth: int) -> dict[str, Any]:
    return {
        "type": "array",
        "items": _any(rng, depth - 1),
        "minItems": rng.randint(0, 2),
        "maxItems": rng.randint(2, 3),
    }


def _either(rng: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_any(rng, depth - 1), {"type": "null"}]}
