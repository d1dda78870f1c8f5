"""Texts that fit a JSON schema: which tokens may come next, by xgrammar, which is there or not.

A schema is compiled on a thread of its own, because that may take a while; its row waits, the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gpu_worker.engines.continuous.scheduler.sequence import Chunk
from gpu_worker.engines.continuous.tool_grammar import structural_tag
from gpu_worker.engines.continuous.vocabulary import Vocabulary
from promptq.contract.errors import InvalidRequest
from promptq.contract.request import ANY_OBJECT, GenerateRequest

Compiled = tuple[Any, Tensor]
"""xgrammar's grammar, and a bitmask of the tokens that it may allow at all, [words of 32]."""
CACHE_BYTES = 256 * 2**20
"""What compiled schemas may take, for the next row that has the same."""


class Grammars:
    """Compiles schemas for one model.

    Args:
        vocabulary: the tokens; those that end a text are allowed where the text is whole.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._thread = ThreadPoolExecutor(1, "grammar")
        self._compiler: Any = None
        self._masks: tuple[Tensor, Tensor] | None = None

    def grammar(self, schema: dict[str, Any]) -> Grammar:
        """What a row's text is held to, once it is compiled."""
        return Grammar(self._thread.submit(self._compile, schema), ends_by_token=bool(self.vocabulary.ends))

    def for_request(self, request: GenerateRequest) -> Grammar | None:
        """What this request's text is held to, if to anything."""
        if request.must_call:
            compiled = self._thread.submit(self._compile_calls, structural_tag(request))
            return Grammar(compiled, ends_by_token=bool(self.vocabulary.ends), field="tools")
        return self.grammar(request.json_schema) if request.json_schema is not None else None

    def read_vocabulary(self) -> None:
        """Have the tokens read, where that was not done yet, while the engine's thread goes on."""
        self._thread.submit(self.vocabulary.info)

    def close(self) -> None:
        """Compile nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _compile(self, schema: dict[str, Any]) -> Compiled:
        compiler, masks = self._prepared()
        try:
            # Without free whitespace, which a model may go on with for ever.
            compiled = compiler.compile_json_schema(
                json.dumps(schema), any_whitespace=False, strict_mode=schema != ANY_OBJECT
            )
            return compiled, masks[0]
        except RuntimeError as error:
            raise _refused("json_schema", error) from None

    def _compile_calls(self, tag: dict[str, Any]) -> Compiled:
        compiler, masks = self._prepared()
        try:
            return compiler.compile_structural_tag(json.dumps(tag)), masks[1]
        except RuntimeError as error:
            raise _refused("tools", error) from None

    def _prepared(self) -> tuple[Any, tuple[Tensor, Tensor]]:
        """The compiler, and the tokens for JSON and those for calls, which have new lines around their JSON."""
        import xgrammar

        if self._compiler is None or self._masks is None:
            info, tokens, size = self.vocabulary.info(), self.vocabulary.tokens(), self.vocabulary.size
            self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=CACHE_BYTES)
            self._masks = (
                _without_controls(tokens, size),
                # Strings have no new lines in xgrammar's grammars, so that these are let through does no harm.
                _without_controls([token.replace(b"\n", b"") for token in tokens], size),
            )
        return self._compiler, self._masks


def _refused(field: str, error: RuntimeError) -> InvalidRequest:
    return InvalidRequest(f"{field}: {str(error).strip().splitlines()[0]}", param=field)


class Grammar:
    """What one row's text may go on with.

    Args:
        compiled: what it goes by, when it is there.
        ends_by_token: whether a token of the model's ends the text.
        field: of the request, that asks for it.

    Attributes:
        matcher: xgrammar's, once it has begun.
    """

    def __init__(self, compiled: Future[Compiled], *, ends_by_token: bool, field: str = "json_schema") -> None:
        self._field = field
        self.compiled = compiled
        self._ends_by_token = ends_by_token
        self.matcher: Any = None
        self._ever_allowed: Tensor | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it can tell what may come next."""
        return self.matcher is not None

    @property
    def is_whole(self) -> bool:
        """Whether the text has ended by itself, no token being there for that."""
        return bool(self.matcher.is_terminated())

    def begin(self, tokens: Iterable[int]) -> None:
        """Start behind these tokens, which an earlier run generated.

        Raises:
            InvalidRequest: the schema cannot be followed, or no text fits it.
        """
        import xgrammar

        compiled, self._ever_allowed = self.compiled.result()
        self.matcher = xgrammar.GrammarMatcher(compiled, terminate_without_stop_token=not self._ends_by_token)
        if not self._allows_any():
            raise InvalidRequest(f"{self._field}: no text fits it", param=self._field)
        for token in tokens:
            self.accept(token)

    def cancel(self) -> None:
        """Nobody waits for it any more: if its schema was not begun with, it is not compiled."""
        self.compiled.cancel()

    def accept(self, token: int) -> None:
        """Take the next token of the text.

        Raises:
            ValueError: it is none of those that could come next.
        """
        if not self.matcher.accept_token(token):
            raise ValueError(f"token {token} does not fit the schema")

    def _allows_any(self) -> bool:
        assert self._ever_allowed is not None
        allowed = torch.zeros(1, len(self._ever_allowed), dtype=torch.int32)
        self.matcher.fill_next_token_bitmask(allowed)
        self.restrict(allowed[0])
        return bool(allowed.any())

    def restrict(self, allowed: Tensor) -> None:
        """Take what is never allowed out of a bitmask, in place."""
        if self._ever_allowed is not None:
            allowed &= self._ever_allowed


def _without_controls(tokens: Sequence[bytes], vocabulary: int) -> Tensor:
    """A bitmask of all tokens but those with a raw control character, which JSON never has.

    Where a string's length is limited xgrammar lets them through.
    """
    bits = torch.ones(32 * -(-vocabulary // 32), dtype=torch.int64)
    bits[[id for id, token in enumerate(tokens) if any(byte < 0x20 for byte in token)]] = 0
    words = (bits.view(-1, 32) << torch.arange(32)).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def mask(logits: Tensor, chunks: Sequence[Chunk]) -> Tensor:
    """Logits in which, of the rows with a schema, tokens that cannot come next are minus infinity.

    Args:
        logits: [positions, vocabulary]; may be changed in place.
    """
    positions = [chunk.sequence for chunk in chunks for _ in range(chunk.gives)]
    held = [(index, sequence.grammar) for index, sequence in enumerate(positions) if sequence.grammar]
    if not held:
        return logits
    import xgrammar

    logits = logits.float()
    allowed = xgrammar.allocate_token_bitmask(len(positions), logits.shape[-1])
    _fill(allowed, held)
    xgrammar.apply_token_bitmask_inplace(
        logits, allowed.to(logits.device, non_blocking=True), indices=[index for index, _ in held]
    )
    return logits


def _fill(allowed: Tensor, held: Sequence[tuple[int, Grammar]]) -> None:
    """Write which tokens may come next into rows of a bitmask, on all of the engine's threads."""
    indices, grammars = zip(*held, strict=True)
    _filler().batch_fill_next_token_bitmask([each.matcher for each in grammars], allowed, list(indices))
    for index, grammar in held:
        grammar.restrict(allowed[index])


@cache
def _filler() -> Any:
    import xgrammar

    return xgrammar.BatchGrammarMatcher(torch.get_num_threads())


def wait_for_one(grammars: Iterable[Grammar], seconds: float) -> None:
    """Until one of these is compiled, or so long."""
    wait([grammar.compiled for grammar in grammars], seconds, FIRST_COMPLETED)
