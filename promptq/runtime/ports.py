"""Ports, with one clear line when one cannot be had."""

from __future__ import annotations

import socket

from promptq.contract.addresses import host_port
from promptq.contract.errors import SettingsError


def listen(setting: str, host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's; the message names the setting.
    """
    try:
        # As gunicorn and prometheus_client do: every IPv6 address means every IPv4 address too, where the system can.
        both = host == "::" and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise SettingsError(f"{setting}: cannot listen on {host_port(host, port)}: {error.strerror}") from None
