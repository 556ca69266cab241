"""``relaymesh up`` for a checkout that was not installed, so that nobody has registered the node's builder.

python -m bench.up ROOT [--agents FILE] [--concurrency N]
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from actors.system import build
from relaymesh.node import GossipOptions, NodeOptions, start


def main() -> int:
    """Run a node until a signal stops it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--agents", action="append", default=[])
    parser.add_argument("--concurrency", type=int)
    arguments = parser.parse_args()
    stopped = threading.Event()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stopped.set())
    node = start(
        NodeOptions(
            arguments.root,
            agents=tuple(arguments.agents),
            concurrency=arguments.concurrency,
            gossip=GossipOptions(),
        ),
        builder=build,
    )
    print(f"node {node.node_id} is up on {arguments.root}", file=sys.stderr, flush=True)
    while not stopped.wait(1.0) and node.wait(0) is None:
        continue
    return node.stop(grace_ms=1_000)


if __name__ == "__main__":
    sys.exit(main())
