"""Messages about settings: the node looks at their files, and tells the actors what they go by from now on."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message

__all__ = ["SettingsChanged", "SettingsTick"]


@message("settings.tick")
class SettingsTick(Message, frozen=True):
    """Look at the files, or at a lease timeout whose hold is over."""


@message("settings.changed")
class SettingsChanged(Message, frozen=True):
    """Go by these from now on.

    owner_lease_ms: how long an owner may believe in a lease; judge_lease_ms: how long a judge waits for a renewal
    (relaymesh.core.lease_change). reclaim_max: leases to reclaim in a round, per kind.
    """

    owner_lease_ms: int
    judge_lease_ms: int
    reclaim_max: int
