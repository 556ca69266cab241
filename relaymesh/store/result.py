"""The result of a task: one JSON object, step id to output text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["result_map"]


def result_map(outputs: Sequence[tuple[str, str | None]]) -> str:
    """Return a task's result: one JSON object, step id to output text, in the order given."""
    return msgspec.json.encode(dict(outputs)).decode()
