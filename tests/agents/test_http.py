"""HTTP agents against a server on this machine."""

from __future__ import annotations

import email.utils
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relaymesh.agents.context import Attempt
from relaymesh.agents.http import run_http
from relaymesh.agents.http_rule import charset_of, check_url, display_url, retry_after_ms
from relaymesh.agents.spec import HttpTarget
from relaymesh.core.outcome import Failed, Succeeded
from relaymesh.core.retry import RETRY_AFTER_MS_MAX
from relaymesh.wire.work import StepOrder

Order = Callable[..., StepOrder]


class Handler(http.server.BaseHTTPRequestHandler):
    requests: list[tuple[str, dict[str, str], bytes]]
    release: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        path = self.path.split("?")[0]
        match path.strip("/").split("/"):
            case ["echo"]:
                self._answer(200, body)
            case ["status", status]:
                self._answer(int(status), b"a body that may hold secrets", {"Retry-After": "7"})
            case ["date"]:
                self._answer(503, b"", {"Retry-After": email.utils.formatdate(time.time() + 60, usegmt=True)})
            case ["latin"]:
                self._answer(200, b"caf\xe9")
            case ["charset", charset]:
                self._answer(200, "caf\xe9".encode(charset), {"Content-Type": f"text/plain; charset={charset}"})
            case ["slow"]:
                self.release.wait(20)
                self._answer(200, b"late")
            case ["drip"]:
                self.send_response(200)
                self.end_headers()
                while not self.release.wait(0.05):
                    self.wfile.write(b".")
            case ["large"]:
                self.send_response(200)
                self.end_headers()
                for _ in range(12 * 16):
                    self.wfile.write(b"x" * 65_536)
            case ["hang-up"]:
                self.connection.close()
            case ["moved", "here"]:
                self._answer(307, b"", {"Location": "/echo"})
            case ["moved", "circle"]:
                self._answer(308, b"", {"Location": "/moved/circle"})
            case ["moved", "away"]:
                self._answer(307, b"", {"Location": "http://localhost:1/stolen"})
            case _:
                self._answer(404, b"")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # clients hang up on purpose


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Handler.requests, Handler.release = [], threading.Event()
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    Handler.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def url(server: Server, path: str) -> str:
    return f"http://user:password@127.0.0.1:{server.server_port}{path}?key=secret"


def call(server: Server, path: str, order: StepOrder, **headers: str) -> Succeeded | Failed:
    outcome = run_http(HttpTarget(url(server, path), tuple(headers.items())), Attempt(order, grace_ms=100))
    assert isinstance(outcome, Succeeded | Failed)
    assert "secret" not in repr(outcome) and "password" not in repr(outcome)
    return outcome


def test_the_payload_is_posted_and_the_answer_is_the_output(server: Server, order: Order) -> None:
    assert call(server, "/echo", order("api", "some ünicode")) == Succeeded("some ünicode")

    path, headers, body = Handler.requests[0]
    assert (path, body.decode()) == ("/echo?key=secret", "some ünicode")
    assert headers["idempotency-key"] == "once"
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["x-relaymesh-step-id"] == "stp_1"
    assert headers["x-relaymesh-attempt"] == "1"
    assert headers["x-relaymesh-fencing-token"] == "7"


def test_a_secret_header_comes_from_the_environment(
    server: Server, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "secret-token")

    call(server, "/echo", order("api"), Authorization="env:API_TOKEN", **{"Content-Type": "application/json"})

    headers = Handler.requests[0][1]
    assert headers["authorization"] == "secret-token"
    assert headers["content-type"] == "application/json"
    for value in (None, "two\nlines"):
        monkeypatch.delenv("API_TOKEN") if value is None else monkeypatch.setenv("API_TOKEN", value)
        outcome = call(server, "/echo", order("api"), Authorization="env:API_TOKEN")
        assert isinstance(outcome, Failed) and outcome.code == "http_config" and "API_TOKEN" in outcome.error
    assert len(Handler.requests) == 1


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (401, False),
        (404, False),
        (408, True),
        (425, True),
        (429, True),
        (500, True),
        (503, True),
        (301, False),
    ],
)
def test_the_status_decides_whether_it_is_retried(server: Server, order: Order, status: int, retryable: bool) -> None:
    outcome = call(server, f"/status/{status}", order("api"))

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == (f"http_{status}", retryable)
    assert outcome.retry_after_ms == (7_000 if retryable else None)
    assert outcome.error == f"http://127.0.0.1:{server.server_port}/status/{status} answered {status}"


def test_retry_after_may_be_a_date(server: Server, order: Order) -> None:
    outcome = call(server, "/date", order("api"))

    assert isinstance(outcome, Failed) and outcome.retry_after_ms is not None
    assert 50_000 < outcome.retry_after_ms <= 60_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0),
        (" 12 ", 12_000),
        ("9" * 400, RETRY_AFTER_MS_MAX),
        ("soon", None),
        ("-5", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", RETRY_AFTER_MS_MAX),
        ("Wed, 99 Oct 2015", None),
    ],
)
def test_a_wait_is_read_and_bounded(value: str | None, expected: int | None) -> None:
    assert retry_after_ms(value, 1_700_000_000.0) == expected


def test_no_connection_and_a_broken_one_are_retried(server: Server, order: Order) -> None:
    outcome = call(server, "/hang-up", order("api"))
    assert isinstance(outcome, Failed) and (outcome.code, outcome.retryable) == ("http_unreachable", True)

    nobody = run_http(HttpTarget("http://127.0.0.1:1/x"), Attempt(order("api")))
    assert isinstance(nobody, Failed) and (nobody.code, nobody.retryable) == ("http_unreachable", True)


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_an_answer_that_does_not_come_is_a_timeout(server: Server, order: Order, path: str) -> None:
    attempt = Attempt(order("api", timeout_ms=300), grace_ms=100)
    timer = threading.Timer(0.3, lambda: attempt.cancel("timeout"))  # as the thread runner does
    timer.start()

    outcome = run_http(HttpTarget(url(server, path)), attempt)

    assert isinstance(outcome, Failed) and outcome.code == "timeout"
    assert time.monotonic_ns() - attempt.started_at_ns < 5e9
    timer.join()


def test_a_cancel_cuts_the_connection(server: Server, order: Order) -> None:
    attempt = Attempt(order("api", timeout_ms=60_000))
    threading.Timer(0.1, lambda: attempt.cancel("not wanted")).start()

    outcome = run_http(HttpTarget(url(server, "/slow")), attempt)

    assert isinstance(outcome, Failed) and outcome.code == "cancelled"
    assert time.monotonic_ns() - attempt.started_at_ns < 5e9


def test_an_answer_above_the_limit_is_never_retried(server: Server, order: Order) -> None:
    outcome = call(server, "/large", order("api"))

    assert isinstance(outcome, Failed) and (outcome.code, outcome.retryable) == ("output_too_large", False)


def test_an_answer_that_is_not_utf8_is_mended(server: Server, order: Order) -> None:
    assert call(server, "/latin", order("api")) == Succeeded("caf\ufffd")


def test_what_was_not_utf8_is_told_in_the_log(server: Server, order: Order) -> None:
    attempt = Attempt(order("api"))

    run_http(HttpTarget(f"http://127.0.0.1:{server.server_port}/latin"), attempt)

    assert "not all utf-8" in attempt.log_lines()[0].text


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "utf-16", "utf-8"])
def test_an_answer_is_read_in_the_charset_that_it_names(server: Server, order: Order, charset: str) -> None:
    assert call(server, f"/charset/{charset}", order("api")) == Succeeded("caf\xe9")


@pytest.mark.parametrize("name", [None, "", "no such", "rot13", "hex", "idna", "unicode_escape", "a\0b", "us-ascii"])
def test_a_charset_that_is_none_for_text_counts_as_utf8(name: str | None) -> None:
    assert charset_of(name) == "utf-8"


def test_no_packed_answer_is_asked_for(server: Server, order: Order) -> None:
    call(server, "/echo", order("api"))

    assert Handler.requests[0][1]["accept-encoding"] == "identity"


def test_a_redirect_is_followed_on_the_same_host_only(server: Server, order: Order) -> None:
    assert call(server, "/moved/here", order("api", "x"), X="env:HOME") == Succeeded("x")
    for path in ("/moved/away", "/moved/circle"):
        outcome = call(server, path, order("api"))
        assert isinstance(outcome, Failed) and (outcome.code, outcome.retryable) == ("http_redirect", False)


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert display_url("https://user:pw@host:8443/a/b?token=x#y") == "https://host:8443/a/b"
    assert display_url("https://[::1]/a") == "https://[::1]/a"
    assert check_url("https://host/a") is None
    assert check_url("http://host:99999/") is not None
