"""Huey's consumer: ``python -m bench.huey_consumer FILE WORKERS thread|process``.

Prints ``ready``, works until its input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.huey_queue import open_queue


def main() -> None:
    """Consume until nobody is left to consume for."""
    path, workers, worker_type = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    queue, _ = open_queue(path)
    consumer = queue.create_consumer(
        workers=workers,
        worker_type=worker_type,
        periodic=False,
        # A queue that is empty is looked at again at once: what it costs to be idle is not measured.
        initial_delay=0.002,
        max_delay=0.01,
        check_worker_health=False,
    )
    consumer.start()
    print("ready", flush=True)
    sys.stdin.read()
    consumer.stop(graceful=True)


if __name__ == "__main__":
    main()
