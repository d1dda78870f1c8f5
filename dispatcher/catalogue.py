"""The duty of the catalogue: SIGHUP has it read again."""

from __future__ import annotations

import logging
import signal

from promptq.contract.errors import SettingsError
from promptq.contract.settings import DispatcherSettings

log = logging.getLogger(__name__)


class CatalogueDuty:
    """Lines may name the models of the file as it is now. What is wrong in it is logged, and all stays as it is."""

    name = "catalogue"
    is_busy = False

    def __init__(self, settings: DispatcherSettings) -> None:
        self._settings = settings
        self._requested = False

    def install(self) -> None:
        """Where a file lists the models, SIGHUP reads it again; else it is the end of a terminal, as ever."""
        if self._settings.models_file:
            signal.signal(signal.SIGHUP, lambda _number, _frame: self.request())

    def request(self) -> None:
        """Read it in the next round."""
        self._requested = True

    def run(self) -> None:
        """Read it, where that was asked for."""
        if not self._requested:
            return
        self._requested = False
        try:
            found = self._settings.reread_catalogue()
        except SettingsError as error:
            log.error("%s; all stays as it is.", error.message)
            return
        self._settings.serve(found)
        log.info("Models: %s.", ", ".join(found.by_name))

    def close(self) -> None:
        """Nothing is under way."""
