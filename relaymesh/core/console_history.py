"""What the console remembers of the last minutes, and how it becomes a line of bars.

    samples ──▶ one column for each slice of the time span (the largest of the slice) ──▶ bars from 0 to the largest

Nothing is interpolated: a slice without a sample is blank, so that a gap is seen as a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["BARS", "BARS_ASCII", "SAMPLES_MAX", "SPAN_NS", "History", "Sample", "bars"]

SAMPLES_MAX: Final = 600
"""Samples that are kept; the oldest gives way. At the shortest interval that is ``SPAN_NS``."""
SPAN_NS: Final = 300_000_000_000
"""What a line of bars covers: five minutes."""
BARS: Final = "▁▂▃▄▅▆▇█"
BARS_ASCII: Final = "_.-=+*#@"


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. waiting: steps by priority; latency_ms: None where none ended; per_s: steps that ended a second."""

    at_ns: int
    waiting: tuple[int, ...]
    latency_ms: tuple[int | None, ...]
    per_s: float


class History:
    """The samples of the last five minutes, at most 600."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Sample) -> None:
        """Take the newest sample; one that is older than the last is dropped."""
        if self._samples and sample.at_ns < self._samples[-1].at_ns:
            return
        self._samples.append(sample)
        while self._samples[0].at_ns < sample.at_ns - SPAN_NS:
            self._samples.popleft()

    def columns(self, pick: Callable[[Sample], float | None], width: int) -> list[float | None]:
        """Return the largest value of each slice of time, oldest first; None where there is none.

        The slices end with the newest sample, and stand still against the clock: a bar does not change its place in a
        slice when the next sample comes.
        """
        if width < 1 or not self._samples:
            return [None] * max(0, width)
        slice_ns = SPAN_NS // width
        last = self._samples[-1].at_ns // slice_ns
        found: list[float | None] = [None] * width
        for sample in self._samples:
            at = width - 1 - (last - sample.at_ns // slice_ns)
            value = pick(sample)
            if at >= 0 and value is not None:
                before = found[at]
                found[at] = value if before is None else max(before, value)
        return found


def bars(values: Sequence[float | None], marks: str = BARS) -> str:
    """Return one mark for each value: blank for None, the lowest for 0, the highest for the largest value."""
    top = max((value for value in values if value is not None), default=0.0)
    return "".join(" " if value is None else marks[_level(value, top, len(marks))] for value in values)


def _level(value: float, top: float, levels: int) -> int:
    """Return 0 for nothing, and at least 1 for something: one step that waits must be seen beside a thousand."""
    if value <= 0 or top <= 0:
        return 0
    return max(1, min(levels - 1, round(value / top * (levels - 1))))
