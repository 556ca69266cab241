"""A node whose actors crash again and again: ``crash_node.py ROOT NAMES...``. Ends as the node ends."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from relaymesh.node import NodeOptions, start


def main(root: str, *names: str) -> int:
    node = start(NodeOptions(root=Path(root), node_id="a", concurrency=1))
    print("node a is up on", root, flush=True)
    for name in itertools.cycle(names):
        node.tree.crash(name, "a defect that does not go away")  # type: ignore[attr-defined]
        status = node.wait(0.05)
        if status is not None:
            return status
        time.sleep(0.01)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
