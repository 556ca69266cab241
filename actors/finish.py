"""Results on their way to the store, in messages of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable

from actors.address import Address
from relaymesh.wire.store import FinishedStep, FinishSteps

__all__ = ["REPORT_CHARS_MAX", "report_finished"]

REPORT_CHARS_MAX = 4 * 1024 * 1024
"""Output characters per message, exceeded by one output at most."""


def report_finished(store: Address, steps: Iterable[FinishedStep]) -> None:
    """Tell the store what ended, in as many messages as the size of the outputs asks for."""
    part: list[FinishedStep] = []
    chars = 0
    for step in steps:
        part.append(step)
        chars += len(step.report.output)
        if chars >= REPORT_CHARS_MAX:
            store.tell(FinishSteps(tuple(part)))
            part, chars = [], 0
    if part:
        store.tell(FinishSteps(tuple(part)))
