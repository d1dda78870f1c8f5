"""What this process may use of the machine, where a cgroup limits it: a container's memory and processors.

Limits hold for everything below a group, so the least of all groups from the process's own upwards counts. Both
versions are read: files of v2 (https://docs.kernel.org/admin-guide/cgroup-v2.html) and of v1 (…/cgroup-v1/).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 2**60
"""v1 says that there is no limit by a number near the largest there is."""


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that may still be taken; None where no cgroup limits them. What the kernel would drop from its cache of
    files counts as free.

    Args:
        root: for tests: where /proc and the cgroups' mounts are looked for.
    """
    left = [limit - used for limit, used in _memory(root) if limit < UNLIMITED]
    return max(0, min(left)) if left else None


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may keep busy: those that it is bound to, or fewer by a quota, rounded up."""
    quotas = [math.ceil(share) for share in _shares(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each group, in bytes."""
    for group in _groups(root, "memory"):
        v1 = (group / "memory.limit_in_bytes").exists()
        limit = _number(group / ("memory.limit_in_bytes" if v1 else "memory.max"))
        used = _number(group / ("memory.usage_in_bytes" if v1 else "memory.current"))
        if limit is not None and used is not None:
            yield limit, used - _stat(group / "memory.stat", "total_inactive_file" if v1 else "inactive_file")


def _shares(root: Path) -> Iterator[float]:
    """How many processors' time each group may use, where it has a quota."""
    for group in _groups(root, "cpu"):
        if (group / "cpu.cfs_quota_us").exists():
            quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        else:
            quota, period = (*map(_whole, _text(group / "cpu.max").split()), None, None)[:2]
        if quota is not None and quota > 0 and period:
            yield quota / period


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's groups, its own first, in every hierarchy that may have the controller."""
    paths = dict(_paths(root, controller))
    for point, kind in _mounts(root, controller):
        if kind not in paths:
            continue
        own = point / paths[kind].strip("/")
        # In a container its own group is often all that is mounted, though the path is the host's.
        group = own if own.is_dir() else point
        yield group
        while group != point:
            group = group.parent
            yield group


def _paths(root: Path, controller: str) -> Iterator[tuple[str, str]]:
    """The process's path in each hierarchy, by the type of its mount."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield "cgroup2", path
        elif controller in controllers.split(","):
            yield "cgroup", path


def _mounts(root: Path, controller: str) -> Iterator[tuple[Path, str]]:
    for line in _text(root / "proc/self/mounts").splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and controller in options.split(",")):
            yield root / point.strip("/"), kind


def _stat(path: Path, name: str) -> int:
    rows = dict(line.split(" ", 1) for line in _text(path).splitlines() if " " in line)
    return _whole(rows.get(name, "")) or 0


def _number(path: Path) -> int | None:
    return _whole(_text(path))


def _whole(text: str) -> int | None:
    """A whole number; None for what is none, as "max"."""
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
