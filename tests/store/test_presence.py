"""Whether a node of this machine lives: by a lock that the operating system drops with the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relaymesh.store.error import RootReadOnlyError
from relaymesh.store.presence import BadNodeIdError, NodeIdTakenError, host_name, is_alive, take_presence

HOLDER = """
import sys, time
from pathlib import Path
from relaymesh.store.presence import take_presence
presence = take_presence(Path(sys.argv[1]), "node")
print("here", flush=True)
time.sleep(60)
"""


def test_an_id_that_was_asked_for_is_taken_once(tmp_path: Path) -> None:
    first = take_presence(tmp_path, "node")

    with pytest.raises(NodeIdTakenError) as caught:
        take_presence(tmp_path, "node", tries_ms=1)

    assert (caught.value.node_id, caught.value.pid) == ("node", os.getpid())
    assert "--node-id" in str(caught.value)
    first.release()
    take_presence(tmp_path, "node").release()


def test_nobody_who_asks_for_no_id_is_turned_away(tmp_path: Path) -> None:
    taken = [take_presence(tmp_path, None) for _ in range(3)]

    assert [presence.node_id for presence in taken] == ["node-local", "node-local-2", "node-local-3"]
    taken[1].release()
    assert take_presence(tmp_path, None).node_id == "node-local-2"


@pytest.mark.parametrize("node_id", ["", "../x", "a/b", "a b", "x" * 65, "ä", "a\n"])
def test_an_id_that_cannot_be_a_file_name_is_refused(tmp_path: Path, node_id: str) -> None:
    with pytest.raises(BadNodeIdError):
        take_presence(tmp_path, node_id)

    assert list(tmp_path.iterdir()) == []
    assert is_alive(tmp_path, node_id, host_name()) is None


def test_a_node_is_alive_until_it_lets_go(tmp_path: Path) -> None:
    presence = take_presence(tmp_path, "node")
    assert is_alive(tmp_path, "node", host_name()) is True

    presence.release()
    presence.release()

    assert is_alive(tmp_path, "node", host_name()) is False


def test_of_a_node_of_another_machine_or_none_nothing_can_be_told(tmp_path: Path) -> None:
    take_presence(tmp_path, "node")

    assert is_alive(tmp_path, "node", "elsewhere") is None
    assert is_alive(tmp_path, "never-there", host_name()) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"pid": "x", "host": 3}', b"x" * 100_000])
def test_a_lock_file_that_somebody_else_wrote_tells_nothing_and_can_be_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.lock").write_bytes(content)

    assert is_alive(tmp_path, "node", host_name()) is None

    presence = take_presence(tmp_path, "node")
    assert is_alive(tmp_path, "node", host_name()) is True
    presence.release()


def test_a_killed_process_is_dead_at_once_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    try:
        if sys.platform != "win32":
            process.send_signal(signal.SIGSTOP)
        assert is_alive(tmp_path, "node", host_name()) is True
        with pytest.raises(NodeIdTakenError) as caught:
            take_presence(tmp_path, "node", tries_ms=1)
        assert caught.value.pid == process.pid
    finally:
        process.kill()
        process.wait()

    assert is_alive(tmp_path, "node", host_name()) is False
    take_presence(tmp_path, "node").release()


def test_a_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    script = HOLDER.replace(
        "time.sleep(60)",
        "import subprocess\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'], close_fds=False)\n"
        "print('child', flush=True)",
    )
    # stdout goes nowhere: the child would keep the pipe open.
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.DEVNULL)
    assert process.wait(timeout=30) == 0

    assert is_alive(tmp_path, "node", host_name()) is False


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(RootReadOnlyError) as caught:
        take_presence(tmp_path, "node")

    assert "No space left" in str(caught.value)
    monkeypatch.undo()
    take_presence(tmp_path, "node").release()
    (tmp_path / "in the way").touch()
    with pytest.raises(RootReadOnlyError):
        take_presence(tmp_path / "in the way", "node")
