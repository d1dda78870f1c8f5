"""Workers that start on one GPU take turns: each measures what is free, and takes its memory, while no other does."""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


@contextmanager
def gpu_turn(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Hold these GPUs' locks, waiting for them; the end of the process lets go of them too.

    A folder that cannot be written is no reason to fail: then nobody is waited for.

    Args:
        folder: where the locks are, the same for all workers that are to take turns.
        names: of GPUs, as `gpu_names` gives them; none: nothing is held.
    """
    with ExitStack() as held:
        try:
            for name in sorted(set(names)):  # in one order everywhere, so that no two wait for each other
                _lock(held.enter_context(_opened(folder, name)), name)
        except OSError as error:
            log.warning("No lock is taken on GPU %s: %s", ", ".join(names), error)
        yield


def gpu_names(visible: str | None, count: int) -> list[str]:
    """Names for the first `count` GPUs that CUDA shows, from CUDA_VISIBLE_DEVICES; None: it is not set."""
    tokens = [str(index) for index in range(count)] if visible is None else visible.split(",")
    return [plain_name(token) for token in tokens[:count] if token.strip()]


def plain_name(name: str) -> str:
    """A GPU's name as a file may be called; with and without `GPU-` a UUID means the same one."""
    return re.sub(r"[^A-Za-z0-9-]", "_", name.strip().removeprefix("GPU-"))


def _opened(folder: Path, name: str) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"gpu-{name}").open("ab")


def _lock(file: IO[bytes], name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another worker takes its memory on GPU %s; waiting for it", name)
        fcntl.flock(file, fcntl.LOCK_EX)
