"""`python -m tests.webhook_chaos.hasty_dispatcher`: the dispatcher with its waits made short, and in an internet of the
test's own: there 127.0.0.1 is a public address, `INSIDE` is a private one, and names change what they mean."""

from __future__ import annotations

import itertools
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from dispatcher import __main__ as program
from dispatcher.deliveries import egress, plan

OUTSIDE: Final = "127.0.0.1"
INSIDE: Final = "127.0.0.66"
BOTH: Final = "both.test"
"""Names in .test mean OUTSIDE at one look-up and INSIDE at the next one; this one means both at once."""
WAITS: Final = (*(0.05 * step for step in range(1, 11)), *(1.0 for _ in range(40)))
_ask: Final[Callable[..., Any]] = socket.getaddrinfo
_asked = itertools.count()


def _meaning(host: str) -> Sequence[str]:
    if host == BOTH:
        return [OUTSIDE, INSIDE]
    return [INSIDE if next(_asked) % 2 else OUTSIDE]


def look_up(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
    """In the place of the resolver's, for everything in this process."""
    if not str(host).endswith(".test"):
        return _ask(host, port, *rest, **options)
    return [found for address in _meaning(host) for found in _ask(address, port, *rest, **options)]


def main() -> int:
    """As the dispatcher's."""
    plan.WAITS, plan.TRIES = WAITS, len(WAITS) + 1  # type: ignore[assignment]
    vars(egress)["is_public"] = lambda address: address != INSIDE
    socket.getaddrinfo = look_up
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
