"""The metrics over HTTP, for a scraper: one page, made anew for each request.

Requests are answered side by side, each in a thread of its own, at most ``ANSWERED_AT_ONCE_MAX`` of them; one more gets
503 at once. A client that says nothing is dropped after ``SILENT_S``. Making the page is done by one thread at a time:
it is the same page for all, and the database is asked in turn.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from relaymesh.errors import RelayMeshError, RootError
from relaymesh.metric.text import CONTENT_TYPE

__all__ = ["ANSWERED_AT_ONCE_MAX", "MetricsServer", "PortTakenError"]

ANSWERED_AT_ONCE_MAX = 16
SILENT_S = 10.0


class PortTakenError(RootError):
    """The address cannot be listened at."""

    code = "address_in_use"

    def __init__(self, address: str, cause: str, *, no_such_host: bool = False) -> None:
        super().__init__(address, cause)
        self.address, self.cause, self.no_such_host = address, cause, no_such_host

    def __str__(self) -> str:
        option = "--bind" if self.no_such_host else "--port"
        return f"{self.address} cannot be listened at ({self.cause}): choose another {option}"


class MetricsServer:
    """Serves what ``render`` returns at ``path``, and 404 elsewhere. Listens from construction on.

    render: called by one thread at a time; an error of ours is answered with 503 and its sentence.

    Raises:
        PortTakenError
    """

    def __init__(self, render: Callable[[], str], *, host: str = "127.0.0.1", port: int, path: str) -> None:
        turn = threading.Lock()
        seats = threading.BoundedSemaphore(ANSWERED_AT_ONCE_MAX)

        class Handler(_Handler):
            def page(self) -> tuple[HTTPStatus, str, str]:
                if self.path.partition("?")[0] != path:
                    return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"metrics are at {path}\n"
                try:
                    with turn:
                        return HTTPStatus.OK, CONTENT_TYPE, render()
                except RelayMeshError as error:
                    return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", f"{error}\n"

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True
            request_queue_size = 64

            def process_request(self, request: object, client_address: object) -> None:
                if not seats.acquire(blocking=False):
                    with _quiet():
                        request.sendall(_FULL)  # type: ignore[attr-defined]
                    self.shutdown_request(request)  # type: ignore[arg-type]
                    return
                super().process_request(request, client_address)  # type: ignore[arg-type]

            def process_request_thread(self, request: object, client_address: object) -> None:
                try:
                    super().process_request_thread(request, client_address)  # type: ignore[arg-type]
                finally:
                    seats.release()

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away in the middle is no news."""

        try:
            self._server = Server((host, port), Handler)
        except (OSError, OverflowError) as error:
            cause = "there is no such port" if isinstance(error, OverflowError) else error.strerror or "refused"
            no_such_host = isinstance(error, socket.gaierror) or (
                isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL
            )
            raise PortTakenError(f"{host}:{port}", cause, no_such_host=no_such_host) from error
        self.address = f"http://{host}:{self._server.server_address[1]}{path}"

    def serve(self) -> None:
        """Answer until ``stop``."""
        self._server.serve_forever(poll_interval=0.2)
        self._server.server_close()

    def stop(self) -> None:
        """Let ``serve`` return; called from another thread than that one."""
        self._server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    timeout: ClassVar[float] = SILENT_S
    protocol_version = "HTTP/1.1"
    server_version = "relaymesh"
    sys_version = ""

    def page(self) -> tuple[HTTPStatus, str, str]:
        raise NotImplementedError

    def do_GET(self) -> None:
        status, kind, text = self.page()
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        # One request each: a scraper that keeps its connection would keep a thread.
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape is no news."""


def _quiet() -> contextlib.suppress:
    return contextlib.suppress(OSError)


_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
