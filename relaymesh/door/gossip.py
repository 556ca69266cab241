"""Gossip by hand, and the keys of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relaymesh.argument import check_whole_number
from relaymesh.door.base import Door
from relaymesh.errors import RootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Unpack

    from relaymesh.core.setting_table import Settings
    from relaymesh.gossip.key import GossipKeys
    from relaymesh.gossip.option import TickKeywords
    from relaymesh.gossip.run import GossipRun
    from relaymesh.gossip_view import GossipSyncOutcome, GossipTickOutcome

__all__ = ["Gossips"]

_SYNC_WINDOW_MS: Final = 1_200
"""Longer than that of a single tick: members at the far end of several hops answer within it."""


class Gossips(Door):
    """What a process that lives for a moment tells and hears of the mesh."""

    def gossip(self, node_id: str = "node-local", **options: Unpack[TickKeywords]) -> GossipTickOutcome:
        """Say to some seeds that a node is here, and listen for ``window_ms``; return what came of it.

        options: those of ``relaymesh.gossip.option.TickOptions``, with its defaults.

        Raises:
            InputError, SeedFileError, GossipBindError, GossipInsecureError, GossipRingError: nothing was sent.
        """
        with self._gossip_run(node_id, options) as run:
            return run.tick()

    def gossip_ticks(
        self,
        node_id: str = "node-local",
        *,
        pause: Callable[[], bool],
        over: Callable[[], bool],
        **options: Unpack[TickKeywords],
    ) -> Iterator[GossipTickOutcome]:
        """As ``gossip``, again and again. pause: called between two ticks, True to end; over: asked while listening."""
        with self._gossip_run(node_id, options, over) as run:
            yield run.tick()
            while not pause():
                yield run.tick()

    def gossip_sync(
        self,
        node_id: str = "node-local",
        *,
        rounds: int = 3,
        interval_ms: int = 250,
        **options: Unpack[TickKeywords],
    ) -> GossipSyncOutcome:
        """Do several ticks with a pause between them; return each, and their sums. ``window_ms`` is 1200 here."""
        check_whole_number("rounds", rounds)
        check_whole_number("interval_ms", interval_ms)
        with self._gossip_run(node_id, {"window_ms": _SYNC_WINDOW_MS, **options}) as run:
            return run.sync(rounds, interval_ms)

    @property
    def gossip_keys(self) -> GossipKeys:
        """The keys of the mesh: ``status``, ``install``, ``use``, ``remove``."""
        from relaymesh.gossip.key import GossipKeys

        return GossipKeys(self)

    def _gossip_run(self, node_id: str, told: TickKeywords, over: Callable[[], bool] = lambda: False) -> GossipRun:
        from relaymesh.gossip.option import TickOptions
        from relaymesh.gossip.run import GossipRun

        options = TickOptions(node_id=node_id, **told)
        return GossipRun(
            self._writable(),
            options,
            settings=self._fresh_config,
            audit=self.audit,
            actor=self._actor,
            now_ms=self._now_ms,
            over=over,
        )

    def _fresh_config(self) -> Settings:
        """Return the settings as they are now; those of before while the file cannot be used."""
        from relaymesh.settings import load

        try:
            self._loaded = load(self.root)
        except RootError:
            return self._config()
        return self._config()
