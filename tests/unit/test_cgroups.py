"""What a process may use, read from trees as the kernel and Docker make them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from promptq.runtime.cgroups import memory_left, processors

GIB = 2**30
V1_NONE = "9223372036854771712"
V2_MOUNT = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
V1_MOUNTS = (
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
)


def tree(root: Path, mounts: str, cgroup: str, files: Mapping[str, str]) -> Path:
    """Files below /sys/fs/cgroup, and what /proc says."""
    texts = {"proc/self/mounts": f"proc /proc proc rw 0 0\n{mounts}", "proc/self/cgroup": cgroup}
    texts |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def test_a_container_of_v2_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n",
        "memory.stat": f"anon 5\ninactive_file {GIB // 2}\n", "cpu.max": "150000 100000\n",
    }  # fmt: skip
    root = tree(tmp_path, V2_MOUNT, "0::/\n", files)
    assert memory_left(root) == 2 * GIB - GIB // 2
    assert processors(root) == 2


def test_the_least_of_a_slice_and_a_unit_in_it_counts(tmp_path: Path) -> None:
    unit, slice_ = "system.slice/promptq.service", "system.slice"
    files = {
        f"{unit}/memory.max": "max\n", f"{unit}/memory.current": "5\n", f"{unit}/cpu.max": "400000 100000\n",
        f"{slice_}/memory.max": f"{GIB}\n", f"{slice_}/memory.current": "24\n", f"{slice_}/cpu.max": "max 100000\n",
    }  # fmt: skip
    root = tree(tmp_path, V2_MOUNT, f"0::/{unit}\n", files)
    assert memory_left(root) == GIB - 24
    assert processors(root) == 4


@pytest.mark.parametrize("inside", [True, False])
def test_a_container_of_v1_has_its_group_mounted_or_the_host_s(tmp_path: Path, inside: bool) -> None:
    folder = "" if inside else "docker/abc/"
    files = {
        f"memory/{folder}memory.limit_in_bytes": f"{GIB}\n", f"memory/{folder}memory.usage_in_bytes": f"{GIB // 4}\n",
        f"memory/{folder}memory.stat": f"cache 9\ntotal_inactive_file {GIB // 8}\n",
        f"cpu,cpuacct/{folder}cpu.cfs_quota_us": "300000\n", f"cpu,cpuacct/{folder}cpu.cfs_period_us": "100000\n",
    }  # fmt: skip
    cgroup = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n"
    root = tree(tmp_path, V1_MOUNTS, cgroup, files)
    assert memory_left(root) == GIB - GIB // 8
    assert processors(root) == 3


def test_no_limit_is_none(tmp_path: Path) -> None:
    v1 = {
        "memory/memory.limit_in_bytes": V1_NONE, "memory/memory.usage_in_bytes": "7",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }  # fmt: skip
    v2 = {"memory.max": "max\n", "memory.current": "7\n", "cpu.max": "max 100000\n"}
    for name, mounts, cgroup, files in (
        ("v1", V1_MOUNTS, "2:memory:/\n1:cpu,cpuacct:/\n", v1), ("v2", V2_MOUNT, "0::/\n", v2), ("none", "", "", {}),
    ):  # fmt: skip
        root = tree(tmp_path / name, mounts, cgroup, files)
        assert (memory_left(root), processors(root)) == (None, 8)


def test_a_quota_of_less_than_one_processor_is_one(tmp_path: Path) -> None:
    assert processors(tree(tmp_path, V2_MOUNT, "0::/\n", {"cpu.max": "20000 100000\n"})) == 1


@pytest.fixture
def group() -> Iterator[Path]:
    """A real memory group of this machine, with a limit of 300 MiB."""
    for parent, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        folder = Path("/sys/fs/cgroup", parent, f"promptq-test-{os.getpid()}")
        with suppress(OSError):
            folder.mkdir()
            (folder / limit).write_text(str(300 * 2**20))
            yield folder
            folder.rmdir()
            return
    pytest.skip("no memory cgroup can be made here: it takes root and the controller")


def test_a_process_in_a_real_group_sees_its_limit(group: Path) -> None:
    program = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); " + (
        "from promptq.runtime.cgroups import memory_left; print(memory_left())"
    )
    command = [sys.executable, "-c", program, str(group / "cgroup.procs")]
    left = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert 200 * 2**20 < left <= 300 * 2**20
