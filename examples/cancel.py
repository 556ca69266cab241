"""A long step says how far it is, and is cancelled half way.

``heartbeat`` tells progress, which ``events`` shows within some two seconds. ``cancelled`` is set when somebody cancels
the task or the time of the step is up; the agent then has its grace time to clean up. After that it is killed, with all
that it started.

prints:
    progress: 3 of 1000 pages
    the task is CANCELLED
    the desk is empty again
"""

import tempfile
import time
from pathlib import Path

from relaymesh import Context, Node, agent


@agent(timeout_ms=600_000, grace_ms=5_000)
def print_book(folder: str, ctx: Context) -> str:
    desk = Path(folder, "pages on the desk")
    desk.touch()
    try:
        for page in range(1, 1001):
            ctx.heartbeat(f"{page} of 1000 pages")
            if page == 3:
                ctx.cancelled.wait()  # a paper jam: this would take for ever
            ctx.check()  # raises when the attempt is to end
        return "printed"
    finally:
        desk.unlink()


def main() -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Node(Path(folder, "data"), agents=[print_book], concurrency=1) as node,
    ):
        client = node.client
        task = client.submit("print_book", folder)
        for event in client.events(task.task_id):
            if event.detail and event.detail.startswith("3 of"):
                print(f"progress: {event.detail}")
                client.cancel(task.task_id, reason="out of paper")
        print(f"the task is {client.task(task.task_id).status}")
        while Path(folder, "pages on the desk").exists():
            time.sleep(0.01)
        print("the desk is empty again")


if __name__ == "__main__":
    main()
