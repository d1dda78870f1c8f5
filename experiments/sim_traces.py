"""The arrivals that the scaler is simulated on: five shapes, two records of a real service, three irregular ones.

A trace is the share of the largest fleet that the arrivals of each second keep busy. The records are of Azure's public
dataset (`data/azure_llm_2023.json` says which, and its licence), scaled to 0.9 in their busiest ten seconds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

TRACE_SECONDS = 3600
RECORDS = Path(__file__).parent / "data" / "azure_llm_2023.json"
BUSIEST_SECONDS = 10
Trace = Any
"""An array of floats, one a second."""


def traces() -> dict[str, Trace]:
    """Every trace by its name."""
    at = np.arange(TRACE_SECONDS)
    records = json.loads(RECORDS.read_text())
    return {
        "steady": np.full(TRACE_SECONDS, 0.7),
        "burst": np.where((at >= 1200) & (at < 1380), 0.9, 0.1),
        "daily": 0.05 + 0.85 * (1 - np.cos(2 * math.pi * at / TRACE_SECONDS)) / 2,
        "on-off": np.where(at % 180 < 60, 0.8, 0.0),
        "flash 50×": np.where((at >= 1800) & (at < 2100), 0.9, 0.018),
        "Azure code": _scaled(records["code"]),
        "Azure chat": _scaled(records["conv"]),
        "surges": _surges(),
        "walk": _walk(),
        "batches": _batches(),
    }


def _scaled(counts: list[int]) -> Trace:
    seen = np.array(counts, float)
    means = np.convolve(seen, np.ones(BUSIEST_SECONDS) / BUSIEST_SECONDS, mode="valid")
    return 0.9 * seen / means.max()


def _surges() -> Trace:
    """Over a calm load: surges of any height up to half of the fleet, at any time, for any length."""
    rng, trace, at = np.random.default_rng(20), np.full(TRACE_SECONDS, 0.15), 0.0
    while (at := at + 60 + rng.exponential(180)) < TRACE_SECONDS:
        length = rng.lognormal(math.log(45), 0.7)
        trace[int(at) : int(at + length)] = 0.15 + rng.uniform(0.1, 0.5)
        at += length
    return trace


def _walk() -> Trace:
    """A random walk of the logarithm, a step every 20 seconds."""
    rng, level, trace = np.random.default_rng(21), math.log(0.3), np.empty(TRACE_SECONDS)
    for begin in range(0, TRACE_SECONDS, 20):
        level = min(math.log(0.8), max(math.log(0.05), level + rng.normal(0, 0.25)))
        trace[begin : begin + 20] = math.exp(level)
    return trace


def _batches() -> Trace:
    """Over a calm load: as many jobs as keep half of the fleet busy for 5 to 40 seconds, put in within a second."""
    rng, trace, at = np.random.default_rng(22), np.full(TRACE_SECONDS, 0.1), 0.0
    while (at := at + 40 + rng.exponential(120)) < TRACE_SECONDS:
        trace[int(at)] += 0.5 * rng.uniform(5, 40)
    return trace
