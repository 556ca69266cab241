"""A schedule: ticks that become tasks, a run by hand, and making up for the past.

The node of this program fires it. Each tick is made once, however many nodes look; the labels of a task say which tick
it is.

prints:
    two ticks were made, a second apart
    by hand: done hello
    5 ticks lie in the span, 5 of them were made now
    again: 0
"""

import tempfile
import time

from relaymesh import Node, agent


@agent
def work(text: str) -> str:
    return f"done {text}"


def main() -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root,
        Node(root, agents=[work], concurrency=1) as node,
    ):
        schedules = node.client.schedules
        schedules.create("often", every_ms=1_000, agent="work", input="hello", missed="all")
        while len(runs := schedules.show("often").runs) < 2:
            time.sleep(0.1)
        newest, before = runs[0], runs[1]
        print(f"two ticks were made, {'a second' if newest.tick_ms - before.tick_ms == 1_000 else 'some time'} apart")
        schedules.pause("often")

        by_hand = schedules.trigger("often")
        assert by_hand.task_id is not None
        print(f"by hand: {node.client.result(by_hand.task_id)}")

        hourly = schedules.create("hourly", cron="0 * * * *", agent="work", input="past")
        hour_ms = 3_600_000
        until_ms = hourly.created_at_ms // hour_ms * hour_ms
        made = schedules.backfill("hourly", from_ms=until_ms - 4 * hour_ms, to_ms=until_ms)
        print(f"{made.ticks} ticks lie in the span, {made.submitted} of them were made now")
        again = schedules.backfill("hourly", from_ms=until_ms - 4 * hour_ms, to_ms=until_ms)
        print(f"again: {again.submitted}")
        for task_id in made.task_ids:
            node.client.wait(task_id)


if __name__ == "__main__":
    main()
