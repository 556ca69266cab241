"""Nodes that die at a chosen write, without the half second that starting Python takes.

``kill_server.py AGENTS`` reads one line per run from stdin, ``ROOT AT WHEN`` (AT 0: never), forks, and runs a node on
the root in the child. The child kills itself with SIGKILL around its AT-th store transaction:

    before    all statements have run, COMMIT has not
    after     COMMIT has returned, nobody has been told

It answers with a line each time a child has ended: ``-9`` when it was killed, ``0`` when all tasks had ended first.
The seam is here and not in the product: the function that every write transaction of a node goes through is wrapped.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import actors.system
import relaymesh.store.database
from relaymesh.node import NodeOptions
from relaymesh.store.root import DATABASE

GIVE_UP_S = 30.0


def main(agents: str) -> None:
    for line in sys.stdin:
        root, at, when = line.split()
        child = os.fork()
        if child == 0:
            os._exit(run(Path(root), int(at), when, agents))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(root: Path, at: int, when: str, agents: str) -> int:
    """Run a node until all tasks have ended, or it kills itself; return the exit status."""
    os.environ["RELAYMESH_TEST_WITNESS"] = str(root.parent / "witness.txt")
    die_at(at, when)
    node = actors.system.build(NodeOptions(root=root, node_id="a", concurrency=2, agents=(agents,)))
    conn = sqlite3.connect(root / DATABASE)
    until = time.monotonic() + GIVE_UP_S
    while conn.execute("SELECT count(*) FROM tasks WHERE finished_at_ms IS NULL").fetchone()[0]:
        if time.monotonic() > until:
            return 1
        time.sleep(0.005)
    node.kill()
    return 0


def die_at(at: int, when: str) -> None:
    """Wrap the one function that all writes of a process go through."""
    original = relaymesh.store.database.write_transaction
    numbers = itertools.count(1)

    @contextmanager
    def deadly(*words: object, **options: object) -> Iterator[None]:
        number = next(numbers)
        with original(*words, **options):  # type: ignore[arg-type]
            yield
            if number == at and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        if number == at and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    relaymesh.store.database.write_transaction = deadly


if __name__ == "__main__":
    main(*sys.argv[1:])
