"""What a worker would make at its first start, which takes it a while, a compiler, and room on the disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.processes import ROOT

DATA = ROOT / ".promptq"


def link_made(folder: Path) -> None:
    """Put it into a data folder: the default model, converted, the kernels, and what came out when the model was
    compared with `generate`."""
    folder.mkdir(parents=True, exist_ok=True)
    for made in _make():
        (folder / made.name).symlink_to(made)


@cache
def _make() -> list[Path]:
    import torch  # most tests do without

    from gpu_worker.engines.continuous.kernels.library import load_all, usable_targets
    from gpu_worker.engines.continuous.loading import packaged

    packaged.folder(DATA)
    load_all(DATA / "kernels", usable_targets(torch.device("cpu"), torch.float32))
    (DATA / "checks").mkdir(exist_ok=True)
    return [folder for name in ("models", "kernels", "checks") if (folder := DATA / name).is_dir()]
