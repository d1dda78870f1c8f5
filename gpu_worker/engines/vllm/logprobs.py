"""vLLM's log probabilities, in our form. They are of the model's own logits, before whatever a request does to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpu_worker.engines.continuous.logprobs import LEAST, Score, TokenTexts
from promptq.contract.logprobs import TokenLogprob
from promptq.contract.request import GenerateRequest


def describe_all(texts: TokenTexts, request: GenerateRequest, completion: Any) -> list[TokenLogprob]:
    """One entry for each new token of vLLM's CompletionOutput, where the request asks for them."""
    if not request.logprobs:
        return []
    pairs = zip(completion.token_ids, completion.logprobs, strict=True)
    return [texts.describe(token, score(token, known, request.top_logprobs)) for token, known in pairs]


def score(token: int, known: Mapping[int, Any], top: int) -> Score:
    """One token's.

    Args:
        known: vLLM's Logprobs by id: those of the likeliest tokens, and the chosen one's.
        top: how many of the likeliest are asked for.
    """
    likeliest = sorted((id for id in known if known[id].rank <= top), key=lambda id: int(known[id].rank))
    return Score(_clamped(known[token]), [(id, _clamped(known[id])) for id in likeliest])


def _clamped(known: Any) -> float:
    return max(float(known.logprob), LEAST)
