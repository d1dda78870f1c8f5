"""Reads the catalogue again when SIGHUP asks for it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence

from promptq.contract.catalogue import Catalogue
from promptq.contract.errors import SettingsError
from scaler.assembly import Assembly
from scaler.pools import PoolSpec

log = logging.getLogger(__name__)


class CatalogueReload:
    """What the scaler serves, as its file says. What is wrong in it is logged, and all stays as it is."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._requested = False

    def install(self) -> None:
        """Where a file lists the models, SIGHUP reads it again; else it is the end of a terminal, as ever."""
        if self._assembly.settings.models_file:
            signal.signal(signal.SIGHUP, lambda _number, _frame: self.request())

    def request(self) -> None:
        """Read it in the next round."""
        self._requested = True

    def specs(self) -> Sequence[PoolSpec] | None:
        """The pools that there are to be from now on; None: nobody asked."""
        if not self._requested:
            return None
        self._requested = False
        try:
            return self._read()
        except SettingsError as error:
            log.error("%s; all stays as it is.", error.message)
            return None

    def _read(self) -> Sequence[PoolSpec]:
        settings = self._assembly.settings
        before, found = settings.catalogue, settings.reread_catalogue()
        gone = [entry for entry in before.models if entry.name not in found.by_name]
        log.info("Models: %s%s.", ", ".join(found.by_name), "".join(f"; {entry.name} leaves" for entry in gone))
        # What ran for a model that leaves must still be taken back where its worker dies.
        settings.serve(Catalogue((*found.models, *gone), found.default))
        return self._assembly.serve(found)
