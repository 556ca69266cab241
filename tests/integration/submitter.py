"""A client that submits for ever: ``submitter.py ROOT AGENTS SEED ACKNOWLEDGED [OPEN_MAX]``.

An id is written down, and the file synced, after the answer came: those ids must never be lost. The mix: built-in,
process, thread and script agents, batches, and workflows with a fan-in and a map.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from relaymesh.client import Client
from relaymesh.view import TaskRequest

OPEN_MAX = 150
MAP_ITEMS = 3


def main(root: str, agents: str, seed: str, acknowledged: str, open_max: str = str(OPEN_MAX)) -> None:
    rng = random.Random(int(seed))
    fd = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    numbers = iter(range(1, 1 << 60))

    def key() -> str:
        return f"{seed}-{os.getpid()}-{next(numbers)}"

    with Client(Path(root), agents=(agents,)) as client:
        makers = (_echo, _stamp, _stamp, _thread, _script, _batch, _workflow)
        while True:
            if _open_tasks(client) >= int(open_max):
                time.sleep(0.02)
                continue
            ids = list(rng.choice(makers)(client, rng, key))
            os.write(fd, "".join(f"{task_id}\n" for task_id in ids).encode())
            os.fsync(fd)
            time.sleep(rng.random() * 0.02)


def _open_tasks(client: Client) -> int:
    return int(client.query("SELECT count(*) FROM tasks WHERE finished_at_ms IS NULL")[0][0])


Key = Callable[[], str]


def _echo(client: Client, rng: random.Random, key: Key) -> Iterator[str]:
    yield client.submit("echo", "hello", idempotency_key=key(), priority=_priority(rng)).task_id


def _stamp(client: Client, rng: random.Random, key: Key) -> Iterator[str]:
    request = {"ms": rng.choice((0, 2, 20, 80))}
    yield client.submit("stamp", request, idempotency_key=key(), priority=_priority(rng)).task_id


def _thread(client: Client, rng: random.Random, key: Key) -> Iterator[str]:
    yield client.submit("thread_stamp", {"ms": rng.choice((0, 5, 30))}, idempotency_key=key()).task_id


def _script(client: Client, rng: random.Random, key: Key) -> Iterator[str]:
    yield client.submit("script", f"{rng.randint(1, 9)}\n", idempotency_key=key()).task_id


def _batch(client: Client, rng: random.Random, key: Key) -> Iterator[str]:
    requests = [TaskRequest(agent="echo", input=str(n), idempotency_key=key()) for n in range(rng.randint(2, 20))]
    for line in client.submit_many(requests):
        assert line.task_id, line
        yield line.task_id


def _workflow(client: Client, rng: random.Random, key: Key) -> Iterator[str]:
    yield client.submit_workflow(workflow(rng.choice((0, 10))), idempotency_key=key(), labels={"kind": "flow"}).task_id


def workflow(ms: int) -> dict[str, object]:
    """Two roots, a map over three items, and a join of all: its output must name every one of them."""
    return {
        "steps": [
            {"id": "left", "agent": "stamp", "input": {"ms": ms, "in": "left"}},
            {"id": "right", "agent": "say", "input": "right"},
            {"id": "list", "agent": "say", "input": json.dumps(list(range(MAP_ITEMS))), "dependsOn": ["left"]},
            {"id": "each", "agent": "stamp", "map": {"$from": "list"}, "input": {"ms": ms, "in": {"$item": ""}}},
            {
                "id": "join",
                "agent": "say",
                "input": {
                    "left": {"$from": "left", "path": "/in"},
                    "right": {"$from": "right"},
                    "each": {"$from": "each"},
                },
            },
        ]
    }


def joined(output: str) -> tuple[object, ...]:
    """Return what the join must come to, whoever ran the steps."""
    value = json.loads(output)
    return (value["left"], value["right"], [each["in"] for each in value["each"]])


JOINED = ("left", "right", list(range(MAP_ITEMS)))


def _priority(rng: random.Random) -> str:
    return rng.choice(("high", "normal", "normal", "low"))


if __name__ == "__main__":
    main(*sys.argv[1:])
