"""Handing in work as a file: any program that can write one can do this, in any language.

The file is written under a hidden name and then renamed into a lane of the inbox, so that nobody sees half of it. The
answer appears in ``done``, in the folder of the day, with ``.result.json`` behind the name.

prints:
    order-17.json: SUCCESS, hello from a file
    order-17.json again: the same task
    wrong.json: refused, unknown_agent
"""

import json
import os
import tempfile
import time
from pathlib import Path

from relaymesh import Node


def drop(root: str, name: str, document: object) -> None:
    lane = Path(root, "inbox", "normal")
    aside = lane / f".{name}.tmp"
    aside.write_text(json.dumps(document), encoding="utf-8")
    os.rename(aside, lane / name)


def answer(root: str, pattern: str) -> dict[str, object]:
    """Wait until an answer is there; it appears whole."""
    while not (found := list(Path(root).glob(pattern))):
        time.sleep(0.05)
    read: dict[str, object] = json.loads(found[0].read_text(encoding="utf-8"))
    return read


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root, Node(root, concurrency=1):
        drop(root, "order-17.json", {"agent": "echo", "input": "hello from a file"})
        first = answer(root, "done/*/order-17.json.result.json")
        (output,) = json.loads(str(first["resultPayload"])).values()
        print(f"order-17.json: {first['status']}, {json.loads(output)['received']}")

        # The name is the idempotency key: the same name makes no second task, whatever the file holds.
        drop(root, "order-17.json", {"agent": "echo", "input": "something else"})
        second = answer(root, "done/*/tsk_*~order-17.json.result.json")
        print("order-17.json again:", "the same task" if second["taskId"] == first["taskId"] else "another task")

        drop(root, "wrong.json", {"agent": "nobody", "input": ""})
        print("wrong.json: refused,", answer(root, "dead/wrong.json.reason.json")["code"])


if __name__ == "__main__":
    main()
