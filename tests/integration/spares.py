"""The environment that a spare is started with."""

from __future__ import annotations

from typing import Any

from promptq.contract.environment import PREFIX
from promptq.runtime import programs


def environment(**settings: Any) -> dict[str, str]:
    return programs.environment(**{PREFIX + name.upper(): str(value) for name, value in settings.items()})
