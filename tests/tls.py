"""Certificates, and TLS before a server that has none, as stunnel would give it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Certificates:
    """A CA and what it has signed, as PEM files in a folder; `other-…` is of another CA."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for ca in ("ca", "other-ca"):
            self._openssl("req", "-x509", *self._new(ca), "-subj", f"/CN={ca}", "-days", "2")
        self._sign("server", "ca", NAMES)
        self._sign("elsewhere", "ca", "subjectAltName=DNS:redis.example.org")
        self._sign("client", "ca", "extendedKeyUsage=clientAuth")
        self._sign("other-client", "other-ca", "extendedKeyUsage=clientAuth")

    def __call__(self, name: str) -> str:
        """The path of a certificate, or with `.key` behind the name of its key."""
        return str(self.folder / (name if name.endswith(".key") else f"{name}.pem"))

    def query(self, ca: str = "ca", client: str = "client") -> str:
        """What an address has behind its `?` for them."""
        own = f"&ssl_certfile={self(client)}&ssl_keyfile={self(client + '.key')}" if client else ""
        return f"ssl_ca_certs={self(ca)}{own}"

    def _sign(self, name: str, ca: str, extension: str) -> None:
        request = self.folder / f"{name}.csr"
        self._openssl("req", *self._new(name, ".csr"), "-subj", f"/CN={name}")
        (self.folder / f"{name}.ext").write_text(extension)
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", self(ca), "-CAkey", self(f"{ca}.key"), "-CAcreateserial",
            "-days", "2", "-out", self(name), "-extfile", str(self.folder / f"{name}.ext"),
        )  # fmt: skip

    def _new(self, name: str, suffix: str = ".pem") -> list[str]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return [*curve, "-keyout", self(f"{name}.key"), "-out", str(self.folder / f"{name}{suffix}")]

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class TlsFront:
    """Speaks TLS with clients, of whom it asks for a certificate of the CA, and passes on what they say."""

    def __init__(self, target: int, certificates: Certificates, name: str = "server") -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates(name), certificates(f"{name}.key"))
        self._context.load_verify_locations(certificates("ca"))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            inside = held.enter_context(self._context.wrap_socket(client, True, do_handshake_on_connect=False))
            self._shake_hands(inside)
            server = held.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            while self._pass(inside, server):
                pass

    @staticmethod
    def _shake_hands(inside: ssl.SSLSocket) -> None:
        try:
            inside.do_handshake()
        except ssl.SSLError:
            # Who closes with something unread resets the connection, and the reason may never be seen.
            inside.shutdown(socket.SHUT_WR)
            while inside.recv(65536):
                pass
            raise

    @staticmethod
    def _pass(inside: ssl.SSLSocket, server: socket.socket) -> bool:
        """What has come, in both directions; False at the end of either."""
        ready = [inside] if inside.pending() else select.select([inside, server], [], [])[0]
        for source, sink in ((inside, server), (server, inside)):
            if source in ready:
                data = source.recv(65536)
                if not data:
                    return False
                sink.sendall(data)
        return True
