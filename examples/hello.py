"""One agent, one task, one result.

An agent is a function with ``@agent``. ``Node`` runs a node for as long as its ``with`` block lasts; the node starts
worker processes, which find the agent again by this file, so everything else stands under ``__main__``.

prints:
    Hello, Ada!
"""

import tempfile

from relaymesh import Node, agent


@agent
def greet(name: str) -> str:
    return f"Hello, {name}!"


def main() -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root,
        Node(root, agents=[greet], concurrency=1) as node,
    ):
        task = node.client.submit("greet", "Ada")
        print(node.client.result(task.task_id))


if __name__ == "__main__":
    main()
