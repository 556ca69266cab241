"""Gossip by hand, and the keys of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.argument import check_text, check_whole_number
from relaymesh.door.base import Door
from relaymesh.errors import RootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from relaymesh.core.setting_table import Settings
    from relaymesh.gossip.key import GossipKeys
    from relaymesh.gossip.run import GossipRun
    from relaymesh.gossip_view import GossipSyncOutcome, GossipTickOutcome

__all__ = ["Gossips"]


def _nobody(_sentence: str) -> None:
    return None


class Gossips(Door):
    """What a process that lives for a moment tells and hears of the mesh."""

    def gossip(
        self,
        node_id: str = "node-local",
        *,
        bind: str = "127.0.0.1",
        bind_port: int = 17_888,
        seeds: Sequence[str] = (),
        seeds_file: str | Path | None = None,
        window_ms: int = 300,
        fanout: int = -1,
        ttl: int = -1,
        say: Callable[[str], None] = _nobody,
    ) -> GossipTickOutcome:
        """Say to some seeds that a node is here, and listen for ``window_ms``; return what came of it.

        fanout, ttl: not positive for the settings. say: gets one sentence for each seed that cannot be used.

        Raises:
            SeedFileError, GossipBindError, GossipInsecureError, GossipRingError: nothing was sent.
        """
        with self._gossip_run(node_id, bind, bind_port, seeds, seeds_file, window_ms, fanout, ttl, say) as run:
            return run.tick()

    def gossip_ticks(
        self,
        node_id: str = "node-local",
        *,
        bind: str = "127.0.0.1",
        bind_port: int = 17_888,
        seeds: Sequence[str] = (),
        seeds_file: str | Path | None = None,
        window_ms: int = 300,
        fanout: int = -1,
        ttl: int = -1,
        pause: Callable[[], bool],
        over: Callable[[], bool],
        say: Callable[[str], None] = _nobody,
    ) -> Iterator[GossipTickOutcome]:
        """As ``gossip``, again and again. pause: called between two ticks, True to end; over: asked while listening."""
        with self._gossip_run(node_id, bind, bind_port, seeds, seeds_file, window_ms, fanout, ttl, say, over) as run:
            yield run.tick()
            while not pause():
                yield run.tick()

    def gossip_sync(
        self,
        node_id: str = "node-local",
        *,
        bind: str = "127.0.0.1",
        bind_port: int = 17_888,
        seeds: Sequence[str] = (),
        seeds_file: str | Path | None = None,
        window_ms: int = 1_200,
        rounds: int = 3,
        interval_ms: int = 250,
        fanout: int = -1,
        ttl: int = -1,
        say: Callable[[str], None] = _nobody,
    ) -> GossipSyncOutcome:
        """Do several ticks with a pause between them; return each, and their sums."""
        check_whole_number("rounds", rounds)
        check_whole_number("interval_ms", interval_ms)
        with self._gossip_run(node_id, bind, bind_port, seeds, seeds_file, window_ms, fanout, ttl, say) as run:
            return run.sync(rounds, interval_ms)

    @property
    def gossip_keys(self) -> GossipKeys:
        """The keys of the mesh: ``status``, ``install``, ``use``, ``remove``."""
        from relaymesh.gossip.key import GossipKeys

        return GossipKeys(self)

    def _gossip_run(
        self,
        node_id: str,
        bind: str,
        bind_port: int,
        seeds: Sequence[str],
        seeds_file: str | Path | None,
        window_ms: int,
        fanout: int,
        ttl: int,
        say: Callable[[str], None],
        over: Callable[[], bool] = lambda: False,
    ) -> GossipRun:
        from pathlib import Path

        from relaymesh.gossip.run import GossipRun, TickOptions

        check_text("node_id", node_id)
        check_text("bind", bind)
        whom = (seeds,) if isinstance(seeds, str) else tuple(seeds)
        for seed in whom:
            check_text("seeds", seed)
        options = TickOptions(
            node_id=node_id,
            bind=bind,
            bind_port=bind_port,
            seeds=whom,
            seeds_file=None if seeds_file is None else Path(seeds_file),
            window_ms=window_ms,
            fanout=fanout,
            ttl=ttl,
        )
        return GossipRun(
            self._writable(),
            options,
            settings=self._fresh_config,
            audit=self.audit,
            actor=self._actor,
            now_ms=self._now_ms,
            say=say,
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
