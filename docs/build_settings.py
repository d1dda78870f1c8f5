"""Writes docs/settings.md from the settings classes: `make settings-docs`."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from promptq.contract.batch_settings import BatchSettings, OwnDispatcherSettings  # noqa: E402
from promptq.contract.environment import PREFIX  # noqa: E402
from promptq.contract.fleet_settings import FleetSettings  # noqa: E402
from promptq.contract.kubernetes_settings import KubernetesSettings  # noqa: E402
from promptq.contract.scaler_settings import OwnScalerSettings, RetiredScalerSettings  # noqa: E402
from promptq.contract.settings import (  # noqa: E402
    ApiSettings,
    CommonSettings,
    WorkerSettings,
)

PAGE = ROOT / "docs/settings.md"
PROGRAMS: dict[str, type[BaseSettings]] = {
    "All programs": CommonSettings,
    "API and dispatcher": BatchSettings,
    "API": ApiSettings,
    "Workers": WorkerSettings,
    "Scaler": OwnScalerSettings,
    "Scaler: the fleet": FleetSettings,
    "Scaler: pods": KubernetesSettings,
    "Scaler, of an earlier policy": RetiredScalerSettings,
    "Dispatcher": OwnDispatcherSettings,
}
HEAD = """# Settings

Environment variables, or lines of `.env` in the working folder. A wrong or unknown one ends the program with one line
that names it, and exit code 2. Every program prints its settings at the start, passwords masked.

This page is made from `promptq/contract/settings.py` by `make settings-docs`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(title, program) for title, program in PROGRAMS.items())]).rstrip() + "\n"


def _section(title: str, program: type[BaseSettings]) -> str:
    inherited = {name for base in program.__bases__ for name in base.model_fields}  # those of BaseSettings are none
    fields = {name: field for name, field in program.model_fields.items() if name not in inherited}
    return "\n".join([f"## {title}\n", *(_entry(name, field) for name, field in fields.items()), ""])


def _entry(name: str, field: FieldInfo) -> str:
    default = f" (`{field.default}`)" if str(field.default) else ""
    text = f"- `{PREFIX}{name.upper()}`{default}: {field.description}"
    return "\n".join(textwrap.wrap(text, 116, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
