"""Fan out over a list that another step makes, and join the outputs.

``split`` puts out a list. ``count`` runs once per item of it, as many times as there are items, and ``report`` gets the
list of all outputs. A step that uses the output of another one waits for it; nothing else needs to be said.

prints:
    3 paragraphs, 15 words, the longest has 8
"""

import tempfile
from dataclasses import dataclass

from relaymesh import ITEM, Node, Workflow, agent, literal

TEXT = """The lamp went out.

She washed the glass, and it came back.

Nobody asked why.
"""


@dataclass
class Count:
    paragraph: str
    words: int


@agent
def split(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


@agent
def count(paragraph: str) -> Count:
    return Count(paragraph, len(paragraph.split()))


@agent
def report(counts: list[Count]) -> str:
    words = [one.words for one in counts]
    return f"{len(words)} paragraphs, {sum(words)} words, the longest has {max(words)}"


def main() -> None:
    flow = Workflow(labels={"example": "workflow"})
    parts = flow.step("parts", "split", literal(TEXT))  # literal: a {{ in the text would mean something
    counts = flow.step("counts", "count", ITEM, over=parts.output)
    flow.step("report", "report", counts.output)

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root,
        Node(root, agents=[split, count, report], concurrency=2) as node,
    ):
        task = node.client.submit_workflow(flow)
        print(node.client.result(task.task_id))


if __name__ == "__main__":
    main()
