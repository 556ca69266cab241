from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relaymesh import Client


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Client(tmp_path / "data") as client:
        client.init()
    return tmp_path / "data"


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Any]]:
    if sys.platform == "win32":
        pytest.skip("a pseudo-terminal is POSIX")
    from tests.console.pty_session import Session

    opened: list[Session] = []

    def open_session(root: Path, *words: str, **options: Any) -> Session:
        opened.append(Session(root, *words, **options))
        return opened[-1]

    yield open_session
    for session in opened:
        session.close()


@pytest.fixture
def start_node() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(root: Path) -> subprocess.Popen[bytes]:
        node = subprocess.Popen(
            [sys.executable, "-m", "relaymesh", "--root", str(root), "up"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started.append(node)
        until = time.monotonic() + 30
        with Client(root) as client:
            while not client.status().nodes_alive:
                assert node.poll() is None and time.monotonic() < until
        return node

    yield start
    for node in started:
        if node.poll() is None:
            if sys.platform != "win32":
                os.killpg(node.pid, signal.SIGKILL)
            node.kill()
        node.wait()
