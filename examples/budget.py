"""An agent that pays for tokens, and a workflow that may not spend more than it was given.

``ctx.spend`` says what a call has cost. Chapters are summed up one after the other; the third costs more than is left
of the workflow's budget, so its step is cut and the task is a dead letter, not retried. With more tokens it goes on
from there, and what was done is not paid for again. ``relaymesh budgets show`` prints the same on the command line.

prints:
    the task is DEAD_LETTER: the budget of this task for units:tokens is used up
    spent 1500 of 1200 tokens, done: ch1, ch2
    with 2500 tokens the task is SUCCESS
    spent 2000 of 2500 tokens
"""

import tempfile
from pathlib import Path

from relaymesh import Context, Node, Workflow, agent


def ask_model(question: str) -> tuple[str, int]:
    """Stand in for a call to a language model: an answer, and how many tokens it took."""
    return f"summary of {question}", 500


@agent(max_attempts=3)
def summarize(chapter: str, ctx: Context) -> str:
    answer, tokens = ask_model(chapter)
    ctx.spend(tokens=tokens, usd=tokens * 0.000002)
    return answer


def main() -> None:
    book = Workflow(budget={"units:tokens": 1_200})
    before = None
    for number in range(1, 4):
        before = book.step(f"ch{number}", "summarize", f"chapter {number}", after=[before] if before else [])
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Node(Path(folder, "data"), agents=[summarize], concurrency=1) as node,
    ):
        client = node.client
        task = client.submit_workflow(book)
        ended = client.wait(task.task_id)
        print(f"the task is {ended.status}: {ended.last_error}")
        (budget,) = client.budgets.list("task", task.task_id)
        done = [
            step.step_id.rpartition("_")[2] for step in client.workflow(task.task_id).steps if step.status == "SUCCESS"
        ]
        print(f"spent {budget.spent} of {budget.amount} tokens, done: {', '.join(done)}")

        client.budgets.set("task", task.task_id, "units:tokens", 2_500)
        client.replay(task.task_id)
        print(f"with 2500 tokens the task is {client.wait(task.task_id).status}")
        (budget,) = client.budgets.list("task", task.task_id)
        print(f"spent {budget.spent} of {budget.amount} tokens")


if __name__ == "__main__":
    main()
