"""Drafts: a row's next tokens, guessed from its own text, so that one step can confirm several. No torch here.

A step with few rows takes as long as the weights take to read, so a few tokens more cost next to nothing. They are
guessed as the text went on after the last place that ended in the same tokens: lists, code, quotations of the prompt.
The model computes the guesses together with the row's newest token, and keeps those that are what it would have chosen.
So the text is the same with drafts and without. (Known as prompt lookup decoding, Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding.)
"""

from __future__ import annotations

from collections.abc import Iterable

# The longest run of tokens that is looked for, then shorter ones.
RUNS = (3, 2, 1)
MOST_DRAFTS = 8
# What is known of the first guess before there was one, and how much one more counts.
FIRST_RIGHT = 0.5
NEWS_SHARE = 0.05
# How much of the difference from the first guess is forgotten in a step.
FORGOTTEN_SHARE = 0.002


class Drafter:
    """One row's text, and where each short run of tokens in it was last followed by another one.

    Attributes:
        text: the prompt and what was generated.
    """

    def __init__(self) -> None:
        self.text: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0

    def extend(self, tokens: Iterable[int]) -> None:
        """Add what the text goes on with."""
        self.text += tokens

    def guess(self, count: int) -> list[int]:
        """The next `count` tokens: as the text went on before, and then round again; none if it never said the same."""
        self._learn()
        for run in RUNS:
            start = self._after.get(tuple(self.text[-run:]))
            if start is not None:
                period = len(self.text) - start
                return [self.text[start + index % period] for index in range(count)]
        return []

    def _learn(self) -> None:
        """Take in what was added since the last guess: in a full batch nobody guesses, and this costs nothing."""
        for place in range(self._known, len(self.text)):
            self._after.update((tuple(self.text[place - run : place]), place) for run in RUNS if run <= place)
        self._known = len(self.text)


class DraftBudget:
    """How many tokens rows may guess: as many as get the most text out of a second.

    Args:
        free_tokens: tokens that a step computes in about the time of one. 0: nobody guesses.
        double_tokens: so many more, and it takes twice as long.

    Attributes:
        right: how often a row's first guess was right lately, from 0 to 1.
    """

    def __init__(self, free_tokens: int, double_tokens: int) -> None:
        self._free_tokens, self._double_tokens = free_tokens, double_tokens
        self.right = FIRST_RIGHT

    def each(self, rows: int, room: int, least_gain: float = 1.0) -> int:
        """How many each of so many rows may guess, where the one nearest to its end can use `room`.

        Args:
            least_gain: so many times the text of steps without guesses must be exceeded.
        """
        if not self._free_tokens or not rows:
            return 0
        best = max(range(min(MOST_DRAFTS, room) + 1), key=lambda drafts: self._gain(rows, drafts))
        return best if self._gain(rows, best) > least_gain * self._gain(rows, 0) else 0

    def note(self, right: bool) -> None:
        """A row's first guess was right, or not."""
        self.right += NEWS_SHARE * (right - self.right)

    def forget(self) -> None:
        """A step went by without guesses: what is known of them ages, so that they are tried again in a while."""
        self.right += FORGOTTEN_SHARE * (FIRST_RIGHT - self.right)

    def _gain(self, rows: int, drafts: int) -> float:
        """Tokens that a row gets out of a step, by the time it takes, in steps without drafts. A guess counts only if
        those before it were right: 1 + right + right² + …
        """
        tokens = sum(self.right**ahead for ahead in range(drafts + 1))
        beyond = max(0, rows * (drafts + 1) - self._free_tokens)
        return tokens / (1 + beyond / self._double_tokens)


def confirmed(drafts: tuple[int, ...], tokens: list[int]) -> list[int]:
    """The tokens that stand: up to the first that was guessed wrong, that one included.

    Args:
        tokens: what the model chose after the row's newest token, and after each draft.
    """
    right = 0
    while right < len(drafts) and drafts[right] == tokens[right]:
        right += 1
    return tokens[: right + 1]
