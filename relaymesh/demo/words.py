"""Statistics of one text: what every agent of the demo computes, in whatever language it is written.

    lines       lines, the last one with or without an end
    words       runs of anything but blanks
    distinct    different runs of letters, in lower case; every byte outside ASCII counts as a letter
    often       the most frequent of those with 5 to 40 bytes, the first in the alphabet of several; empty for none
    times       how often that is
    attempt     which attempt of the step this is

As a program it reads a text and writes one JSON object: ``python -m relaymesh.demo.words < FILE``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter

__all__ = ["statistics"]

_LONG = range(5, 41)


def statistics(text: bytes, *, tool: str, attempt: int) -> dict[str, str | int]:
    """Return the statistics of a text in UTF-8."""
    # Bytes, so that tools that know nothing of Unicode come to the same numbers.
    runs = Counter(re.findall(rb"[a-z\x80-\xff]+", text.lower()))
    long = [(-times, run) for run, times in runs.items() if len(run) in _LONG]
    times, often = min(long, default=(0, b""))
    return {
        "tool": tool,
        "lines": text.count(b"\n") + (not text.endswith(b"\n") and text != b""),
        "words": len(text.split()),
        "distinct": len(runs),
        "often": often.decode("utf-8", "replace"),
        "times": -times,
        "attempt": attempt,
    }


if __name__ == "__main__":
    found = statistics(
        sys.stdin.buffer.read(), tool="python-script", attempt=int(os.environ.get("RELAYMESH_ATTEMPT", "1"))
    )
    print(json.dumps(found))
