"""Make new roots at the same moments as others: ``fresh.py FOLDER COUNT BEGIN``, one every tenth of a second."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from relaymesh.client import Client

EVERY_S = 0.1
SPIN_S = 0.003


def main(folder: str, count: str, begin: str) -> None:
    for number in range(int(count)):
        at = float(begin) + number * EVERY_S
        time.sleep(max(0.0, at - time.time() - SPIN_S))
        while time.time() < at:
            pass  # a sleep alone does not end at the same moment in all of them
        with Client(Path(folder) / str(number)) as client:
            client.init()
            client.submit("echo", "x", idempotency_key="the same for all")


if __name__ == "__main__":
    main(*sys.argv[1:])
