"""A program that submits tasks to somebody else's node: ``python -m bench.submitter ROOT AGENT TASKS BATCH``.

Prints ``ready``, waits for a line, submits, then prints one JSON object. BATCH 1 submits them one at a time.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import uuid

from relaymesh.client import Client
from relaymesh.view import TaskRequest


def main() -> None:
    """Submit to the root that is given."""
    root, agent, tasks, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    run = uuid.uuid4().hex
    with Client(root, agents=sys.argv[5:]) as client:
        client.submit(agent, f"{run} warm")
        gc.collect()
        print("ready", flush=True)
        sys.stdin.readline()
        started, cpu = time.perf_counter(), time.process_time()
        if batch == 1:
            accepted = sum(not client.submit(agent, f"{run} {n}").deduplicated for n in range(tasks))
        else:
            requests = (TaskRequest(agent=agent, input=f"{run} {n}") for n in range(tasks))
            accepted = sum(line.result == "accepted" for line in client.submit_many(requests))
        seconds = time.perf_counter() - started
    print(json.dumps({"accepted": accepted, "seconds": seconds, "cpu_s": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
