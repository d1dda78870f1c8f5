"""No text is read or written in whatever encoding the locale has."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.processes import ROOT

PRODUCT = ("api", "dispatcher", "docs", "gpu_worker", "locustfiles", "ops", "promptq", "scaler")
TEXT = {"open", "read_text", "write_text", "fdopen", "TextIOWrapper", "NamedTemporaryFile", "TemporaryFile"}
PROCESSES = {"text", "universal_newlines"}
NOT_FILES = {"direct.open", "self._opener.open", "os.open"}
"""urllib's openers, and descriptors."""


def test_every_text_names_its_encoding() -> None:
    files = [path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in _by_locale(path.read_bytes())]
    assert found == []


def _by_locale(source: bytes) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _is_text(node) and "encoding" not in {one.arg for one in node.keywords}:
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    if any(one.arg in PROCESSES and ast.unparse(one.value) == "True" for one in call.keywords):
        return True
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    modes = [one.value for one in ast.walk(call) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return name in TEXT and not any("b" in mode and len(mode) <= 3 for mode in modes) and not _is_exempt(call)


def _is_exempt(call: ast.Call) -> bool:
    return ast.unparse(call.func) in NOT_FILES
