"""The metrics over HTTP."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from relaymesh.errors import StoreError
from relaymesh.metric.serve import ANSWERED_AT_ONCE_MAX, MetricsServer, PortTakenError

Start = Callable[..., MetricsServer]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def run(render: Callable[[], str], path: str = "/metrics") -> MetricsServer:
            server = MetricsServer(render, port=0, path=path)
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
