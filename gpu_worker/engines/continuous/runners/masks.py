"""What each token of a step sees, as the masks that transformers' models take: one for all layers, or one for each
type of layer where some attend to a window and others to everything.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers.masking_utils import sliding_window_overlay

from gpu_worker.engines.continuous.kvcache.base import LayerShape

Mask = Tensor | dict[str, Tensor]


class Masks:
    """The masks of one model.

    Args:
        shapes: of its layers.
        dtype: the model's number format.
    """

    def __init__(self, shapes: Iterable[LayerShape], dtype: torch.dtype) -> None:
        self._windows = {shape.kind: shape.window for shape in shapes}
        self._dtype = dtype
        self._masked = torch.finfo(dtype).min

    def __call__(self, visible: Tensor, positions: Tensor, columns: Tensor) -> Mask:
        """To be added to the scores.

        Args:
            visible: whether a token may see a column where nothing limits how far back it looks,
                [rows, 1, tokens, columns].
            positions: of the tokens; columns: positions of what may be seen; both to be broadcast to `visible`.
        """
        kinds = {window: self._added(visible, positions, columns, window) for window in set(self._windows.values())}
        if len(kinds) == 1:
            return kinds.popitem()[1]
        return {kind: kinds[window] for kind, window in self._windows.items()}

    def _added(self, visible: Tensor, positions: Tensor, columns: Tensor, window: int | None) -> Tensor:
        if window is not None:
            visible = visible & sliding_window_overlay(window)(0, 0, positions, columns)
        return torch.zeros_like(visible, dtype=self._dtype).masked_fill_(~visible, self._masked)
