"""How the programs are started, whatever folder one is in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import promptq
from promptq.contract.environment import child_environment

HOME: Final = str(Path(promptq.__file__).resolve().parent.parent)
"""The folder that the programs lie in: a checkout, or an environment's site-packages."""


def command(module: str, *arguments: str) -> list[str]:
    """Run one of our modules, in UTF-8 whatever the locale.

    -P, so that a folder `api` where the user happens to be is not taken for ours.
    """
    return [sys.executable, "-X", "utf8", "-P", "-m", module, *arguments]


def environment(unset: tuple[str, ...] = (), **values: str) -> dict[str, str]:
    """This process's environment with changes, in which the programs are found."""
    path = [HOME, *filter(None, child_environment().get("PYTHONPATH", "").split(os.pathsep))]
    return child_environment(unset, PYTHONPATH=os.pathsep.join(dict.fromkeys(path)), **values)
