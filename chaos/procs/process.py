"""One real node: a root, a port, and the process that is on them at the moment."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

__all__ = ["RealNode"]

_END_S: Final = 10.0


class RealNode:
    """A node that can be started, killed, paused and ended in order; only processes that it started are touched.

    seeds: the faces of others. starts: how often it was started.
    """

    def __init__(
        self, node_id: str, root: Path, log: Path, *, port: int, face: str, seeds: Sequence[str], agents: Path
    ) -> None:
        self.node_id, self.root, self.log, self.port = node_id, root, log, port
        self.starts = 0
        self._words = [
            *(sys.executable, "-m", "relaymesh", "--root", str(root), "up", "--node-id", node_id),
            *("--gossip-port", str(port), "--advertise", face, "--seeds", ",".join(seeds)),
            *("--concurrency", "2", "--agents", str(agents)),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._family: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        """The id of its process, 0 when there is none."""
        return self._process.pid if self.running and self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether a process is there, standing still or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start a process, unless one runs; it is not up yet when this returns."""
        if self.running:
            return
        self.starts += 1
        self._paused = False
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C is for who started the scenario, who ends the nodes in turn.
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=os.name == "posix"
            )

    def kill(self) -> None:
        """End the process at once, as ``kill -9`` does; what it started has to notice by itself."""
        if self._process is None:
            return
        self._note_family()
        self._process.kill()
        self._process.wait()

    def leave(self) -> None:
        """Ask it to end in order; on Windows, where that cannot be asked of another process, end it at once."""
        if self._process is not None and self.running:
            self._note_family()
            self.resume()
            self._process.terminate()

    def pause(self) -> None:
        """Let the process stand still; its workers go on."""
        if self.running:
            psutil.Process(self.pid).suspend()
            self._paused = True

    def resume(self) -> None:
        if self._paused and self.running:
            psutil.Process(self.pid).resume()
        self._paused = False

    def close(self) -> None:
        """End it, and every process that it had started and that is still there."""
        with contextlib.suppress(psutil.Error):
            self.resume()
        self.leave()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self.kill()
        for one in self._family:  # psutil knows by its start whether an id has been given to another process
            with contextlib.suppress(psutil.Error):
                one.kill()

    def _note_family(self) -> None:
        known = set(self._family)
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.pid).children(recursive=True) if self.running else []
            self._family += [child for child in children if child not in known]
