"""Look for due schedules as fast as it goes: ``looker.py ROOT BASE_MS STARTED FASTER UNTIL_MS``.

The clock runs ``FASTER`` times as fast as the wall clock, from BASE_MS at the wall time STARTED on, the same in every
process. Ends by itself once the clock has reached UNTIL_MS.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from relaymesh.store.error import StoreBusyError
from relaymesh.store.store import Store


def main(root: str, base_ms: str, started: str, faster: str, until_ms: str) -> int:
    store = Store.open(Path(root), now_ms=int(base_ms))
    while True:
        now_ms = min(int(base_ms) + int((time.time() - float(started)) * 1000 * float(faster)), int(until_ms))
        due_ms = store.next_due_ms()
        if due_ms is not None and due_ms <= now_ms:
            try:
                with store.write():
                    store.fire_due(now_ms=now_ms)
            except StoreBusyError:
                continue
        elif now_ms >= int(until_ms):
            return 0
        else:
            time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
