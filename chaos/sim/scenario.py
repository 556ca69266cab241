"""What goes wrong when: the scenario file, and scenarios drawn by chance. docs/simulator.md describes the file.

{"title": "…", "nodes": 5, "seconds": 90, "seed": 7, "start": "join", "codec": true,
 "link": {"lossPercent": 5}, "method": [{"at": 5000, "for": 20000, "fault": "partition", "nodes": [0, 1]}]}
"""

from __future__ import annotations

import random
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from chaos.sim.cluster import NODES_MAX
from chaos.sim.network import CHANCE, Link
from relaymesh.core.json_object import RepeatedMemberError, refuse_repeated
from relaymesh.errors import InputError

__all__ = [
    "FAULTS_MAX",
    "FILE_BYTES_MAX",
    "SECONDS_MAX",
    "STEPS_MAX",
    "BadScenarioError",
    "Fault",
    "LinkState",
    "Scenario",
    "Work",
    "drawn",
]

FILE_BYTES_MAX: Final = 1024 * 1024
FAULTS_MAX: Final = 1_000
SECONDS_MAX: Final = 26 * 86_400
STEPS_MAX: Final = 10_000
Kind = Literal["partition", "link", "crash", "leave", "pause", "slow", "clock", "store", "epoch"]


class BadScenarioError(InputError):
    """A scenario file that cannot be run."""

    code = "bad_scenario"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the scenario cannot be run: {self.reason}; docs/simulator.md describes the file"


class LinkState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """What a link does; percents are whole. floor_us and mean_us: shortest delay, and the mean of what comes on top."""

    loss_percent: int = 0
    floor_us: int = 100
    mean_us: int = 300
    duplicate_percent: int = 0
    reorder_percent: int = 0
    corrupt_percent: int = 0

    def __post_init__(self) -> None:
        percents = (self.loss_percent, self.duplicate_percent, self.reorder_percent, self.corrupt_percent)
        if any(not 0 <= percent <= 100 for percent in percents):
            raise ValueError("a percent is 0 to 100")
        if not 0 <= self.floor_us <= 10_000_000 or not 0 <= self.mean_us <= 10_000_000:
            raise ValueError("floorUs and meanUs are 0 to 10,000,000")

    def link(self) -> Link:
        one = CHANCE // 100
        return Link(
            self.loss_percent * one,
            self.floor_us,
            self.mean_us,
            self.duplicate_percent * one,
            self.reorder_percent * one,
            self.corrupt_percent * one,
        )


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """One fault. at, duration (in the file: for): ms of simulated time; without a duration it lasts to the end.

    nodes: numbers of those it hits. partition: they are cut off from to_nodes, by default from all others; one_way:
    only what they send is lost. link: the links from nodes to to_nodes (by default all) are as state says. crash and
    leave: they start again after the duration. slow: every wake-up is ms late. clock: jumps ms forward, or runs ppm
    fast. store: they reach the store of the steps no more; one_way: what they ask is done, but they do not hear of it.
    epoch: the cluster epoch is raised, which takes all steps from their owners.
    """

    at: int
    fault: Kind
    nodes: tuple[int, ...]
    duration: int = msgspec.field(default=0, name="for")
    to_nodes: tuple[int, ...] = ()
    one_way: bool = False
    state: LinkState = LinkState()
    ms: int = 0
    ppm: int = 0

    def __post_init__(self) -> None:
        if self.at < 0 or self.duration < 0 or self.ms < 0:
            raise ValueError("at, for and ms are not negative")
        if not self.nodes:
            raise ValueError("a fault names at least one node")
        if abs(self.ppm) > 200_000:
            raise ValueError("ppm is -200,000 to 200,000")

    @property
    def touched(self) -> tuple[int, ...]:
        """Return the nodes that it may bring into trouble."""
        return (*self.nodes, *self.to_nodes)


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Steps that the nodes run meanwhile. steps: how many are submitted, in the first ``for`` ms; lease_ms: how long
    a lease lasts.
    """

    steps: int = 0
    duration: int = msgspec.field(default=40_000, name="for")
    lease_ms: int = 15_000

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= STEPS_MAX:
            raise ValueError(f"steps is 0 to {STEPS_MAX:,}")
        if not 1_000 <= self.lease_ms <= 600_000 or not 0 < self.duration <= SECONDS_MAX * 1_000:
            raise ValueError("leaseMs is 1,000 to 600,000, for at least 1")


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    title: str = ""
    nodes: int = 5
    seconds: int = 60
    seed: int = 1
    start: Literal["join", "known"] = "join"
    codec: bool = False
    intruder_percent: int = 0
    link: LinkState = LinkState()
    link_until: int = 0
    work: Work = Work()
    method: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One run, fully determined. start: nodes know the seeds only (join), or each other (known). codec: every packet
    is encoded, authenticated and parsed, instead of handed over. intruder_percent: of so many packets a copy is sent
    again later, or sealed with another key; only with the codec. link_until: ms after which links lose nothing, 0 for
    never. work: steps that the nodes run meanwhile.
    """

    nodes: int = 5
    seconds: int = 60
    seed: int = 1
    title: str = ""
    start: Literal["join", "known"] = "join"
    codec: bool = False
    intruder_percent: int = 0
    link: LinkState = field(default_factory=LinkState)
    link_until: int = 0
    work: Work = field(default_factory=Work)
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= NODES_MAX:
            raise BadScenarioError(f"nodes is {self.nodes}: use 2 to {NODES_MAX:,}")
        if not 1 <= self.seconds <= SECONDS_MAX:
            raise BadScenarioError(f"seconds is {self.seconds}: use 1 to {SECONDS_MAX:,}")
        if self.link_until < 0:
            raise BadScenarioError("linkUntil is not negative")
        if not 0 <= self.intruder_percent <= 100 or (self.intruder_percent and not self.codec):
            raise BadScenarioError("intruderPercent is 0 to 100, and needs codec")
        if len(self.faults) > FAULTS_MAX:
            raise BadScenarioError(f"{len(self.faults)} faults: use {FAULTS_MAX:,} at most")
        for at, fault in enumerate(self.faults):
            if any(not 0 <= node < self.nodes for node in fault.touched):
                raise BadScenarioError(f"fault {at} names a node that is not 0 to {self.nodes - 1}")
            if fault.fault == "partition" and not fault.to_nodes and len(set(fault.nodes)) == self.nodes:
                raise BadScenarioError(f"fault {at} cuts all nodes off from nobody: name those of one side only")

    @classmethod
    def read(cls, path: Path, given: Mapping[str, Any]) -> Scenario:
        """Return the scenario of a file; what is given (nodes, seconds, seed) and not None wins over the file.

        Raises:
            BadScenarioError: the file is missing, too long, or says what cannot be; or a fault would never begin.
        """
        try:
            with path.open("rb") as file:
                text = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise BadScenarioError(f"{path} cannot be read ({error.strerror})") from error
        if len(text) > FILE_BYTES_MAX:
            raise BadScenarioError(f"{path} is longer than {FILE_BYTES_MAX:,} bytes")
        try:
            found = msgspec.json.decode(text.removeprefix(BOM_UTF8), type=_File)
            refuse_repeated(text)
        except (msgspec.MsgspecError, RecursionError, RepeatedMemberError) as error:
            raise BadScenarioError(str(error)) from error
        values = {name: value for name, value in given.items() if value is not None}
        scenario = cls(
            nodes=values.get("nodes", found.nodes),
            seconds=values.get("seconds", found.seconds),
            seed=values.get("seed", found.seed),
            title=found.title,
            start=found.start,
            codec=found.codec,
            intruder_percent=found.intruder_percent,
            link=found.link,
            link_until=found.link_until,
            work=found.work,
            faults=found.method,
        )
        for at, fault in enumerate(scenario.faults):
            if fault.at >= scenario.seconds * 1_000:
                raise BadScenarioError(
                    f"fault {at} begins at {fault.at:,} ms, and all is over after {scenario.seconds:,} s: give more"
                    " seconds, or leave it out"
                )
        return scenario


def drawn(seed: int, rng: random.Random, *, nodes: int = 5, codec: bool = False) -> Scenario:
    """Return a scenario of random faults in the first minute while steps run, and a minute and a half to recover.

    Which kinds are on and how strong is drawn per seed, so that some runs see one kind only and others everything.
    """
    draw = rng.random

    def number(least: int, most: int) -> int:
        return least + int(draw() * (most - least + 1))

    def some(most: int) -> tuple[int, ...]:
        left = list(range(nodes))
        return tuple(sorted(left.pop(int(draw() * len(left))) for _ in range(number(1, most))))

    kinds: Sequence[Kind] = ("partition", "link", "crash", "leave", "pause", "slow", "clock", "store", "epoch")
    on = [kind for kind in kinds if draw() < 0.5] or ["crash"]
    faults = []
    for _ in range(number(1, 8)):
        kind = on[int(draw() * len(on))]
        at = number(5_000, 50_000)
        duration = number(500, 60_000 - at)
        state = LinkState()
        if kind == "link":
            state = LinkState(
                loss_percent=number(0, 60),
                mean_us=number(300, 50_000),
                duplicate_percent=number(0, 50),
                reorder_percent=number(0, 30),
                corrupt_percent=number(0, 20),
            )
        faults.append(
            Fault(
                at=at,
                fault=kind,
                nodes=some(nodes // 2),
                duration=duration,
                one_way=kind in ("partition", "store") and draw() < 0.3,
                state=state,
                ms=number(50, 3_000) if kind in ("slow", "clock") else 0,
                ppm=number(-50_000, 50_000) if kind == "clock" else 0,
            )
        )
    link = LinkState(loss_percent=number(0, 10) if draw() < 0.5 else 0)
    return Scenario(
        nodes=nodes,
        seconds=150,
        seed=seed,
        codec=codec,
        intruder_percent=2 if codec else 0,
        link=link,
        # A suspicion of the last moment would still be open when the views are compared.
        link_until=110_000,
        work=Work(steps=number(5, 25), lease_ms=number(3_000, 15_000)),
        faults=tuple(faults),
    )
