"""Submit and work at full speed: ``hammer.py ROOT NAME SECONDS ACKNOWLEDGED``.

One process that runs a node and submits through a connection of its own, as fast as it gets answers. Any error that
reaches it ends it with a traceback.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from relaymesh.client import Client
from relaymesh.node import NodeOptions, start
from relaymesh.view import TaskRequest

OPEN_MAX = 2_000


def main(root: str, name: str, seconds: str, acknowledged: str) -> int:
    node = start(NodeOptions(root=Path(root), node_id=name, concurrency=1, threads=1))
    fd = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    until = time.monotonic() + float(seconds)
    number = 0
    slowest_s = 0.0
    with Client(Path(root)) as client:
        while time.monotonic() < until:
            number += 1
            began = time.monotonic()
            ids = [client.submit("echo", name, idempotency_key=f"{name}-{number}").task_id]
            batch = [TaskRequest(agent="echo", input=name, idempotency_key=f"{name}-{number}-{n}") for n in range(10)]
            ids += [line.task_id or "" for line in client.submit_many(batch)]
            slowest_s = max(slowest_s, time.monotonic() - began)
            os.write(fd, "".join(f"{task_id}\n" for task_id in ids).encode())
            while client.query("SELECT count(*) FROM tasks WHERE finished_at_ms IS NULL")[0][0] > OPEN_MAX:
                time.sleep(0.01)
        while client.query("SELECT count(*) FROM tasks WHERE finished_at_ms IS NULL")[0][0]:
            time.sleep(0.05)
    print(f"{name}: {number} rounds, the slowest {slowest_s:.2f} s", flush=True)
    return node.stop(5_000)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
