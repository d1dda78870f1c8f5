"""Whether a worker's process is gone for certain, though nobody saw it end."""

from __future__ import annotations

import socket

from promptq.contract import addresses

ANSWER_SECONDS = 0.3


def is_gone(metrics_url: str) -> bool:
    """Whether its machine answers that nobody listens where it did: then it has ended, and cannot store or renew.

    A machine that does not answer may be dead or only cut off, and its worker may go on: that is no evidence.
    """
    host, port = addresses.split(metrics_url) or ("", None)
    if port is None:
        return False
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
