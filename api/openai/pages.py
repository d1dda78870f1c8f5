"""Pages of lists, as OpenAI has them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any


def page_fields(objects: Iterable[Any], limit: int) -> dict[str, Any]:
    """What a page says of a list: its first `limit` objects, each with an `id`, and whether there are more.

    No more objects are taken than one behind the page.
    """
    taken = list(islice(objects, limit + 1))
    shown = taken[:limit]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return {"data": shown, "first_id": first, "last_id": last, "has_more": len(taken) > len(shown)}
