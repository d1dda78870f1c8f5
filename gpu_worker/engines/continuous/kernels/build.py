"""Compiles the kernels, once for each version of them. No torch here: an image is built without it.

`python -m gpu_worker.engines.continuous.kernels.build FOLDER` compiles into a folder beforehand, for a machine without
a compiler.
"""

from __future__ import annotations

import hashlib
import logging
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
# Named in place of -march=native, so that a file that is kept serves every machine with AVX2. -ffast-math is not taken:
# it would lose NaN, by which a broken row is known, and change how the whole process rounds.
FLAGS = ("-O3", "-mavx2", "-mfma", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
# GCC first: its OpenMP is torch's, so both use the same threads.
COMPILERS = ("gcc", "cc")
TIME_LIMIT_SECONDS = 120


class BuildError(Exception):
    """The kernels cannot be compiled here; says why in one line."""


def library(folder: Path) -> Path:
    """The compiled kernels: those that came with the program, or else those in `folder`, compiled now if need be.

    Safe with several processes at once.

    Raises:
        BuildError: no compiler, one that fails, or a folder that cannot be written.
    """
    name = f"kernels-{_version()}.so"
    for place in (BUILT, folder):
        if (place / name).is_file():
            return place / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "kernels.lock"):
            if not (folder / name).is_file():
                _compile(folder / name)
    except OSError as error:
        raise BuildError(f"{folder}: {error}") from error
    return folder / name


def _version() -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:16]


def _compile(target: Path) -> None:
    """Compile beside the target, and name the file when it is whole."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise BuildError(f"no compiler: none of {', '.join(COMPILERS)} is on the PATH")
    # In a folder of its own: of a worker that was killed here the compiler goes on, and writes its file.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        partial = Path(folder) / target.name
        _run([compiler, *FLAGS, *(str(HERE / source) for source in SOURCES), "-o", str(partial), "-lm"])
        partial.rename(target)
    log.info("compiled the kernels to %s", target)


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
    print(library(Path(sys.argv[1])))
