"""A row as the engine sees it: how far its prompt is computed and its text generated. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpu_worker.engines.base import FinishReason, Row
from gpu_worker.engines.continuous.scheduler.drafts import Drafter
from gpu_worker.engines.continuous.scheduler.token_counts import TokenCounts

if TYPE_CHECKING:
    from gpu_worker.engines.continuous.grammar import Grammar

Failure = tuple[str, str]
"""The (type, message) that a row's error event carries."""
Processors = Callable[[Any, Any], Any]
"""Changes logits [1, vocabulary] that follow the ids [1, tokens]; the same for the same ids."""


@dataclass(slots=True, eq=False)
class SequenceState:
    """One live row.

    Attributes:
        prompt: token ids that are computed before the row decodes: the request's, and behind them the resumed ones.
        resumed: how many of them an earlier run generated.
        limit: the most tokens it may generate: `max_tokens`, or what is left of the context.
        seed: decides every draw of this row.
        slot: where its KV memory is, which the cache turns into an address; None until the scheduler admits it.
        computed: tokens whose keys and values are in the slot.
        reused: of these, prompt tokens that were copied from another slot, not computed.
        generated: completion tokens so far, the resumed ones included; an end-of-sequence token is not one.
        last: the newest token, not yet in the slot.
        batch_size: the most rows that were live in one step with it, itself included.
        passed_over: steps in which it waited for prefill and got none.
        is_crowded_out: whether it found no room when its turn came last.
        ending: how it is to end at the next step, with the error if that is the reason.
        drafter: guesses how its text goes on.
        ends: ids that end its text.
        processors: what its logits go through before a token is chosen; None: nothing.
        counts: what its request's penalties go by; None: it has none.
        grammar: what the text must fit, which may still be compiling; None: anything.
        bias: tensors of token ids, and of what is added to their logits; None: it has none.
    """

    row: Row
    prompt: list[int]
    limit: int
    seed: int = 0
    slot: int | None = None
    computed: int = 0
    reused: int = 0
    resumed: int = 0
    generated: int = 0
    last: int = 0
    batch_size: int = 0
    passed_over: int = 0
    is_crowded_out: bool = False
    ending: tuple[FinishReason, Failure | None] | None = None
    drafter: Drafter = field(default_factory=Drafter)
    ends: Set[int] = frozenset()
    processors: Processors | None = None
    counts: TokenCounts | None = None
    bias: tuple[Any, Any] | None = None
    grammar: Grammar | None = None

    @property
    def is_prefilled(self) -> bool:
        """Whether the whole prompt is in the slot, so that the row decodes."""
        return self.computed >= len(self.prompt)

    @property
    def is_held(self) -> bool:
        """Whether it must wait until it is known what its text must fit."""
        return self.grammar is not None and not self.grammar.has_begun

    @property
    def is_plain(self) -> bool:
        """Whether its next token is simply the likeliest, and nothing else is asked about it."""
        request = self.row.request
        edited = self.processors or self.counts or self.bias or self.grammar
        return not (request.temperature or request.logprobs or edited)

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the request's own prompt has."""
        return len(self.prompt) - self.resumed

    @property
    def most_tokens(self) -> int:
        """The most tokens whose keys and values it may have: drafts never go beyond its limit either."""
        return self.prompt_tokens + self.limit

    @property
    def text(self) -> list[int]:
        """All its tokens: those of the prompt and those generated; the first `computed` are in the slot."""
        return self.drafter.text

    def resume(self, tokens: Sequence[int]) -> None:
        """Go on behind tokens that an earlier run generated."""
        self.prompt.extend(tokens)
        self._generate(tokens)
        self.resumed = len(tokens)

    def append(self, token: int) -> None:
        """Take the next token of its text."""
        self.last = token
        self._generate([token])

    def end(self, reason: FinishReason, error: Failure | None = None) -> None:
        """Note how the row is to end. The first reason stands."""
        if self.ending is None:
            self.ending = (reason, error)

    def _generate(self, tokens: Sequence[int]) -> None:
        self.generated += len(tokens)
        self.drafter.extend(tokens)
        if self.counts:
            self.counts.add(tokens)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, stop) of one admitted sequence, to be computed in this step: of its prompt, or its newest one.

    Attributes:
        drafts: guesses that follow its newest token.
    """

    sequence: SequenceState
    start: int
    stop: int
    drafts: tuple[int, ...] = ()

    @property
    def slot(self) -> int:
        """Where the tokens go."""
        assert self.sequence.slot is not None, "only admitted sequences are run"
        return self.sequence.slot

    @property
    def tokens(self) -> list[int]:
        """Their ids."""
        return [self.sequence.last, *self.drafts] if self.decodes else self.sequence.prompt[self.start : self.stop]

    @property
    def decodes(self) -> bool:
        """Whether the prompt is behind it."""
        return self.start >= len(self.sequence.prompt)

    @property
    def gives(self) -> int:
        """How many tokens follow from it: a chunk that ends within the prompt gives none."""
        return 1 + len(self.drafts) if self.stop >= len(self.sequence.prompt) else 0
