"""The documents agree with the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from promptq.contract.keys import Key, Keys
from promptq.contract.settings import PREFIX, PROGRAMS

ROOT = Path(__file__).parents[2]
SETTINGS = {name: field for program in PROGRAMS for name, field in program.model_fields.items()}


@pytest.mark.parametrize("key", Keys().catalogue().values(), ids=lambda key: key.start)
def test_every_key_is_in_the_schema(key: Key) -> None:
    assert f"`{key.start}{key.suffix}` | {key.type} |" in (ROOT / "docs/redis-schema.md").read_text()


def test_every_script_is_in_the_schema() -> None:
    text = (ROOT / "docs/redis-schema.md").read_text()
    for script in (ROOT / "promptq/queue/lua").glob("*.lua"):
        assert script.stem in ("common", "cache", "candidate", "admission") or f"| {script.stem} |" in text, script.stem


@pytest.mark.parametrize(("name", "field"), SETTINGS.items(), ids=SETTINGS)
def test_every_setting_is_in_the_readme_with_its_default(name: str, field: FieldInfo) -> None:
    default = f"`{field.default}`" if str(field.default) else "–"
    assert f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |" in (ROOT / "README.md").read_text()
