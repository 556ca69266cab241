"""The control socket of a node: messages from other processes of the machine, each with an answer.

A node listens on a Unix socket beside its file, or where there is none, as on Windows, on a TCP port of the loopback
interface. It writes which and a random key into ``run/<node>.control`` (mode 0600), so only who may read that file can
talk to it. Both ends prove that they have the key before anything
else is said; then the same bytes travel that actors send to each other, one message and one answer at a time.

    client ──connect──▶ node      challenge ⇄ response, both ways (HMAC, multiprocessing.connection)
           ──message──▶           at most CONTROL_BYTES_MAX
           ◀──answer───           or the end of the connection

What the socket is good for must be possible without it: whoever gets no answer falls back to the database, and asks in
such a way that being heard twice does no harm.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from relaymesh.run_file import put_run_file

__all__ = ["CONTROL_BYTES_MAX", "Channel", "ControlClient", "ControlListener"]

CONTROL_BYTES_MAX = 16 * 1024 * 1024
"""The longest message that is taken; what is longer goes to the database directly."""

_KEY_BYTES = 32
_FILES_MAX = 64
_BACKLOG = 16
_SUFFIX = ".socket"
_BESIDE = "unix"
_HEADER = struct.Struct("!i")
_PIECE = 65_536
# How long a peer may take to prove itself, to take an answer, and a node to give one. Seconds.
_PROOF_S = 2.0
_SEND_S = 0.5
_ANSWER_S = 2.0
# How long a node that stood still is left alone.
_REST_S = 5.0


class Channel:
    """One end of a connection: whole messages, each behind its length in four bytes.

    The form is that of ``multiprocessing.connection``, whose challenge is used for the proof; its ``Connection`` is
    not, because it can neither wait with a limit nor be closed while another thread reads from it.
    """

    def __init__(self, plain: socket.socket) -> None:
        if plain.family == socket.AF_INET:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_SEND_S))
        plain.settimeout(_PROOF_S)
        self._socket = plain
        self._pieces = bytearray()
        self._sending = threading.Lock()

    def wait_for(self, seconds: float | None) -> None:
        """Let ``recv_bytes`` wait so long for each piece of a message; None: as long as the peer is there."""
        self._socket.settimeout(seconds)

    def send_bytes(self, data: bytes) -> None:
        """Send one message.

        Raises:
            OSError: the peer is gone, or does not take it in time; then the channel is of no use any more.
        """
        with self._sending:
            self._socket.sendall(_HEADER.pack(len(data)) + data)

    def recv_bytes(self, bytes_max: int = CONTROL_BYTES_MAX) -> bytes:
        """Wait for one message.

        Raises:
            EOFError: the peer is gone, or this end was closed.
            OSError: it says nothing in time, or more than ``bytes_max`` at once.
        """
        (size,) = _HEADER.unpack(self._take(_HEADER.size))
        if not 0 <= size <= bytes_max:
            raise OSError(f"a message of {size} bytes, where at most {bytes_max} are taken")
        return self._take(size)

    def prove_first(self, key: bytes) -> bool:
        """Prove that we have the key, then have the peer prove it; False when either fails."""
        return self._prove(key, ours_first=True)

    def prove_second(self, key: bytes) -> bool:
        """As ``prove_first``, from the other end."""
        return self._prove(key, ours_first=False)

    def _prove(self, key: bytes, *, ours_first: bool) -> bool:
        # Here: what only submits once, as most commands do, does not load it.
        from multiprocessing import AuthenticationError
        from multiprocessing.connection import answer_challenge, deliver_challenge

        try:
            for step in (answer_challenge, deliver_challenge) if ours_first else (deliver_challenge, answer_challenge):
                step(cast(Any, self), key)  # they ask for no more of a connection than these two methods
        except (AuthenticationError, EOFError, OSError, AssertionError, ValueError):
            return False
        return True

    def close(self) -> None:
        """Close; a thread that waits in ``recv_bytes`` comes back."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _take(self, size: int) -> bytes:
        pieces = self._pieces
        while len(pieces) < size:
            piece = self._socket.recv(_PIECE)
            if not piece:
                raise EOFError
            pieces += piece
        taken = bytes(pieces[:size])
        del pieces[:size]
        return taken


class ControlListener:
    """A node's end."""

    def __init__(self, run: Path, node_id: str) -> None:
        self.key = secrets.token_bytes(_KEY_BYTES)
        self._path = run / f"{node_id}.control"
        self._beside = self._path.with_suffix(_SUFFIX)
        self._socket = _listening(self._beside)
        self._closed = threading.Event()
        where = _BESIDE if self._socket.family != socket.AF_INET else str(self._socket.getsockname()[1])
        put_run_file(self._path, f"{where} {self.key.hex()}\n".encode("ascii"))

    def accept(self) -> Channel | None:
        """Wait for a peer, which has proved nothing yet; None when the listener was closed."""
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                if self._closed.wait(0.05):
                    return None
                continue  # no descriptors left, say: those in use will be given back
            if self._closed.is_set():
                accepted.close()
                return None
            return Channel(accepted)

    def close(self) -> None:
        """Stop listening; a thread in ``accept`` comes back."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._path.unlink()
        # A blocked accept does not notice that its socket was closed, so it gets one last peer.
        with contextlib.suppress(OSError):
            _connect(self._socket.family, self._socket.getsockname(), timeout=1.0).close()
        if self._socket.family != socket.AF_INET:
            with contextlib.suppress(OSError):
                self._beside.unlink()
        self._socket.close()


class ControlClient:
    """The end of a process that has something to say to the node of the root; connects when it first has.

    Only where there is one node on this machine: with several, all that clients say would land on one of them, and the
    others would stand by.

    Not thread-safe. clock: seconds that only grow. patience_s: how long the node may take to answer; one that takes
        longer is left alone for a while.
    """

    def __init__(
        self, run: Path, *, clock: Callable[[], float] = time.monotonic, patience_s: float = _ANSWER_S
    ) -> None:
        self._run = run
        self._clock = clock
        self._patience_s = patience_s
        self._channel: Channel | None = None
        self._folder: tuple[int, int] | None = None
        self._files: tuple[tuple[str, int], ...] = ()
        self._rest_until = 0.0

    def ask(self, message: bytes) -> bytes | None:
        """Send a message to the node and return its answer; None when none came, whether the node heard it or not."""
        if len(message) > CONTROL_BYTES_MAX or self._clock() < self._rest_until:
            return None
        try:
            self._look()
        except OSError:
            self.close()
        if self._channel is None:
            return None
        try:
            self._channel.send_bytes(message)
            return self._channel.recv_bytes()
        except TimeoutError:
            self._rest_until = self._clock() + _REST_S
        except (OSError, EOFError):
            pass
        self.close()
        return None

    def close(self) -> None:
        """Close the connection; the next ``ask`` makes another."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._folder, self._files = None, ()

    def _look(self) -> None:
        """Be connected to the node if there is one only; costs one look at the folder while nothing changes there."""
        stat = self._run.stat()
        folder = (stat.st_mtime_ns, stat.st_ino)
        if folder == self._folder:
            return
        paths = sorted(self._run.glob("*.control"))[:_FILES_MAX]
        files = tuple((path.name, path.stat().st_mtime_ns) for path in paths)
        if files != self._files:
            self.close()
            # A file that a killed node left behind leads nowhere, as does one of a node that has no room for us.
            found = [channel for path in paths if (channel := _connected(path)) is not None]
            if len(found) == 1:
                (self._channel,) = found
                self._channel.wait_for(self._patience_s)
            elif found:
                for channel in found:
                    channel.close()
            elif files:
                self._rest_until = self._clock() + _REST_S
                return
        self._folder, self._files = folder, files


def _listening(beside: Path) -> socket.socket:
    """Return a socket that listens: where there can be one a Unix socket, whose messages cost half of those of TCP."""
    family = getattr(socket, "AF_UNIX", None)
    if family is not None:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()  # of a former self that was killed
            listener.bind(str(beside))
            beside.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError:  # the path is too long for one, or lies where there are none
            listener.close()
        else:
            return listener
    return socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)


def _connect(family: int, address: Any, timeout: float) -> socket.socket:
    peer = socket.socket(family, socket.SOCK_STREAM)
    try:
        peer.settimeout(timeout)
        peer.connect(address)
    except OSError:
        peer.close()
        raise
    return peer


def _connected(path: Path) -> Channel | None:
    try:
        where, key = path.read_text("ascii").split()
        if where == _BESIDE:
            family = getattr(socket, "AF_UNIX", None)
            if family is None:
                return None  # a root that another system has at work
            peer = _connect(family, str(path.with_suffix(_SUFFIX)), _PROOF_S)
        else:
            peer = _connect(socket.AF_INET, ("127.0.0.1", int(where)), _PROOF_S)
        channel = Channel(peer)
    except (OSError, ValueError, OverflowError):
        return None
    with contextlib.suppress(ValueError):
        if channel.prove_first(bytes.fromhex(key)):
            return channel
    channel.close()
    return None


def _timeval(seconds: float) -> bytes:
    if sys.platform == "win32":
        return struct.pack("@L", int(seconds * 1000))
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
