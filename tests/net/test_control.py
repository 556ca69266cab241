"""The control socket: who is heard, what is answered, and what a client does when nobody answers."""

from __future__ import annotations

import multiprocessing.connection
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.address import Address
from actors.control import CONNECTIONS_MAX, ControlActor
from relaymesh.client import Client
from relaymesh.net.control import CONTROL_BYTES_MAX, Channel, ControlClient, ControlListener
from relaymesh.store.store import Store
from relaymesh.wire.codec import decode, encode
from relaymesh.wire.kernel import Ping, Refused
from relaymesh.wire.store import StoreAnswer, SubmitTasks
from tests.actors.fakes import HowMany, Note, Notebook, eventually
from tests.store.bench import NOON, Bench


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def node(run: Path) -> Iterator[list[str]]:
    """A control actor in front of a notebook; what is noted comes back."""
    notes: list[str] = []
    notebook, control = Address("notebook"), Address("control")
    reader = Notebook(notes)
    actor = ControlActor(run, "n", {HowMany: notebook, Note: notebook})
    reader.launch(notebook)
    actor.launch(control)
    assert actor.wait_up(10)
    yield notes
    for one in (actor, reader):
        one.finish()
        assert one.wait_ended(10)


def address_of(run: Path) -> tuple[Any, bytes]:
    """Return where the node listens, in the form of ``multiprocessing.connection``, and its key."""
    where, key = (run / "n.control").read_text().split()
    return str(run / "n.socket") if where == "unix" else ("127.0.0.1", int(where)), bytes.fromhex(key)


def connected(address: Any) -> Channel:
    plain = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    plain.connect(address)
    return Channel(plain)


def test_a_message_is_answered_by_the_actor_it_is_for(run: Path, node: list[str]) -> None:
    client = ControlClient(run)

    answers = [client.ask(encode(HowMany())), client.ask(encode(Ping()))]

    # The notebook answers a number, and only messages travel.
    assert [decode(answer) for answer in answers if answer] == [Refused("internal"), Refused("not_taken")]
    client.close()


def test_any_program_that_speaks_the_form_of_multiprocessing_can_connect(run: Path, node: list[str]) -> None:
    address, key = address_of(run)

    with multiprocessing.connection.Client(address, authkey=key) as other:
        other.send_bytes(encode(Ping()))

        assert decode(other.recv_bytes()) == Refused("not_taken")


def test_a_peer_without_the_key_is_not_heard(run: Path, node: list[str]) -> None:
    address, _ = address_of(run)
    peer = connected(address)

    assert not peer.prove_first(b"x" * 32)

    peer.close()
    blunt = connected(address)
    blunt.send_bytes(encode(Note("in")))
    blunt.recv_bytes()  # the challenge
    with pytest.raises((EOFError, OSError)):
        while True:
            blunt.recv_bytes()
    blunt.close()
    assert node == []


def test_a_node_that_has_not_the_key_is_told_nothing(run: Path) -> None:
    listener = ControlListener(run, "n")
    heard: list[bytes] = []

    def impostor() -> None:
        peer = listener.accept()
        assert peer is not None
        if peer.prove_second(b"not the key"):
            heard.append(peer.recv_bytes())
        peer.close()

    thread = threading.Thread(target=impostor)
    thread.start()

    assert ControlClient(run).ask(b"a secret") is None

    thread.join(10)
    listener.close()
    assert heard == []


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
def test_a_node_listens_beside_its_file_takes_what_a_killed_one_left_and_clears_up(run: Path) -> None:
    former = socket.socket(socket.AF_UNIX)
    former.bind(str(run / "n.socket"))
    former.close()  # without a word: the file stays

    listener = ControlListener(run, "n")

    assert (run / "n.control").read_text().startswith("unix ")
    assert stat.S_IMODE(os.stat(run / "n.socket").st_mode) == 0o600
    listener.close()
    assert not list(run.iterdir())


def test_a_node_whose_folder_is_too_deep_for_a_unix_socket_listens_on_the_loopback_interface(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    actor, control = ControlActor(deep, "n", {}), Address("control")
    actor.launch(control)
    assert actor.wait_up(10)

    answer = ControlClient(deep).ask(encode(Ping()))

    assert answer is not None and decode(answer) == Refused("not_taken")
    assert (deep / "n.control").read_text().split()[0].isdigit()
    actor.finish()
    assert actor.wait_ended(10)


def test_a_node_at_a_unix_socket_is_not_asked_by_a_system_without_them(
    run: Path, node: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "n.control").write_text(f"unix {'00' * 32}\n", encoding="ascii")
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)

    assert ControlClient(run).ask(encode(Ping())) is None


@pytest.mark.skipif(sys.platform == "win32", reason="file modes are a POSIX notion")
def test_only_its_owner_can_read_the_key(run: Path, node: list[str]) -> None:
    assert stat.S_IMODE(os.stat(run / "n.control").st_mode) == 0o600


def test_a_message_that_is_too_long_is_not_sent_and_one_that_comes_ends_the_connection(
    run: Path, node: list[str]
) -> None:
    assert ControlClient(run).ask(bytes(CONTROL_BYTES_MAX + 1)) is None
    address, key = address_of(run)
    peer = connected(address)
    assert peer.prove_first(key)

    peer._socket.sendall((CONTROL_BYTES_MAX + 1).to_bytes(4, "big"))

    with pytest.raises((EOFError, OSError)):
        peer.recv_bytes()
    peer.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.binary(max_size=40).map(lambda tail: SubmitTasks.HEAD + tail))
def test_bytes_of_any_kind_are_refused_and_the_next_peer_is_served(run: Path, node: list[str], data: bytes) -> None:
    address, key = address_of(run)
    peer = connected(address)
    assert peer.prove_first(key)

    peer.send_bytes(data)

    assert isinstance(decode(peer.recv_bytes()), Refused)
    peer._socket.sendall(data)
    peer.close()
    client = ControlClient(run)
    assert client.ask(encode(Ping())) is not None
    client.close()


def test_more_peers_than_there_is_room_for_are_sent_away_and_come_in_when_one_leaves(
    run: Path, node: list[str]
) -> None:
    clients = [ControlClient(run) for _ in range(CONNECTIONS_MAX)]
    assert all(client.ask(encode(Ping())) for client in clients)

    now = [0.0]
    late = ControlClient(run, clock=lambda: now[0])

    assert late.ask(encode(Ping())) is None
    clients.pop().close()
    assert late.ask(encode(Ping())) is None  # it does not knock at every submit
    now[0] += 6.0
    eventually(lambda: late.ask(encode(Ping())) is not None or now.__setitem__(0, now[0] + 6.0))
    for client in (late, *clients):
        client.close()


def test_a_node_that_stands_still_is_left_alone_for_a_while(run: Path) -> None:
    listener = ControlListener(run, "n")
    accepted: list[Channel] = []

    def stopped_node() -> None:
        while (peer := listener.accept()) is not None:
            accepted.append(peer)
            peer.prove_second(listener.key)

    thread = threading.Thread(target=stopped_node)
    thread.start()
    now = [100.0]
    client = ControlClient(run, clock=lambda: now[0], patience_s=0.05)

    tries = [client.ask(b"one"), client.ask(b"two")]
    before = len(accepted)
    now[0] += 6.0
    tries.append(client.ask(b"three"))

    assert tries == [None, None, None]
    assert (before, len(accepted)) == (1, 2)
    listener.close()
    thread.join(10)
    for peer in accepted:
        peer.close()


def test_with_two_nodes_nobody_is_asked_until_one_of_them_is_gone(run: Path, node: list[str]) -> None:
    client = ControlClient(run)
    assert client.ask(encode(Ping())) is not None
    second, address = ControlActor(run, "second", {}), Address("second")
    second.launch(address)
    assert second.wait_up(10)

    asked = [client.ask(encode(Ping())), client.ask(encode(Ping()))]
    second.finish()
    assert second.wait_ended(10)

    assert asked == [None, None]
    assert client.ask(encode(Ping())) is not None
    client.close()


def test_what_else_changes_in_the_folder_keeps_the_connection(run: Path, node: list[str]) -> None:
    client = ControlClient(run)
    assert client.ask(encode(Ping())) is not None
    connection = client._channel

    (run / "n.lock").write_text("x")

    assert client.ask(encode(Ping())) is not None
    assert client._channel is connection
    client.close()


def answering(run: Path, answer: Callable[[SubmitTasks], bytes | None]) -> ControlListener:
    """A node whose store is ``answer``; None ends the connection without a word."""
    listener = ControlListener(run, "n")

    def serve() -> None:
        while (peer := listener.accept()) is not None:
            if peer.prove_second(listener.key):
                message = decode(peer.recv_bytes())
                assert isinstance(message, SubmitTasks)
                said = answer(message)
                if said is not None:
                    peer.send_bytes(said)
            peer.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_task_that_a_node_stored_without_being_able_to_say_so_is_stored_once(bench: Bench) -> None:
    def store_and_die(message: SubmitTasks) -> None:
        store = Store.open(bench.root, now_ms=NOON)
        with store.write():
            store.submit(message.tasks, now_ms=NOON)
        store.close()

    listener = answering(bench.root / "run", store_and_die)
    with Client(bench.root) as client:
        client.submit("echo", "first")

        second = client.submit("echo", "second")

        assert not second.deduplicated
        assert client.submit("echo", "second").deduplicated
    listener.close()
    assert len(bench.rows("SELECT * FROM tasks")) == 2
    assert len(bench.rows("SELECT * FROM tasks WHERE task_id=?", second.task_id)) == 1


@pytest.mark.parametrize(
    "answer",
    [encode(Refused("store_full")), encode(StoreAnswer(())), encode(Ping())],
    ids=["refused", "too few", "another message"],
)
def test_a_client_commits_itself_when_the_answer_is_no_answer(bench: Bench, answer: bytes) -> None:
    listener = answering(bench.root / "run", lambda _: answer)
    with Client(bench.root) as client:
        client.submit("echo", "first")

        second = client.submit("echo", "second")

    listener.close()
    assert not second.deduplicated
    assert len(bench.rows("SELECT * FROM tasks")) == 2


def test_an_answer_that_is_no_message_makes_the_client_commit_itself(bench: Bench) -> None:
    listener = answering(bench.root / "run", lambda _: b"\xc1nonsense")
    with Client(bench.root) as client:
        client.submit("echo", "first")

        assert not client.submit("echo", "second").deduplicated

    listener.close()
    assert len(bench.rows("SELECT * FROM tasks")) == 2


def test_a_first_submit_talks_to_nobody(bench: Bench) -> None:
    asked: list[SubmitTasks] = []
    listener = answering(bench.root / "run", lambda message: asked.append(message))  # type: ignore[func-returns-value]

    with Client(bench.root) as client:
        client.submit("echo", "first")

    listener.close()
    assert asked == []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "root")
    yield bench
    bench.close()
