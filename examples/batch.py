"""Many tasks at once: stored in groups, each answered when it is on disk.

What is wrong is told and does not keep the rest from being stored. A second submit with the same idempotency key gives
the first task, so a batch that was interrupted can simply be sent again.

prints:
    accepted 200, duplicate 1, rejected 1
    line 202: there is no agent "sqare" here; did you mean "square"? (`relaymesh agents` lists those that are)
    the sum of all squares is 2646700
"""

import tempfile
from collections import Counter
from collections.abc import Iterator

from relaymesh import Node, TaskRequest, agent


@agent
def square(number: int) -> int:
    return number * number


def requests() -> Iterator[TaskRequest]:
    for number in range(200):
        yield TaskRequest(agent="square", input=str(number), idempotency_key=f"square-{number}", labels={"run": "1"})
    yield TaskRequest(agent="square", input="7", idempotency_key="square-7")
    yield TaskRequest(agent="sqare", input="8")


def main() -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root,
        Node(root, agents=[square], concurrency=2) as node,
    ):
        lines = list(node.client.submit_many(requests()))
        counts = Counter(line.result for line in lines)
        print(", ".join(f"{result} {counts[result]}" for result in ("accepted", "duplicate", "rejected")))
        for line in lines:
            if line.result == "rejected":
                print(f"line {line.line}: {(line.message or '').partition(':')[0]}")
        accepted = [line.task_id for line in lines if line.result == "accepted" and line.task_id]
        print(f"the sum of all squares is {sum(node.client.result(task_id, type=int) for task_id in accepted)}")


if __name__ == "__main__":
    main()
