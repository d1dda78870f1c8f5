"""How the embedded server is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptq import embedded


def test_its_allocator_keeps_free_memory_at_hand_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the benchmark shows the effect: `python -m benchmarks.queue --parts depth`.

    The server's title overwrites its environment, so a script in its place looks at it.
    """
    script, seen = tmp_path / "server", tmp_path / "seen"
    script.write_text(f'#!/bin/sh\necho "$GLIBC_TUNABLES" >{seen}\nexec {embedded.find_binary()} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(embedded, "find_binary", lambda: script)
    embedded.EmbeddedServer(tmp_path / "data").start().stop()
    assert seen.read_text().strip() == embedded.ALLOCATOR
