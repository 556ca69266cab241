"""Tell a node of the same root that there is something new, without waiting for its next look.

A node listens on a UDP port of the loopback interface and writes port and a random token into ``run/<node>.wake`` (mode
0600). Whoever has committed something sends the token there. A wake-up is only a hint: it carries nothing, a lost one
costs at most one poll interval, a forged one without the token is dropped, and with it causes a look at the database.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
from pathlib import Path

from relaymesh.run_file import put_run_file

__all__ = ["WakeListener", "WakeSender"]

_TOKEN_BYTES = 16
_FILES_MAX = 64


class WakeListener:
    """A node's end."""

    def __init__(self, run: Path, node_id: str) -> None:
        self._path = run / f"{node_id}.wake"
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        self._closed = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._port = int(self._socket.getsockname()[1])
        put_run_file(self._path, f"{self._port} {self._token.hex()}\n".encode("ascii"))

    def wait(self) -> bool:
        """Block until somebody wakes us; False when the listener was closed."""
        while True:
            try:
                data = self._socket.recv(_TOKEN_BYTES + 1)
            except OSError:
                if self._closed:
                    return False
                continue  # Windows reports a datagram that is too long as an error
            if self._closed or hmac.compare_digest(data, self._token):
                return not self._closed

    def close(self) -> None:
        """Stop listening; a thread in ``wait`` comes back."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        port, token = self._port, self._token
        # A blocked recv does not notice that its socket was closed, so it gets one last datagram. Who gets it must know
        # what it means, although the socket is still open: another recv would block for ever.
        self._closed = True
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(token, ("127.0.0.1", port))
        self._socket.close()


class WakeSender:
    """Whoever commits something for others to do."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._socket: socket.socket | None = None
        self._targets: list[tuple[int, bytes]] = []
        self._seen: tuple[int, int] | None = None

    def wake(self) -> None:
        """Wake every node of the root on this machine; never fails and never waits."""
        try:
            self._refresh()
            if not self._targets:
                return
            if self._socket is None:
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            for port, token in self._targets:
                with contextlib.suppress(OSError):
                    self._socket.sendto(token, ("127.0.0.1", port))
        except OSError:
            return

    def _refresh(self) -> None:
        stat = self._run.stat()
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen == self._seen:
            return
        targets = []
        for path in sorted(self._run.glob("*.wake"))[:_FILES_MAX]:
            with contextlib.suppress(OSError, ValueError):
                port, token = path.read_text("ascii").split()
                targets.append((int(port), bytes.fromhex(token)))
        self._targets, self._seen = targets, seen

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
