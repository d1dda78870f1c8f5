"""The file of API keys. `python -m api.api_keys NAME` makes a new key, and the line that admits it."""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from promptq.contract.errors import SettingsError
from promptq.contract.shares import LEAST_WEIGHT, MOST_WEIGHT

_LINE = re.compile(r"([A-Za-z0-9_.-]{1,64})\s+([0-9a-f]{64})(?:\s+weight=([0-9]{1,9}(?:\.[0-9]{1,9})?))?")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the file says of one key.

    Attributes:
        name: whose it is; several keys may have one name.
        weight: the share of a queue that the name has beside others.
    """

    name: str
    weight: float = 1.0


def digest(key: str) -> str:
    """What the file holds in place of the key. A plain hash will do for a key of 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: str) -> dict[str, ApiKey]:
    """Keys by SHA-256. A line is `name sha256`, with `weight=2` behind it or not, empty, or a comment after `#`.

    Raises:
        SettingsError: the file is missing, malformed or empty, or gives one name two weights; no line is repeated, for
            it may hold a key.
    """
    keys: dict[str, ApiKey] = {}
    weights: dict[str, float] = {}
    for number, line in enumerate(_lines(file), 1):
        text = line.split("#")[0].strip()
        match = _LINE.fullmatch(text)
        if text and not match:
            raise SettingsError(f"PROMPTQ_API_KEYS_FILE: line {number} of {file} is not `name sha256 [weight=1]`")
        if match:
            key = keys[match[2]] = ApiKey(match[1], _weight(match[3] or "1", number, file))
            if weights.setdefault(key.name, key.weight) != key.weight:
                raise SettingsError(f"PROMPTQ_API_KEYS_FILE: line {number} of {file} gives a name a second weight")
    if not keys:
        raise SettingsError(f"PROMPTQ_API_KEYS_FILE: {file} holds no key")
    return keys


def _weight(text: str, number: int, file: str) -> float:
    if not LEAST_WEIGHT <= float(text) <= MOST_WEIGHT:
        bounds = f"between {LEAST_WEIGHT:g} and {MOST_WEIGHT:g}"
        raise SettingsError(f"PROMPTQ_API_KEYS_FILE: line {number} of {file}: a weight is {bounds}")
    return float(text)


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"PROMPTQ_API_KEYS_FILE: cannot read {file}: {error}") from None


def main() -> int:
    """Print a new key, which is kept nowhere, and its line."""
    if len(sys.argv) != 2 or not _LINE.fullmatch(f"{sys.argv[1]} {'0' * 64}"):
        print("usage: python -m api.api_keys NAME   (letters, digits and . _ -)", file=sys.stderr)
        return 2
    key = "pq_" + secrets.token_urlsafe(32)
    print(f"key, for the client; it is kept nowhere:  {key}")
    print(f"line for PROMPTQ_API_KEYS_FILE:           {sys.argv[1]} {digest(key)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
