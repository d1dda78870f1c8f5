"""The short table at the end. No torch here: what is shown is in the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each stage, and under it the numbers that are looked for first."""
    versions = results.get("versions", {}).get("found", {})
    lines = [f"card: {versions.get('card', 'unknown')}, torch {versions.get('packages', {}).get('torch', '?')}"]
    for name, result in results.items():
        lines.append(
            f"{name:14}{result['status']:11}{result.get('seconds', 0):6.1f} s  {result.get('error', '')}".rstrip()
        )
        lines += [f"  {line}" for line in _numbers(name, result.get("found", {}))]
    return "\n".join(lines)


def _numbers(stage: str, found: Found) -> Iterator[str]:
    """What a stage has to show. A part that is not there, or not as expected, must not cost the table."""
    try:
        yield from list(SHOWN.get(stage.partition("-")[0] if stage.startswith("steps") else stage, _parts)(found))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        yield f"cannot be shown: {type(error).__name__}: {error}"


def _rates(found: Found) -> Iterator[str]:
    yield f"copy {found['copy_bytes_per_second'] / 1e12:.3f} TB/s, launch {found['launch_seconds'] * 1e6:.1f} µs"
    for name, value in found.items():
        if name.endswith("operations_per_second"):
            yield f"{name.partition('_')[0]} {value / 1e12:.1f} TFLOP/s"


def _flash(found: Found) -> Iterator[str]:
    cases, worst, most = len(found["cases"]), found["worst"], found["most"]
    yield f"{found['kind']}, {cases} cases, differs by {worst:.1e} of its size at most ({most:.0e} allowed)"


def _parity(found: Found) -> Iterator[str]:
    for name, part in found.items():
        if "largest_gap" in part:
            yield (
                f"{name}: {part['tokens']} tokens, gap {part['largest_gap']:.1e} (law {part['law']:.0e}), "
                f"drawn alike {part['drawn_alike']} of {part['drawn_rows']}, {_verdict(part)}"
            )
        else:
            yield f"{name}: {_short(part)}"


STEPS_HEAD = (
    f"{'rows':>5} {'lengths':8}{'path':9}{'ms':>8}{'ahead':>8}{'floor':>8}{'est.':>8}{'× est.':>7}"
    f"{'tokens/s':>10}{'launches':>9}{'host':>6}"
)


def _steps(found: Found) -> Iterator[str]:
    yield STEPS_HEAD
    for step in found["steps"]:
        if "error" in step:
            yield f"{step.get('rows', ''):>5} {step.get('lengths', ''):8}{step['path']:9}{step['error']}"
            continue
        yield (
            f"{step['rows']:5} {step['lengths']:8}{step['path']:9}{_ms(step['seconds'])}"
            f"{_ms(step['overlapped_seconds'])}{_ms(step.get('floor_seconds'))}{_ms(step.get('estimate_seconds'))}"
            f"{_number(step.get('times_estimate'), 7, 2)}{step['tokens_per_second']:10.0f}{step['launches']:9}"
            f"{step['host_share']:6.0%}"
        )


def _first_token(found: Found) -> Iterator[str]:
    for name, part in found.items():
        first = part.get("first_token_seconds")
        if first is None:
            yield f"{name}: {_short(part)}"
            continue
        yield (
            f"{name}: first token after {first['median'] * 1e3:.0f} ms (median), {first['p95'] * 1e3:.0f} (p95), "
            f"longest step {part['longest_step_seconds'] * 1e3:.0f} ms, "
            f"{part['prompt_tokens_per_second']:.0f} prompt tokens/s"
        )


def _peers(found: Found) -> Iterator[str]:
    for name, part in found.items():
        if isinstance(part, Mapping):
            yield (
                f"{name}: {part['tokens_per_second']:.0f} tokens/s" if "seconds" in part else f"{name}: {_short(part)}"
            )


def _start(found: Found) -> Iterator[str]:
    for name, part in found.items():
        yield f"{name}: {_worker(part)}"


def _two_workers(found: Found) -> Iterator[str]:
    for name, part in found.items():
        for worker in part if isinstance(part, list) else [part]:
            yield f"{name}: {_worker(worker)}"


def _worker(part: Found) -> str:
    if "slots" not in part:
        return _short(part)
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in part["parts"].items())
    return f"{part['seconds']:.2f} s ({parts}), {part['slots']} slots"


def _step_cost(found: Found) -> Iterator[str]:
    for name, part in found.items():
        if "error" in part:
            yield f"{name}: {_short(part)}"
            continue
        wanted = ("free_tokens", "double_tokens", "prefill_tokens", "beside")
        yield f"{name}: " + ", ".join(f"{each} {part[each]} (stands {part['stands'].get(each)})" for each in wanted)


def _vllm(found: Found) -> Iterator[str]:
    for name, part in found.items():
        if isinstance(part, Mapping) and "times_vllm" in part:
            yield f"{name}: " + ", ".join(
                f"{engine} {rate:.0f} tokens/s ({part['times_vllm'][engine]:.2f})"
                for engine, rate in part["tokens_per_second"].items()
            )


def _parts(found: Found) -> Iterator[str]:
    for name, part in found.items():
        if isinstance(part, Mapping) and ("holds" in part or "error" in part):
            yield f"{name}: {_verdict(part)} {_short(part)}".rstrip()


SHOWN: Mapping[str, Callable[[Found], Iterator[str]]] = {
    "rates": _rates, "flash": _flash, "parity": _parity, "steps": _steps, "first-token": _first_token,
    "peers": _peers, "start": _start, "two-workers": _two_workers, "step-cost": _step_cost, "vllm": _vllm,
}  # fmt: skip


def _verdict(part: Found) -> str:
    return "holds" if part.get("holds", "error" not in part) else "DOES NOT HOLD"


def _short(part: Any) -> str:
    """A part in a line: what went wrong, if something did."""
    if isinstance(part, Mapping):
        said = [str(part[name]) for name in ("error", "refused", "message", "skipped", "errors") if part.get(name)]
        part = " ".join(said) or {name: value for name, value in part.items() if name != "traceback"}
    return str(part)[:160]


def _ms(seconds: float | None) -> str:
    return _number(None if seconds is None else seconds * 1e3, 8, 3)


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'':>{width}}" if value is None else f"{value:{width}.{digits}f}"
