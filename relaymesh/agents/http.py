"""Running an HTTP agent: the payload goes out as a POST, the body of the answer is the output.

    2xx ──▶ succeeded
    408, 425, 429, 5xx, no connection, no answer ──▶ failed, retried (not before ``Retry-After``)
    anything else ──▶ failed for good

Header values may be secrets: they are read from the environment when a step runs (``env:NAME``), and neither they nor
the query or user part of the URL appear in any error or log line.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

from relaymesh.agents.context import TIMEOUT, Attempt
from relaymesh.agents.http_rule import charset_of, display_url, request_headers, retry_after_ms
from relaymesh.agents.python import cancelled_outcome, output_too_large
from relaymesh.agents.spec import HttpTarget
from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.core.outcome import Failed, Outcome, Succeeded

if TYPE_CHECKING:
    import httpx

__all__ = ["SPEND_HEADER", "run_http"]

SPEND_HEADER: Final = "x-relaymesh-spend"
"""What a call has cost, in any answer: ``tokens=1200, usd=0.02``."""

_RETRYABLE: Final = frozenset((408, 425, 429))
_REDIRECTS: Final = frozenset((307, 308))  # those that keep the method and the body
_REDIRECTS_MAX: Final = 5
_CONNECT_WITHIN_S: Final = 10.0


def run_http(target: HttpTarget, attempt: Attempt) -> Outcome:
    """Call the endpoint once. Returns early when the attempt is cancelled or its time is up."""
    headers = request_headers(target, attempt.order)
    if isinstance(headers, Failed):
        return headers
    call = _Call(attempt)
    attempt.cancellation.on_set(call.cut)
    url = target.url
    if "authorization" in headers:
        url = urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()  # the header wins
    for _ in range(_REDIRECTS_MAX + 1):
        outcome = call.post(url, headers)
        if not isinstance(outcome, str):
            return cancelled_outcome(attempt) or outcome
        if _origin(outcome) != _origin(target.url):
            return Failed(
                "http_redirect",
                f"{display_url(target.url)} redirects to another host: give the agent the address that it redirects to",
                retryable=False,
            )
        url = outcome
    return Failed("http_redirect", f"{display_url(target.url)} redirects in a circle", retryable=False)


class _Call:
    """The requests of one attempt; ``cut`` ends the one that is under way, from any thread."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._stream: Any = None

    def cut(self) -> None:
        with self._lock:
            stream = self._stream
        if stream is not None:
            _shut_down(stream)

    def post(self, url: str, headers: dict[str, str]) -> Outcome | str:
        """Send one request; return its outcome, or the address that it redirects to."""
        import httpx  # only for HTTP agents: it costs more than everything else here

        shown = display_url(url)
        left_s = max(0.001, (self._attempt.deadline_ns - time.monotonic_ns()) / 1e9)
        timeout = httpx.Timeout(left_s, connect=min(left_s, _CONNECT_WITHIN_S))
        content = self._attempt.order.payload.encode("utf-8")
        try:
            request = _client().build_request(
                "POST", url, content=content, headers=headers, timeout=timeout, extensions={"trace": self._on_trace}
            )
            response = _client().send(request, stream=True)
            try:
                return self._answer(response, url, shown)
            finally:
                response.close()
        except httpx.InvalidURL:
            return Failed("http_config", f"{shown} is not a URL that can be called", retryable=False)
        except httpx.TimeoutException as error:
            if time.monotonic_ns() >= self._attempt.deadline_ns:
                self._attempt.cancel(TIMEOUT)
            return Failed("http_unreachable", f"no answer from {shown} in time ({type(error).__name__})")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            return Failed("http_unreachable", f"no answer from {shown} ({type(error).__name__})")

    def _answer(self, response: httpx.Response, url: str, shown: str) -> Outcome | str:
        status = response.status_code
        if SPEND_HEADER in response.headers:
            self._spend(response.headers[SPEND_HEADER])
        if status in _REDIRECTS and "location" in response.headers:
            return urljoin(url, response.headers["location"])
        if 200 <= status < 300:
            body = bytearray()
            for chunk in response.iter_bytes():  # as it arrives: cut anew, a packed answer would be held twice
                body += chunk
                if len(body) > PAYLOAD_BYTES_MAX:
                    return output_too_large(len(body))
            return self._text(bytes(body), charset_of(response.charset_encoding))
        retryable = status in _RETRYABLE or status >= 500
        wait_ms = retry_after_ms(response.headers.get("retry-after"), time.time()) if retryable else None
        return Failed(f"http_{status}", f"{shown} answered {status}", retryable, wait_ms)

    def _text(self, body: bytes, charset: str) -> Outcome:
        text = body.decode(charset, "replace")
        if not text.isascii():
            if "\ufffd" in text:
                said = f"the answer was not all {charset}: what was not is now U+FFFD"
                self._attempt.log.add_ours("WARNING", said)
            size = len(text.encode("utf-8", "replace"))
            if size > PAYLOAD_BYTES_MAX:
                return output_too_large(size)
        return Succeeded(text)

    def _spend(self, text: str) -> None:
        from relaymesh.core.budget_text import spent_of

        try:
            self._attempt.spend(spent_of(text))
        except ValueError as error:
            self._attempt.log.add_ours("WARNING", f"what was spent is not counted: {error}")

    def _on_trace(self, event: str, info: dict[str, Any]) -> None:
        """Keep the connection of the request, so that it can be cut: closing it elsewhere would not wake a reader."""
        if event in (
            "connection.connect_tcp.complete",
            "connection.start_tls.complete",
            "proxy_stream.start_tls.complete",
        ):
            with self._lock:
                self._stream = info["return_value"]
            if self._attempt.cancellation.is_set():
                self.cut()


def _shut_down(stream: Any) -> None:
    import contextlib
    import socket

    sock = stream.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            # The plain shutdown, also below TLS: what is wanted is that the read returns.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


_client_lock = threading.Lock()
_shared_client: httpx.Client | None = None


def _client() -> httpx.Client:
    """Return the one client of this process; loading the certificates for it takes tens of milliseconds.

    It keeps no connection open, because only a new one can be cut by whom it belongs to, and it follows no redirect,
    because the headers may hold secrets.
    """
    global _shared_client
    import httpx

    with _client_lock:
        if _shared_client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            _shared_client = httpx.Client(limits=limits, follow_redirects=False)
        return _shared_client


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", None, None)
    return (parts.scheme, parts.hostname, port)
