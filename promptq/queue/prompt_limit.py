"""Refuses prompts that are over the model's context, with the numbers. What gets past, the worker refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from promptq.contract.errors import InvalidRequest
from promptq.contract.request import GenerateRequest
from promptq.queue.model_facts import ModelFacts
from promptq.queue.published import Published

log = logging.getLogger(__name__)

FREE_BYTES = 256
"""Shorter prompts are not even compared with the context: it is larger."""

Apply = Callable[[Callable[..., int], tuple[Any, ...]], int]


def apply_here(function: Callable[..., int], arguments: tuple[Any, ...]) -> int:
    """Call it at once."""
    return function(*arguments)


class PromptLimit:
    """Counts tokens as the workers do, once a worker has told how. Until then all is let through.

    A token is at least one byte, so a prompt with fewer bytes than the context has tokens is never counted.

    Args:
        read: gives the model's facts as they are published; takes those that are known already.
        apply: calls a function with these arguments, where a long prompt takes a while: not necessarily in this thread.
    """

    def __init__(self, read: Callable[[ModelFacts | None], ModelFacts | None], apply: Apply = apply_here) -> None:
        self._apply = apply
        self._facts = Published(read)
        self._counter: tuple[str, Tokenizer | None] = ("", None)

    def check(self, request: GenerateRequest) -> None:
        """Let the request through if its prompt leaves room for a token, where one is to be generated.

        Raises:
            InvalidRequest: it does not.
        """
        room = 0 if request.task == "embed" else 1
        if request.prompt_token_ids is not None:
            self._check_ids(request.prompt_token_ids, room)
        turns = [_kept(turn.content or "") for turn in request.messages or ()]
        texts = turns if request.prompt is None else [request.prompt]
        size = sum(len(text.encode()) for text in texts)
        if size < FREE_BYTES or (facts := self._facts.current()) is None or size < facts.context_length:
            return
        plain = request.prompt is not None
        tokens = self._apply(_count, (self._tokenizer(facts), texts, plain))
        if tokens + room > facts.context_length:
            raise _too_long(tokens, facts.context_length, "prompt" if plain else "messages", room)

    def _check_ids(self, ids: Sequence[int], room: int) -> None:
        facts = self._facts.current()
        if facts and len(ids) + room > facts.context_length:
            raise _too_long(len(ids), facts.context_length, "prompt_token_ids", room)

    def _tokenizer(self, facts: ModelFacts) -> Tokenizer | None:
        if self._counter[0] != facts.sha256:
            self._counter = (facts.sha256, _parse(facts.tokenizer_json))
        return self._counter[1]


def _kept(content: str) -> str:
    """Of a chat's turn, what every template keeps: many trim it, and some drop what a model thought."""
    return content.rpartition("</think>")[2].strip()


def _parse(tokenizer_json: str) -> Tokenizer | None:
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library's only class
        log.warning("The workers' tokenizer cannot be read here, so only they refuse long prompts: %s", error)
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _count(tokenizer: Tokenizer | None, texts: Sequence[str], plain: bool) -> int:
    """Tokens of the prompt; of a chat the least that any template makes of it; 0 when nobody can tell."""
    if tokenizer is None:
        return 0
    return sum(map(len, tokenizer.encode_batch_fast(list(texts), add_special_tokens=plain)))


def _too_long(tokens: int, context: int, param: str, room: int) -> InvalidRequest:
    has = "The messages have at least" if param == "messages" else "The prompt has"
    shared = ", prompt and text together" if room else ""
    message = f"{has} {tokens:,} tokens; the context is {context:,}{shared}."
    return InvalidRequest(message, param=param)
