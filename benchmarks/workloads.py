"""Seeded workloads: prompts of an exact number of tokens, and how many tokens each is to get."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OUTPUTS = (8, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        prompt: text that the tokenizer makes exactly `ids` of.
        tokens: completion tokens to generate, whatever they are.
    """

    prompt: str
    ids: list[int]
    tokens: int


class Words:
    """Words that are one token each, wherever they stand."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        texts = (token.replace("Ġ", " ") for token in tokenizer.get_vocab() if token.startswith("Ġ"))
        self._words = sorted(text for text in texts if text[1:].isascii() and text[1:].isalpha() and len(text) > 3)

    def request(self, rng: random.Random, length: int, tokens: int, prefix: str = "") -> Request:
        """A request whose prompt, behind the prefix, has so many tokens."""
        while True:
            prompt = prefix + "".join(rng.choices(self._words, k=length))
            ids = list(self._tokenizer(prompt)["input_ids"])
            if len(ids) == length + len(self._tokenizer(prefix)["input_ids"] if prefix else []):
                return Request(prompt, ids, tokens)


Make = Callable[[Words, random.Random], list[Request]]


def even(words: Words, rng: random.Random) -> list[Request]:
    """32 alike: 32 tokens in, 32 out."""
    return [words.request(rng, 32, 32) for _ in range(32)]


def mixed(words: Words, rng: random.Random) -> list[Request]:
    """48 requests: 8 to 96 tokens in, 8 to 128 out."""
    return [words.request(rng, rng.randint(8, 96), rng.choice(OUTPUTS)) for _ in range(48)]


def long_prompts(words: Words, rng: random.Random) -> list[Request]:
    """8 requests: 384 to 768 tokens in, 32 out."""
    return [words.request(rng, rng.randint(384, 768), 32) for _ in range(8)]


def one_long(words: Words, rng: random.Random) -> list[Request]:
    """One request for 256 tokens, then 31 for 8 each."""
    return [words.request(rng, 32, 256), *(words.request(rng, 32, 8) for _ in range(31))]


def shared_prefix(words: Words, rng: random.Random) -> list[Request]:
    """24 requests with the same 256 tokens first, then 16 of their own; 24 out."""
    prefix = words.request(rng, 256, 0).prompt
    return [words.request(rng, 16, 24, prefix) for _ in range(24)]


WORKLOADS: dict[str, Make] = {
    "mixed": mixed,
    "even": even,
    "long_prompts": long_prompts,
    "one_long": one_long,
    "shared_prefix": shared_prefix,
}


def make(name: str, words: Words, seed: int, repeat: int) -> list[Request]:
    """The workload of a repeat. Lengths are those of the seed; the words differ, lest a prefix cache knows them."""
    shape, fresh = random.Random(seed), random.Random(f"{seed}-{repeat}")
    requests = WORKLOADS[name](words, shape)
    if name == "shared_prefix":
        return WORKLOADS[name](words, fresh)
    return [words.request(fresh, len(request.ids), request.tokens) for request in requests]
