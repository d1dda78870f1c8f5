"""A TCP proxy whose target can be changed: the one address that clients know, while servers come and go behind it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Passes bytes on. Connections that are open keep the target they began with.

    Attributes:
        swallows_new: whether new connections are accepted, and nothing passes on them.
        rewrite: what becomes of the bytes that the server sends.
        loses_reply: the next bytes that the server sends never arrive: their connection breaks, and this is unset.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.swallows_new = False
        self.rewrite: Callable[[bytes], bytes] = bytes
        self.loses_reply = False
        self._sockets: list[socket.socket] = []
        self._silenced: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Nothing passes any more on the connections that are open, and none is closed: a firewall that drops."""
        self._silenced.update(self._sockets)

    def close(self) -> None:
        """Stop, and end every connection."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                if self.swallows_new:
                    self._silenced.update((client, server))
                for source, sink, change in ((client, server, bytes), (server, client, self._reply)):
                    threading.Thread(target=self._pump, args=(source, sink, change), daemon=True).start()

    def _reply(self, data: bytes) -> bytes:
        if self.loses_reply:
            self.loses_reply = False
            raise ConnectionResetError
        return self.rewrite(data)

    def _pump(self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silenced:
                    sink.sendall(change(data))
        if source in self._silenced:
            return  # nor does the other side hear of its end
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
