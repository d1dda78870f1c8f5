"""Log probabilities of tokens, in the one form that progress, results and answers have: OpenAI's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

TokenLogprob = dict[str, Any]
"""`token`: its text; `logprob`: natural; `bytes`: where the text shows them not as they are; `top_logprobs`: a list of
the same, the likeliest first."""
MAX_TOP = 20
"""As many alternatives may be asked for as OpenAI gives."""


def token_logprob(data: bytes, logprob: float, top: Iterable[TokenLogprob] | None = None) -> TokenLogprob:
    """One token, by its bytes, which may be a part of a character."""
    text = data.decode(errors="replace")
    entry: TokenLogprob = {"token": text, "logprob": logprob}
    if text.encode() != data:
        entry["bytes"] = list(data)
    return entry if top is None else entry | {"top_logprobs": list(top)}


def read_logprobs(texts: Iterable[str]) -> tuple[TokenLogprob, ...]:
    """Those of several pieces of a text, each as JSON, or nothing where they were not asked for."""
    return tuple(entry for text in texts if text for entry in from_json(text))


def with_bytes(entry: Mapping[str, Any]) -> TokenLogprob:
    """As OpenAI has it, where no token is without its bytes."""
    data = entry.get("bytes") or list(entry["token"].encode())
    whole: TokenLogprob = {"token": entry["token"], "logprob": entry["logprob"], "bytes": data}
    if "top_logprobs" in entry:
        whole["top_logprobs"] = [with_bytes(each) for each in entry["top_logprobs"]]
    return whole


def legacy(entries: Sequence[Mapping[str, Any]], offset: int = 0) -> dict[str, Any]:
    """As `/v1/completions` has it.

    Args:
        offset: characters of the text before the first token.
    """
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{each["token"]: each["logprob"] for each in (*e["top_logprobs"], e)} for e in entries],
        "text_offset": offsets,
    }
