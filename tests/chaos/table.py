"""The table of what each scenario shows, and whether a run shows something else. Pure, but for its file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("ratchet.toml")
HEAD: Final = """\
# What each scenario of tests/chaos/scenarios.py shows. A run that shows something worse fails, and so does one that
# shows something better: note it with `python -m tests.chaos.ratchet --write`.
#   breaks: the laws of tests/chaos/invariants.py that it breaks, with the reason why that is left so for now
#   doubled: tokens that were generated twice, of the job with the most; its promise is in scenarios.py
"""
ENOUGH_RUNS: Final = 3
"""Fewer say nothing about how good a number can be."""


@dataclass(frozen=True)
class Outcome:
    """What a run of a scenario showed.

    Attributes:
        breaches: by the law that was broken, what broke it.
        crashes: of programs.
        doubled: tokens that were generated twice, of the job with the most.
    """

    breaches: Mapping[str, Sequence[str]] = field(default_factory=dict)
    crashes: int = 0
    doubled: int = 0


@dataclass(frozen=True)
class Entry:
    """What the table has of a scenario."""

    doubled: int = 0
    breaks: tuple[str, ...] = ()
    reason: str = ""


def read(path: Path = TABLE) -> dict[str, Entry]:
    """The table.

    Raises:
        ValueError: a breach has no reason, or there is a reason for none.
    """
    found = {
        name: Entry(fields["doubled"], tuple(fields.get("breaks", ())), fields.get("reason", ""))
        for name, fields in tomllib.loads(path.read_text()).items()
    }
    for name, entry in found.items():
        if bool(entry.breaks) != bool(entry.reason.strip()):
            raise ValueError(f"{name}: say for what reason it breaks {entry.breaks or 'nothing'}")
    return found


def write(entries: Mapping[str, Entry], path: Path = TABLE) -> None:
    """Write the table, in the given order."""
    path.write_text(HEAD + "".join(f"\n[{name}]\n{_lines(entry)}" for name, entry in entries.items()))


def _lines(entry: Entry) -> str:
    known = f"breaks = {json.dumps(entry.breaks)}\nreason = {json.dumps(entry.reason)}\n" if entry.breaks else ""
    return f"{known}doubled = {entry.doubled}\n"


def judge(noted: Entry | None, shown: Sequence[Outcome]) -> list[str]:
    """What runs of one scenario show that the table has not, a line each; better things have to be noted too."""
    if noted is None:
        return ["it is not in the table"]
    broken = {law: line for outcome in shown for law, lines in outcome.breaches.items() for line in lines[:1]}
    lines = [f"worse: {law} is broken: {line}" for law, line in broken.items() if law not in noted.breaks]
    lines += [f"better: {law} holds now" for law in noted.breaks if law not in broken]
    most = max(outcome.doubled for outcome in shown)
    if most > noted.doubled:
        lines.append(f"worse: {most} tokens were generated twice, not {noted.doubled}")
    if len(shown) >= ENOUGH_RUNS and entry_of(shown, noted.doubled, "").doubled < noted.doubled / 2:
        lines.append(f"better: {most} tokens were generated twice, not {noted.doubled}")
    return lines


def entry_of(shown: Sequence[Outcome], promise: int, reason: str) -> Entry:
    """What the table is to have of these runs. Numbers get some room: a busy machine is later with everything.

    Args:
        promise: tokens that may be generated twice at all.
        reason: why what is broken is left so.
    """
    most = max(outcome.doubled for outcome in shown)
    broken = tuple(sorted({law for outcome in shown for law in outcome.breaches}))
    return Entry(min(promise, 3 * most + 3), broken, reason if broken else "")
