"""Lives of files in an inbox that end at a chosen step, without the second that starting Python takes.

``inbox_server.py`` reads one line per run from stdin, ``ROOT AT`` (AT 0: never), forks, and in the child lets the
files of the root live: take them in, run their tasks, put them away. The child kills itself with SIGKILL before its
AT-th step on disk; the steps are the calls of FileOps, half a written answer, and before and after each commit. It
answers with a line each time a child has ended: ``-9`` when it was killed, ``0`` when it came to its end first.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from relaymesh.audit import AuditTrail
from relaymesh.core.ident import Ids
from relaymesh.inbox.by_hand import inbox_round
from relaymesh.store.connection import Durability
from relaymesh.store.inbox_files import FileOps
from relaymesh.store.store import Store
from relaymesh.wire.store import NewTask
from tests.store.bench import Bench

FAILS = "this one fails"


def main() -> None:
    for line in sys.stdin:
        root, at = line.split()
        child = os.fork()
        if child == 0:
            os._exit(live(Path(root), Steps(int(at))))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class Steps:
    """Counts steps, and ends the process before one of them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0

    def step(self) -> None:
        self._count += 1
        if self._count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class Deadly(FileOps):
    """The real calls, with a step before each of them."""

    def __init__(self, steps: Steps) -> None:
        self._step = steps.step

    def rename(self, source: str, target: str) -> None:
        self._step()
        super().rename(source, target)

    def write_new(self, path: str, data: bytes) -> None:
        self._step()
        super().write_new(path, data[: len(data) // 2])
        self._step()
        Path(path).write_bytes(data)

    def link(self, source: str, target: str) -> None:
        self._step()
        super().link(source, target)

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)

    def make_folder(self, path: str) -> None:
        self._step()
        super().make_folder(path)

    def drop_folder(self, path: str) -> None:
        self._step()
        super().drop_folder(path)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def live(root: Path, steps: Steps) -> int:
    """Take in, run, put away."""
    store = Store.open(root, now_ms=now_ms(), durability=Durability.FAST)
    ids = Ids(now_ms, random.Random(os.getpid()))

    def commit(tasks: Sequence[NewTask]) -> list[tuple[str, bool]]:
        with store.write():
            results = store.submit(tasks, now_ms=now_ms())
            steps.step()
        steps.step()
        return results

    def take_in() -> None:
        inbox_round(
            store,
            commit=commit,
            ids=ids,
            now_ms=now_ms,
            known_agents=lambda: ["echo", "other"],
            audit=AuditTrail(root),
            ops=Deadly(steps),
        )

    take_in()
    bench = Bench(root, store)
    bench.now_ms = now_ms()
    while leases := bench.claim():
        for lease in leases:
            if lease.agent_id == "other":
                bench.fail(lease, FAILS, retryable=False)
            else:
                bench.succeed(lease)
    take_in()
    store.close()
    return 0


if __name__ == "__main__":
    main()
