"""What the settings of a root say to a running node: what holds now, for all who start, judge or retry from now on.

The SettingsActor replaces it as a whole when the operator has changed something; the others read it in their threads.
"""

from __future__ import annotations

from pathlib import Path

from relaymesh.agents.registry import Registry
from relaymesh.core.lease_change import LeaseTimeouts
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting_table import Settings
from relaymesh.reload import News
from relaymesh.settings.record import read_record
from relaymesh.wire.setting import SettingsChanged

__all__ = ["InForce", "lease_timeouts"]


class InForce:
    """See the module. leases: what they go by, also for actors that start later."""

    def __init__(self, settings: Settings, registry: Registry, leases: SettingsChanged) -> None:
        self.leases = leases
        self._take(settings, registry)

    def took(self, news: News) -> None:
        """Settings or retry policies were changed."""
        self._take(news.settings, self.registry.with_retries(news.retries))

    def _take(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.member_rules = MemberRules.of(settings)
        self.registry = registry
        self._policies = registry.specs, settings.retry_policy

    def policy_of(self, agent_id: str) -> RetryPolicy:
        """Return the retry policy of an agent, known here or not."""
        agents, default = self._policies
        spec = agents.get(agent_id)
        return spec.retry if spec is not None and spec.retry is not None else default

    def lease_bounds(self, owner_ms: int, judge_ms: int) -> SettingsChanged:
        """Set and return what leases go by."""
        self.leases = SettingsChanged(owner_ms, judge_ms, self.settings.retry_dispatch_limit)
        return self.leases


def lease_timeouts(root: Path, settings: Settings, *, reload_ms: int, now_ns: int) -> LeaseTimeouts:
    """Return the timeouts of a node that starts; the one recorded for the root may still be what other nodes go by."""
    recorded = read_record(root)
    ours_ms = settings.lease_timeout_ms
    theirs_ms = recorded.values["leaseTimeoutMs"] if recorded is not None else ours_ms
    assert isinstance(theirs_ms, int)
    leases = LeaseTimeouts(theirs_ms, reload_ms=reload_ms)
    leases.change(now_ns, ours_ms)
    return leases
