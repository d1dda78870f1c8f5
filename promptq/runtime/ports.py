"""Ports, with one clear line when one cannot be had."""

from __future__ import annotations

import socket

from promptq.contract.errors import SettingsError


def listen(setting: str, host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's; the message names the setting.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(f"{setting}: cannot listen on {host}:{port}: {error.strerror}") from None
