"""Compiles the kernels, once for each version and each kind of processor. No torch here: an image is built without it.

`python -m gpu_worker.engines.continuous.kernels.build FOLDER` compiles into a folder beforehand, for machines without a
compiler: everything that this machine's kind of processor may run.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
# What came with the program, in an image without a compiler.
BUILT = HERE / "built"
SOURCES = ("product.c", "attention.c", "rows.c")
HEADERS = ("vectors.h",)
# -ffast-math is not taken: it would lose NaN, by which a broken row is known, and change how the whole process rounds.
FLAGS = ("-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
# What a processor has, named in place of -march=native, so that a file that is kept serves every machine which has it.
TARGETS = {
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
    # All of aarch64 has NEON. GCC's first scheduling loads so far ahead that one of the sums leaves the registers.
    "neon": ("-fno-schedule-insns",),
}
X86, ARM = ("avx512", "avx2"), ("neon",)
_MACHINES = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}
# GCC first: its OpenMP is torch's, so both use the same threads.
COMPILERS = ("gcc", "cc")
TIME_LIMIT_SECONDS = 120


class BuildError(Exception):
    """The kernels cannot be compiled here; says why in one line."""


def targets() -> tuple[str, ...]:
    """What this kind of machine may run, the widest vectors first; which of them its processor has is not asked."""
    return _MACHINES.get(platform.machine(), ())


def library(folder: Path, target: str) -> Path:
    """The kernels compiled for a target: those that came with the program, or else those in `folder`, compiled now if
    need be.

    Safe with several processes at once.

    Raises:
        BuildError: no compiler, one that fails, or a folder that cannot be written.
    """
    name = f"kernels-{target}-{version(target)}.so"
    for place in (BUILT, folder):
        if (place / name).is_file():
            return place / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "kernels.lock"):
            if not (folder / name).is_file():
                _compile(folder / name, target)
    except OSError as error:
        raise BuildError(f"{folder}: {error}") from error
    return folder / name


def version(target: str) -> str:
    """Of the source and of how it is compiled."""
    digest = hashlib.sha256(" ".join(FLAGS + TARGETS[target]).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def command(compiler: str, target: str, output: Path) -> list[str]:
    """The compiler's command line."""
    sources = (str(HERE / source) for source in SOURCES)
    return [compiler, *FLAGS, *TARGETS[target], *sources, "-o", str(output), "-lm"]


def _compile(path: Path, target: str) -> None:
    """Compile beside the path, and name the file when it is whole."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise BuildError(f"no compiler: none of {', '.join(COMPILERS)} is on the PATH")
    # In a folder of its own: of a worker that was killed here the compiler goes on, and writes its file.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name
        _run(command(compiler, target, partial))
        partial.rename(path)
    log.info("compiled the kernels to %s", path)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=TIME_LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {TIME_LIMIT_SECONDS} s") from error
    if done.returncode:
        raise BuildError(f"{command[0]}: {(done.stderr.strip() or 'failed without a word').splitlines()[0]}")


if __name__ == "__main__":
    for target in targets():
        print(library(Path(sys.argv[1]), target))
