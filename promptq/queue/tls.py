"""Looks at the files that a `rediss://` address names, before the first connection reads them."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def check_files(options: Mapping[str, Any]) -> None:
    """See that they are there and hold what they should. They are read again for each connection, so they may change.

    Raises:
        ValueError: which option is wrong, and why.
    """
    for name in _FILES:
        _check(name, options, lambda path: open(path, "rb").close())
    if (folder := options.get("ssl_ca_path")) and not Path(folder).is_dir():
        raise ValueError(f"ssl_ca_path: {folder} is no folder")
    if options.get("ssl_keyfile") and not options.get("ssl_certfile"):
        raise ValueError("ssl_keyfile: name its certificate too, as ssl_certfile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _check("ssl_ca_certs", options, context.load_verify_locations)
    _check("ssl_certfile", options, lambda path: _load_own(context, path, options))


def is_unverified(options: Mapping[str, Any]) -> bool:
    """Whether anybody could take the server's place: its certificate, or the name in it, is not looked at."""
    is_checked = options.get("ssl_check_hostname", True) and options.get("ssl_cert_reqs", "required") == "required"
    return not is_checked


def _load_own(context: ssl.SSLContext, path: str, options: Mapping[str, Any]) -> None:
    # An empty password, because without one OpenSSL asks for it on the terminal.
    password = options.get("ssl_password") or ""
    context.load_cert_chain(path, options.get("ssl_keyfile"), lambda: password)


def _check(name: str, options: Mapping[str, Any], load: Callable[[str], object]) -> None:
    path = options.get(name)
    if not path:
        return
    try:
        load(path)
    except ssl.SSLError as error:
        what = (
            "its key does not fit it"
            if "KEY_VALUES_MISMATCH" in str(error)
            else "no PEM file, or its password is wrong"
        )
        raise ValueError(f"{name}: {path}: {what}") from None
    except OSError as error:
        raise ValueError(f"{name}: {path}: {(error.strerror or 'cannot be read').lower()}") from None
