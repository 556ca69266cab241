"""Any program can be an agent: the payload comes on stdin, stdout is the output, stderr is the attempt's log.

``agents/scripts.json`` under the data root names the command. A name that exists under the root is taken from there,
everything else is found as in a shell. Here it is Python, so that the example runs everywhere; a shell script, awk,
node or a compiled program work the same way.

prints:
    output: 3 lines, sorted: ant, bee, cow
    log of attempt 1: reading for step stp_...
"""

import json
import sys
import tempfile
from pathlib import Path

from relaymesh import Node

SCRIPT = """
import os, sys

# What stands on stderr is logged; lines that begin with ::relaymesh talk to RelayMesh.
print("reading for step", os.environ["RELAYMESH_STEP_ID"], file=sys.stderr)
print("::relaymesh progress half way", file=sys.stderr)
lines = sys.stdin.read().split()
print(len(lines), "lines, sorted:", ", ".join(sorted(lines)))
"""


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        agents = Path(root, "agents")
        agents.mkdir()
        (agents / "sort.py").write_text(SCRIPT, encoding="utf-8")
        entry = {"id": "sort", "command": [sys.executable, "agents/sort.py"], "timeoutMs": 10_000}
        (agents / "scripts.json").write_text(json.dumps({"agents": [entry]}), encoding="utf-8")

        with Node(root, concurrency=1) as node:
            task = node.client.submit("sort", "cow\nant\nbee\n")
            print("output:", node.client.result(task.task_id))
            for line in node.client.logs(task.task_id):
                print(f"log of attempt {line.attempt}: {line.text.partition('stp_')[0]}stp_...")


if __name__ == "__main__":
    main()
