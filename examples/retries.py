"""A step that fails is tried again, then it is a dead letter, and ``replay`` gives it a new start.

prints:
    attempt 1 of fetch failed: the file is not there yet
    attempt 2 of fetch failed: the file is not there yet
    the task is a DEAD_LETTER
    replayed, and now it says: figures of Monday
"""

import tempfile
from pathlib import Path

from relaymesh import AgentFailed, Node, TaskFailedError, agent


@agent(max_attempts=2, base_backoff_ms=50)
def fetch(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        # Any exception would be retried; AgentFailed can also say retryable=False, or how long to wait.
        raise AgentFailed("the file is not there yet", code="no_file") from None


def main() -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Node(Path(folder, "data"), agents=[fetch], concurrency=1) as node,
    ):
        client = node.client
        figures = Path(folder, "figures.txt")
        task = client.submit("fetch", str(figures))

        for event in client.events(task.task_id):
            if event.step_id is not None and event.kind in ("retrying", "dead_lettered"):
                print(f"attempt {event.attempt} of fetch failed: {event.detail}")
        try:
            client.result(task.task_id)
        except TaskFailedError as error:
            print(f"the task is a {error.status}")

        figures.write_text("figures of Monday", encoding="utf-8")
        client.replay(task.task_id)
        print(f"replayed, and now it says: {client.result(task.task_id)}")


if __name__ == "__main__":
    main()
