"""The agents that are measured."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ECHO", "PROCESS_ECHO", "write_agents"]

ECHO = "echo"
"""The built-in, run inline in the node."""
PROCESS_ECHO = "process-echo"
"""The same in Python, run in worker processes as Python agents are by default."""

_SOURCE = '''"""An agent that costs nothing, so that what is measured is the way to it and back."""

from relaymesh.agents.decorate import agent


@agent(id="process-echo")
def process_echo(text: str) -> str:
    return text
'''


def write_agents(folder: Path) -> Path:
    """Write the file that holds the Python agent; return its path."""
    path = folder / "bench_agent.py"
    path.write_text(_SOURCE, encoding="utf-8")
    return path
