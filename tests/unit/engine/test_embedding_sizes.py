"""How many numbers of an embedding may be asked for."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from gpu_worker.engines.continuous.encoder.sizes import Sizes
from promptq.contract.errors import InvalidRequest


def sizes(unit: bool = True, **config: Any) -> Sizes:
    return Sizes.of(SimpleNamespace(**config), 4, unit)


@pytest.mark.parametrize(
    ("config", "has", "said"),
    [
        ({}, {4}, "4, and no other number"),
        ({"is_matryoshka": True}, {1, 2, 3, 4}, "1 to 4 numbers"),
        ({"matryoshka_dimensions": [8, 3, 2]}, {2, 3, 4}, "2, 3, 4, and no other number"),
        ({"matryoshka_dimensions": [2], "is_matryoshka": True}, {2, 4}, "2, 4, and no other number"),
    ],
)
def test_which_there_are(config: dict[str, Any], has: set[int], said: str) -> None:
    sizes(**config).check(None)
    for asked in range(1, 10):
        if asked in has:
            sizes(**config).check(asked)
            continue
        with pytest.raises(InvalidRequest) as refused:
            sizes(**config).check(asked)
        assert (refused.value.param, refused.value.message) == (
            "dimensions", f"dimensions: the model's embeddings have {said}"
        )  # fmt: skip


def test_a_shorter_one_is_as_long_as_the_whole_where_that_has_the_length_one() -> None:
    whole = [0.5, -0.5, 0.5, 0.5]
    assert sizes(is_matryoshka=True).cut(whole, 2) == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])
    assert sizes(unit=False, is_matryoshka=True).cut(whole, 2) == [0.5, -0.5]
    assert sizes().cut(whole, None) is sizes().cut(whole, 4) is whole
    assert sizes(is_matryoshka=True).cut([0.0, 1.0], 1) == [0.0], "there is no direction to keep"
