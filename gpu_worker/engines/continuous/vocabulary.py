"""The tokens of a model as xgrammar reads them, for grammars and log probabilities alike."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Collection, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

IS_AVAILABLE = importlib.util.find_spec("xgrammar") is not None


class Vocabulary:
    """Read once, by whichever thread asks first, because reading a large one takes a while; the others wait.

    Args:
        size: how many tokens the logits have.
        ends: ids that end a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, size: int, ends: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.size = size
        self.ends = sorted(ends)
        self._lock = threading.Lock()
        self._info: Any = None
        self._tokens: Sequence[bytes] = ()

    def info(self) -> Any:
        """xgrammar's `TokenizerInfo`."""
        with self._lock:
            if self._info is None:
                import xgrammar

                info = xgrammar.TokenizerInfo.from_huggingface(
                    self.tokenizer, vocab_size=self.size, stop_token_ids=self.ends or None
                )
                # xgrammar makes a new list each time that it is asked.
                self._tokens, self._info = info.decoded_vocab, info
        return self._info

    def tokens(self) -> Sequence[bytes]:
        """The bytes of each token, by its id."""
        self.info()
        return self._tokens
