"""A step as a claim hands it on."""

from __future__ import annotations

import msgspec

from relaymesh.wire.store import LeaseRef
from relaymesh.wire.work import Allowance

__all__ = ["ClaimedRow"]


class ClaimedRow(msgspec.Struct, frozen=True, gc=False):
    """A step that was claimed, as it was stored: its input may still have to be rendered.

    allowances: what it may spend, where somebody has a budget for it.
    """

    lease: LeaseRef
    pool: str
    payload: str | bytes | None
    payload_path: str
    template: bool
    map_item: str | bytes | None
    map_index: int | None
    traceparent: str | None
    allowances: tuple[Allowance, ...] = ()
