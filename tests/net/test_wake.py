"""The hint that something was committed: who hears it, and how its listener ends."""

from __future__ import annotations

import threading
from pathlib import Path

from relaymesh.net.wake import WakeListener, WakeSender


def test_a_listener_hears_a_sender_and_forgets_its_file_at_the_end(tmp_path: Path) -> None:
    listener, sender = WakeListener(tmp_path, "n1"), WakeSender(tmp_path)

    sender.wake()

    assert listener.wait()
    listener.close()
    sender.close()
    assert not listener.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_thread_that_waits_comes_back_whenever_its_listener_is_closed(tmp_path: Path) -> None:
    left = []
    for number in range(100):
        listener = WakeListener(tmp_path, f"n{number}")
        thread = threading.Thread(target=_until_closed, args=(listener,), daemon=True)
        thread.start()

        listener.close()

        thread.join(5)
        left += [number] if thread.is_alive() else []
        if left:
            break

    assert left == []


def _until_closed(listener: WakeListener) -> None:
    while listener.wait():
        pass
