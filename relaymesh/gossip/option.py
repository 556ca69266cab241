"""What a gossip by hand is told: the one list of its options, for the methods of a client and the run behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from relaymesh.argument import check_text
from relaymesh.errors import InputError
from relaymesh.store.presence import check_node_id

__all__ = ["TickKeywords", "TickOptions"]

WINDOW_MS_MIN: Final = 100
WINDOW_MS_MAX: Final = 3_600_000
TOLD_MAX: Final = 10_000
"""Largest fanout and hops that are taken; seeds and ``HOPS_MAX`` bound what is done."""


def _nobody(_sentence: str) -> None:
    return None


class TickKeywords(TypedDict, total=False):
    """The options as keywords, as callers give them; ``TickOptions`` says what each is and has the defaults."""

    bind: str
    bind_port: int
    seeds: Sequence[str]
    seeds_file: str | Path | None
    window_ms: int
    fanout: int
    ttl: int
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TickOptions:
    """What one run is told.

    seeds: ``HOST:PORT``; bad ones are skipped, and ``say`` gets one sentence about each. window_ms: how long a tick
    listens, 100 to 3,600,000. fanout, ttl: not positive for the settings, 10,000 at most.

    Raises:
        BadNodeIdError, InputError: nothing can be done with these.
    """

    node_id: str = "node-local"
    bind: str = "127.0.0.1"
    bind_port: int = 17_888
    seeds: Sequence[str] = ()
    seeds_file: str | Path | None = None
    window_ms: int = 300
    fanout: int = -1
    ttl: int = -1
    say: Callable[[str], None] = _nobody

    def __post_init__(self) -> None:
        check_text("node_id", self.node_id)
        check_text("bind", self.bind)
        for seed in self.whom:
            check_text("seeds", seed)
        check_node_id(self.node_id)
        if not 1 <= self.bind_port <= 65_535:
            raise InputError(f"{self.bind_port} is no UDP port: choose a --bind-port from 1 to 65535")
        for name, value, least, most in (
            ("--window-ms", self.window_ms, WINDOW_MS_MIN, WINDOW_MS_MAX),
            ("--fanout", max(self.fanout, 0), 0, TOLD_MAX),
            ("--ttl", max(self.ttl, 0), 0, TOLD_MAX),
        ):
            if not least <= value <= most:
                raise InputError(f"{name} {value:,} is out of bounds: choose {least:,} to {most:,}")

    @property
    def whom(self) -> tuple[str, ...]:
        """The seeds; a single one may be given as it is."""
        return (self.seeds,) if isinstance(self.seeds, str) else tuple(self.seeds)
