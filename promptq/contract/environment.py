"""The environment. The only module that reads it; what is set there, `settings` has in classes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from typing import Final

from dotenv import dotenv_values

from promptq.contract.errors import SettingsError

PREFIX: Final = "PROMPTQ_"


def is_set(field: str) -> bool:
    """Whether the user gave this setting, in the environment or in `.env`."""
    return PREFIX + field.upper() in _given()


def given(names: Collection[str]) -> dict[str, str]:
    """Of these variables those that are set, in the environment or in `.env`, for a program on another machine."""
    values = {name.upper(): value for name, value in dotenv_values(".env").items()} | dict(os.environ)
    return {name: value for name in sorted(names) if (value := values.get(name)) is not None}


def secret(variable: str) -> str:
    """The value of a variable that a setting names, because it is not to be written where the setting is."""
    return os.environ.get(variable, "")


def child_environment(unset: tuple[str, ...] = (), **values: str) -> dict[str, str]:
    """This process's environment for a child, with changes, and without the names in `unset`."""
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return environment | values


def publish_to_environment(**values: str) -> None:
    """Set variables that this process or its libraries read from the environment later on."""
    os.environ.update(values)


def publish_defaults(**values: str) -> None:
    """The same, for those that are not set."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def refuse_unknown(known: Collection[str]) -> None:
    """Let no variable of ours pass that is no setting.

    Raises:
        SettingsError: there is one; the message says which setting may have been meant.
    """
    for name in sorted(_given() - set(known)):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{name}: unknown setting{hint}", param=name)


def refuse_undecoded() -> None:
    """Python hands on bytes that the locale has no character for; no text that leaves the process may have them.

    Raises:
        SettingsError: a variable of ours has such bytes.
    """
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIX) and any("\udc80" <= character <= "\udcff" for character in value):
            raise SettingsError(f"{name}: is no text in this locale; set PYTHONUTF8=1", param=name)


def _given() -> set[str]:
    names = {name.upper() for name in os.environ} | {name.upper() for name in dotenv_values(".env")}
    return {name for name in names if name.startswith(PREFIX)}
