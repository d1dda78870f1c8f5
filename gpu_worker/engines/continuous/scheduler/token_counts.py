"""How often each token was generated, kept up from token to token: what penalties go by. No torch here."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence


class TokenCounts:
    """The distinct tokens of one row.

    Arrays, because a tensor is made of an array without a look at each number.

    Args:
        vocabulary: how many tokens the logits have; others, which some prompts have, are left out.
        prompt: tokens that were not generated and are to be there nevertheless, with the count 0.

    Attributes:
        ids: each token once.
        counts: how often each was generated, in the order of `ids`.
    """

    def __init__(self, vocabulary: int, prompt: Iterable[int] = ()) -> None:
        self._vocabulary = vocabulary
        self.ids = array("q", [token for token in dict.fromkeys(prompt) if token < vocabulary])
        self.counts = array("q", bytes(8 * len(self.ids)))
        self._places = {token: place for place, token in enumerate(self.ids)}

    def add(self, tokens: Iterable[int]) -> None:
        """Count what was generated."""
        for token in tokens:
            place = self._places.get(token)
            if place is not None:
                self.counts[place] += 1
            elif token < self._vocabulary:
                self._places[token] = len(self.ids)
                self.ids.append(token)
                self.counts.append(1)

    def behind(self, drafts: Sequence[int]) -> TokenCounts:
        """The counts as they will be if these tokens are generated next."""
        if not drafts:
            return self
        ahead = TokenCounts(self._vocabulary)
        ahead.ids, ahead.counts, ahead._places = self.ids[:], self.counts[:], self._places.copy()
        ahead.add(drafts)
        return ahead
