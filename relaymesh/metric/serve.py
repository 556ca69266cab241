"""The metrics over HTTP, for a scraper: one page, made anew for each request; and whether the root is live and ready.

    /metrics          the page (or another path)                   by the guard, for readers
    /health           what the command says, as JSON; 200, 503     by the guard, for readers
    /live, /ready     one word; 200 or 503                         open: a probe has no token, and learns nothing else

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
from time import monotonic_ns
from typing import ClassVar

import msgspec

from relaymesh.auth.guard import RETRY_AFTER_S, Guard, Request
from relaymesh.core.principal import Access, Denied
from relaymesh.errors import RelayMeshError, RootError
from relaymesh.metric.text import CONTENT_TYPE
from relaymesh.node_view import HealthOutcome

__all__ = ["ANSWERED_AT_ONCE_MAX", "MetricsServer", "PortTakenError"]

ANSWERED_AT_ONCE_MAX = 16
SILENT_S = 10.0
HEALTH_AGE_NS_MAX = 2_000_000_000
"""A look at the health of a root costs a write: those who ask within this time get the same answer."""
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json; charset=utf-8"


class PortTakenError(RootError):
    """The address cannot be listened at."""

    code = "address_in_use"

    def __init__(self, address: str, cause: str, *, no_such_host: bool = False) -> None:
        super().__init__(address, cause)
        self.address, self.cause, self.no_such_host = address, cause, no_such_host

    def __str__(self) -> str:
        option = "--bind" if self.no_such_host else "--port"
        return f"{self.address} cannot be listened at ({self.cause}): choose another {option}"


class _Health:
    """What was last found, and when. Asked by one thread at a time."""

    def __init__(self, look: Callable[[], HealthOutcome]) -> None:
        self._look = look
        self._found: HealthOutcome | None = None
        self._found_ns = 0
        self._turn = threading.Lock()

    def __call__(self) -> HealthOutcome:
        with self._turn:
            if self._found is None or monotonic_ns() - self._found_ns > HEALTH_AGE_NS_MAX:
                self._found, self._found_ns = self._look(), monotonic_ns()
            return self._found


class MetricsServer:
    """Serves what ``render`` returns at ``path``, the probes, and 404 elsewhere. Listens from construction on.

    render: called by one thread at a time; an error of ours is answered with 503 and its sentence.
    health: what the probes and ``/health`` are answered from; None: there are none.
    guard: who may read; None: everybody.

    Raises:
        PortTakenError
    """

    def __init__(
        self,
        render: Callable[[], str],
        *,
        host: str = "127.0.0.1",
        port: int,
        path: str,
        health: Callable[[], HealthOutcome] | None = None,
        guard: Guard | None = None,
    ) -> None:
        turn = threading.Lock()
        seats = threading.BoundedSemaphore(ANSWERED_AT_ONCE_MAX)
        look = _Health(health) if health is not None else None

        class Handler(_Handler):
            def page(self) -> _Page:
                route = self.path.partition("?")[0]
                if route != path and (look is None or route not in _PROBES):
                    return HTTPStatus.NOT_FOUND, _TEXT, f"metrics are at {path}\n"
                try:
                    if route != path and route != "/health":
                        assert look is not None
                        return _probe(look(), route)
                    denied = self.denied(guard)
                    if denied is not None:
                        return denied
                    if route != path:
                        assert look is not None
                        found = look()
                        status = HTTPStatus.OK if found.ok else HTTPStatus.SERVICE_UNAVAILABLE
                        return status, _JSON, msgspec.json.encode(found).decode() + "\n"
                    with turn:
                        return HTTPStatus.OK, CONTENT_TYPE, render()
                except RelayMeshError as error:
                    return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{error}\n"

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


_Page = tuple[HTTPStatus, str, str]
_PROBES = ("/live", "/ready", "/health")


def _probe(found: HealthOutcome, route: str) -> _Page:
    if found.live if route == "/live" else found.ready:
        return HTTPStatus.OK, _TEXT, f"{route[1:]}\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"not {route[1:]}\n"


class _Handler(BaseHTTPRequestHandler):
    timeout: ClassVar[float] = SILENT_S
    protocol_version = "HTTP/1.1"
    server_version = "relaymesh"
    sys_version = ""

    def page(self) -> _Page:
        raise NotImplementedError

    def denied(self, guard: Guard | None) -> _Page | None:
        """Return the answer to a request that may not go on, or None."""
        if guard is None:
            return None
        request = Request(self.command, self.path, self.headers, str(self.client_address[0]))  # type: ignore[arg-type]
        answer = guard.judge(request, Access.READ)
        if not isinstance(answer, Denied):
            return None
        body = answer.members() | ({"route": request.route} if answer.status == HTTPStatus.TOO_MANY_REQUESTS else {})
        return HTTPStatus(answer.status), _JSON, msgspec.json.encode(body).decode() + "\n"

    def do_GET(self) -> None:
        status, kind, text = self.page()
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        elif status == HTTPStatus.TOO_MANY_REQUESTS:
            self.send_header("Retry-After", str(RETRY_AFTER_S))
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
