"""LoRA adapters of one model: by name, with what vLLM wants to know of them. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gpu_worker.engines.continuous.loading.fingerprint import model_fingerprint
from promptq.contract.errors import EngineError, InvalidRequest

RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""For which vLLM has kernels."""


class Adapters:
    """The adapters of an entry.

    Args:
        sources: by name, each a folder or a Hugging Face id.

    Raises:
        EngineError: one has no adapter_config.json, or a rank that vLLM has no kernels for.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._folders = {name: _folder(name, source) for name, source in sources.items()}
        self._rank = max((_rank(name, folder) for name, folder in self._folders.items()), default=0)

    def __bool__(self) -> bool:
        return bool(self._folders)

    def arguments(self, device: str) -> dict[str, Any]:
        """Those of vLLM's EngineArgs; rows of several adapters run in one step.

        On a CPU vLLM gives a row without an adapter, beside others with one, the last place's (it takes -1 for an
        index): so there is a place more, which stays empty.
        """
        if not self._folders:
            return {}
        places = len(self._folders) + (device == "cpu")
        return {"enable_lora": True, "max_loras": places, "max_lora_rank": self._rank}

    def request(self, name: str) -> Any:
        """vLLM's LoRARequest; None for the model itself.

        Raises:
            InvalidRequest: there is no such adapter.
        """
        if not name:
            return None
        if name not in self._folders:
            known = ", ".join(self._folders) or "none"
            raise InvalidRequest(f"adapter: the model has no adapter {name!r}; it has: {known}", param="adapter")
        from vllm.lora.request import LoRARequest

        return LoRARequest(name, list(self._folders).index(name) + 1, str(self._folders[name]))

    def fingerprint(self) -> str:
        """SHA-256 (hex) over their names and files."""
        marks = "".join(f"{name}\0{model_fingerprint(folder)}\0" for name, folder in sorted(self._folders.items()))
        return hashlib.sha256(marks.encode()).hexdigest()


def _folder(name: str, source: str) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir() and not source.startswith((".", "/", "~")):
        folder = _from_hub(name, source)
    if not (folder / "adapter_config.json").is_file():
        raise EngineError(f"adapters.{name}: {source}: no such folder, or no adapter_config.json in it")
    return folder


def _from_hub(name: str, source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source))
    except Exception as error:  # no network, no such id, no right to it
        raise EngineError(f"adapters.{name}: {source}: {str(error).splitlines()[0]}") from error


def _rank(name: str, folder: Path) -> int:
    rank = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("r", 0)
    fitting = [each for each in RANKS if each >= rank]
    if not rank or not fitting:
        raise EngineError(f"adapters.{name}: adapter_config.json: r={rank}; vLLM takes 1 to {RANKS[-1]}")
    return fitting[0]
