"""Two agents as you would write them for real.

    relaymesh up --agents examples/word_agents.py

``test_word_agents.py`` tests them.
"""

from dataclasses import dataclass

from relaymesh import Context, agent


@dataclass
class Page:
    title: str
    body: str


@agent
def count_words(page: Page) -> dict[str, int]:
    """Count the words of a page. The input is JSON, checked against ``Page`` before the agent is called."""
    return {"words": len(page.body.split())}


@agent(max_attempts=3, base_backoff_ms=60_000, max_backoff_ms=60_000)
def publish(text: str, ctx: Context) -> str:
    """Publish a text; the printer is out of paper for the first two minutes of every task."""
    if ctx.attempt < 3:
        ctx.log.warning("no paper")
        raise OSError("no paper")
    return f"published: {text}"
