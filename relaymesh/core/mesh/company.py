"""Why a node finds nobody, or is not taken for one of those who call it: in sentences for health and the log.

Nothing is decided by it. What is told: that nobody answers at the addresses that were given, or that these cannot be
reached from the own one, and that somebody calls whose packets are of another mesh.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["ALONE_NS", "STRANGER_NS", "Company"]

ALONE_NS: Final = 10_000_000_000
"""So long nobody answers before it is told: ten rounds of asking."""
STRANGER_NS: Final = 60_000_000_000
"""So long after the last packet of a stranger it is told."""
_SHOWN_MAX: Final = 3


@dataclass(slots=True)
class Company:
    """What one start of a node has noticed. own: its address, at which it does not expect anybody else."""

    own: str
    since_ns: int
    stranger: str = ""
    stranger_ns: int = 0
    strangers: bool = False

    def called(self, now_ns: int, source: str) -> None:
        """A packet came that is sealed for another mesh; the first who calls is named until all are silent."""
        if not self.stranger or now_ns - self.stranger_ns >= STRANGER_NS:
            self.stranger, self.strangers = source, False
        self.strangers = self.strangers or source != self.stranger
        self.stranger_ns = now_ns

    def alone(self, now_ns: int) -> bool:
        """Return whether there has been nobody for so long that it is told."""
        return now_ns - self.since_ns >= ALONE_NS

    def notices(
        self, now_ns: int, *, live: int, asked: Sequence[str], seeded: bool, unreached: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Return what should be known now, the same words as long as it stays so.

        live: other members that are there. asked: addresses at which somebody may be. seeded: peers were configured.
        unreached: those of ``asked`` to which nothing can be sent from where this node is bound.
        """
        if live:
            self.since_ns = now_ns
        found = []
        others = [address for address in asked if address != self.own and address not in unreached]
        if seeded and self.alone(now_ns):
            if others:
                found.append(
                    f"nobody answers at {_listed(others)}: a node has to run there, its UDP port"
                    " has to be open in both directions, and both need the same gossipSharedSecret"
                )
            if unreached:
                found.append(
                    f"nothing can be sent to {_listed([*unreached])} from the address that this node is bound to:"
                    " start it with a --gossip-bind from which that can be reached"
                )
            elif not asked:
                found.append("no seed has an address yet: check the host names of the seeds, or the file of seeds")
        if self.stranger and now_ns - self.stranger_ns < STRANGER_NS:
            who = f"{self.stranger} and others call" if self.strangers else f"{self.stranger} calls"
            found.append(
                f"{who} with another secret, or for a mesh of another name, and nobody listens: nodes of several roots"
                " need the same gossipSharedSecret, and the same namespace or meshLabel"
            )
        return tuple(found)


def _listed(addresses: Sequence[str]) -> str:
    more = f" and {len(addresses) - _SHOWN_MAX} more" if len(addresses) > _SHOWN_MAX else ""
    return ", ".join(addresses[:_SHOWN_MAX]) + more
