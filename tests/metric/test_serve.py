"""The metrics over HTTP."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.auth.guard import Guard
from relaymesh.core.principal import Principals, parse_principals
from relaymesh.errors import StoreError
from relaymesh.metric.serve import ANSWERED_AT_ONCE_MAX, MetricsServer, PortTakenError
from relaymesh.node_view import HealthOutcome

Start = Callable[..., MetricsServer]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def run(render: Callable[[], str], path: str = "/metrics", **more: Any) -> MetricsServer:
            server = MetricsServer(render, port=0, path=path, **more)
            thread = threading.Thread(target=server.serve)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.stop)
            return server

        yield run


def get(url: str, method: str = "GET") -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def silent(server: MetricsServer) -> socket.socket:
    host, port = server.address.split("/")[2].split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_the_page_is_made_anew_for_each_request_and_is_on_this_machine_only(start: Start) -> None:
    numbers = iter(range(10))
    server = start(lambda: f"relaymesh_x {next(numbers)}\n")

    kind = "text/plain; version=0.0.4; charset=utf-8"
    assert get(server.address) == (200, kind, "relaymesh_x 0\n")
    assert get(f"{server.address}?a=b") == (200, kind, "relaymesh_x 1\n")
    assert server.address.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metric", "/metricss", "/../etc/passwd"])
def test_any_other_path_is_not_found(start: Start, path: str) -> None:
    server = start(lambda: "never\n")

    status, _, text = get(server.address.removesuffix("/metrics") + path)

    assert (status, text) == (404, "metrics are at /metrics\n")


def test_the_path_can_be_chosen(start: Start) -> None:
    server = start(lambda: "here\n", path="/elsewhere")

    assert get(server.address)[2] == "here\n"
    assert server.address.endswith("/elsewhere")


def test_a_head_request_has_no_body_and_a_post_is_refused(start: Start) -> None:
    server = start(lambda: "body\n")

    assert get(server.address, "HEAD")[::2] == (200, "")
    assert get(server.address, "POST")[0] == 501


def test_clients_that_say_nothing_do_not_keep_others_waiting(start: Start) -> None:
    server = start(lambda: "page\n")

    with ExitStack() as stack:
        for _ in range(ANSWERED_AT_ONCE_MAX - 1):
            stack.enter_context(silent(server))

        assert get(server.address)[0] == 200


def test_one_client_more_than_there_are_seats_is_sent_away_at_once(start: Start) -> None:
    server = start(lambda: "page\n")

    with ExitStack() as stack:
        clients = [stack.enter_context(silent(server)) for _ in range(ANSWERED_AT_ONCE_MAX)]
        late = stack.enter_context(silent(server))
        assert late.recv(100).startswith(b"HTTP/1.1 503 ")
        for client in clients:
            client.close()

    # The seats come back when the server has noticed that they are empty.
    for _ in range(1_000):
        try:
            if get(server.address)[0] == 200:
                return
        except OSError:
            continue
    raise AssertionError("no seat came back")


def test_an_error_of_the_store_is_told_and_the_server_goes_on(start: Start) -> None:
    broken = [True]

    def render() -> str:
        if broken.pop() if broken else False:
            raise StoreError("the disk is away")
        return "page\n"

    server = start(render)

    assert get(server.address)[::2] == (503, "the disk is away\n")
    assert get(server.address)[0] == 200


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(PortTakenError, match="choose another --port"):
            MetricsServer(lambda: "", port=port, path="/metrics")


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_cannot_be_is_an_error_too(port: int) -> None:
    with pytest.raises(PortTakenError, match="choose another --port"):
        MetricsServer(lambda: "", port=port, path="/metrics")


def test_an_address_that_is_not_of_this_machine_is_not_blamed_on_the_port() -> None:
    with pytest.raises(PortTakenError, match="choose another --bind"):
        MetricsServer(lambda: "", host="192.0.2.1", port=0, path="/metrics")


class Known:
    def principals(self, now_ms: int) -> Principals:
        return parse_principals({"principals": [{"id": "p", "tokens": ["right"]}]})


def health(*, live: bool, ready: bool) -> HealthOutcome:
    return HealthOutcome(
        ok=ready,
        db_ok=True,
        inbox_dir_ok=True,
        processing_dir_ok=True,
        meta_dir_ok=True,
        payload_dir_ok=True,
        audit_dir_ok=True,
        disk_free_bytes=1,
        min_free_disk_bytes=0,
        disk_pressure=False,
        checked_at="2026-01-01T00:00:00.000Z",
        live=live,
        ready=ready,
        stalled=False,
        stalled_ms=0,
        problems=("the disk is away",),
    )


def test_with_principals_the_page_needs_a_token_and_the_probes_do_not(start: Start, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "security").mkdir()
    guard = Guard(Known(), AuditTrail(tmp_path), namespace="default", now_ms=lambda: 0)
    server = start(lambda: "page\n", guard=guard, health=lambda: health(live=True, ready=False))
    base = server.address.removesuffix("/metrics")

    assert get(server.address)[::2] == (401, '{"error":"missing_token"}\n')
    assert get(f"{server.address}?token=wrong")[::2] == (403, '{"error":"forbidden_token"}\n')
    assert get(f"{server.address}?token=right")[::2] == (200, "page\n")
    assert get(f"{base}/live")[::2] == (200, "live\n")
    assert get(f"{base}/ready")[::2] == (503, "not ready\n")
    assert get(f"{base}/health")[0] == 401
    status, _, text = get(f"{base}/health?token=right")
    assert (status, '"problems":["the disk is away"]' in text) == (503, True)


def test_a_refusal_says_how_to_go_on(start: Start, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    guard = Guard(Known(), AuditTrail(tmp_path), namespace="default", now_ms=lambda: 0)
    server = start(lambda: "page\n", guard=guard)

    def refused(token: str) -> urllib.error.HTTPError:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.address}?token={token}", timeout=10)
        return caught.value

    assert refused("").headers["WWW-Authenticate"] == "Bearer"
    for _ in range(20):
        refused("wrong")
    limited = refused("right")
    assert (limited.code, limited.headers["Retry-After"]) == (429, "60")
    assert limited.read() == b'{"error":"rate_limited","route":"/metrics"}\n'


def test_the_health_is_looked_at_once_for_many_probes(start: Start) -> None:
    looks: list[int] = []

    def look() -> HealthOutcome:
        looks.append(1)
        return health(live=True, ready=True)

    server = start(lambda: "", health=look)
    base = server.address.removesuffix("/metrics")

    assert {get(f"{base}/{route}")[0] for route in ("live", "ready", "health") for _ in range(3)} == {200}
    assert len(looks) < 9
