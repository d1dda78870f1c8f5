"""From tokens to text that will not change: whole characters only, cut at a stop string. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from gpu_worker.engines.stop_filter import StopFilter

Decode = Callable[[list[int]], str]

# What a decoder shows for bytes that are not, or not yet, a character.
UNFINISHED = "\ufffd"
# A character has four bytes, so among so many tokens at a prompt's end one begins a character.
SEED_TOKENS = 8


class Detokenizer:
    """Decodes tokens one by one, so that the pieces add up to the decoding of all of them.

    A decoder may treat the first token of its input specially (SentencePiece drops its space). So each token is
    decoded behind its predecessors, and their text is taken off: a window of a few tokens, whatever the length. The
    first one is decoded behind the end of the prompt. A row that is continued takes its earlier tokens again.

    Args:
        decode: the tokenizer's, for a list of ids.
        special: ids that stand for no text.
        prompt: what the tokens follow.
    """

    def __init__(self, decode: Decode, special: Collection[int] = frozenset(), prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._special = special
        self._context, self._context_text = _seed(decode, prompt)
        self._new: list[int] = []

    def push(self, token: int) -> str:
        """Take one token; returns the text it completes, often "" in the midst of a character."""
        if token in self._special:
            return ""
        self._new.append(token)
        text = self._decode(self._context + self._new)
        if text.endswith(UNFINISHED) or len(text) <= len(self._context_text):
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """What the last tokens decode to, without an unfinished character at the end."""
        if not self._new:
            return ""
        return self._advance(self._decode(self._context + self._new)).rstrip(UNFINISHED)

    def _advance(self, text: str) -> str:
        fresh = text[len(self._context_text) :]
        self._context, self._new = self._new, []
        self._context_text = self._decode(self._context)
        return fresh


def _seed(decode: Decode, prompt: Sequence[int]) -> tuple[list[int], str]:
    """The fewest last tokens of the prompt that are text, of whole characters, and that text; nothing if none are."""
    for count in range(1, min(SEED_TOKENS, len(prompt)) + 1):
        context = list(prompt[-count:])
        text = decode(context)
        if text and UNFINISHED not in text:
            return context, text
    return [], ""


class TextStream:
    """One row's text, from its tokens.

    Args:
        decode, special, prompt: as the Detokenizer has them.
        stops: strings that end the text.

    Attributes:
        text: everything passed on so far.
    """

    def __init__(
        self,
        decode: Decode,
        special: Collection[int] = frozenset(),
        stops: Sequence[str] = (),
        prompt: Sequence[int] = (),
    ) -> None:
        self.text = ""
        self._detokenizer = Detokenizer(decode, special, prompt)
        self._filter = StopFilter(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._filter.stopped

    def push(self, token: int) -> str:
        """Take one token; returns new text that can no longer change."""
        return self._append(self._filter.push(self._detokenizer.push(token)))

    def flush(self) -> str:
        """The rest of the text, when no more tokens will come."""
        return self._append(self._filter.push(self._detokenizer.flush()) + self._filter.flush())

    def _append(self, text: str) -> str:
        self.text += text
        return text
