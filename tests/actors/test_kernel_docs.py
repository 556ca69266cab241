"""The example in docs/actors.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_example_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "actors.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)

    exec(compile(example, str(page), "exec"), {"__name__": "example"})
