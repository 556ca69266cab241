"""A scenario on real processes: nodes, faults in their time, the history, the checks, and the figures.

One thread does everything in turns of 50 ms: what is due of the scenario, and a look at the roots. Whatever happens,
the nodes are ended, by their process ids, before ``run`` returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from chaos.checker import Bounds, Broken, check
from chaos.history import Event
from chaos.procs.figure import gone_log, refused_by
from chaos.procs.process import RealNode
from chaos.procs.record import Record, Root
from chaos.proxy import CLEAR, Proxy
from chaos.sim.scenario import BadScenarioError, Fault, Scenario
from relaymesh.client import Client

__all__ = ["NODES_MAX", "SECONDS_MAX", "SETTLE_MS_MAX", "Result", "check_plan", "run"]

NODES_MAX: Final = 16
SECONDS_MAX: Final = 3_600
START_MS_MAX: Final = 60_000
"""By then all nodes have to be up."""
SETTLE_MS_MAX: Final = 60_000
"""So long after the end of the scenario views may differ and steps be open; then that is a broken invariant."""
_TURN_S: Final = 0.05
_SUSPECT_DWELL_MS: Final = 500
_DEAD_DWELL_MS: Final = 2_000
# A node of three is held dead within some 6 s of its end, and 20 s on a machine that is very busy.
_BOUNDS: Final = Bounds(_SUSPECT_DWELL_MS, _DEAD_DWELL_MS, down_ms=20_000, live_ms=SETTLE_MS_MAX)
_LEFT_OUT: Final = {
    "slow": "processes are not slowed down",
    "clock": "monotonic clocks of processes are not moved",
    "store": "nodes and their store are not parted",
}
_AGENT: Final = '''
import time
from relaymesh import Context, agent

@agent
def chaos_step(request: dict, ctx: Context) -> dict:
    """Take a while, and say under which right the work was done."""
    time.sleep(request["ms"] / 1000)
    return {"fence": ctx.fencing_token}
'''


class Result(NamedTuple):
    """broken: violations. figures: for people, by camelCase name."""

    broken: tuple[Broken, ...]
    figures: dict[str, Any]
    history: tuple[Event, ...]


def run(scenario: Scenario, folder: Path, *, one_root: bool = False) -> Result:
    """Run a scenario in a folder, which is empty and stays. one_root: all nodes work on one root, else each on its own.

    Raises:
        BadScenarioError: more nodes or seconds than real processes are good for, steps that could never end, or nodes
            that did not start.
    """
    check_plan(scenario, one_root=one_root)
    with contextlib.ExitStack() as stack:
        return _Run(scenario, folder, one_root, stack).run()


def check_plan(scenario: Scenario, *, one_root: bool) -> None:
    """Raise BadScenarioError for what no run could be of."""
    if scenario.nodes > NODES_MAX or scenario.seconds > SECONDS_MAX:
        raise BadScenarioError(
            f"{scenario.nodes:,} nodes for {scenario.seconds:,} seconds: real processes are for at most"
            f" {NODES_MAX} nodes and {SECONDS_MAX:,} seconds"
        )
    stays_away = any(fault.fault in ("crash", "leave") and not fault.duration for fault in scenario.faults)
    if stays_away and scenario.work.steps and not one_root:
        raise BadScenarioError(
            "a node with a root of its own that does not come back takes its steps with it:"
            " give the fault a `for`, or let all nodes work on one root"
        )


class _Run:
    def __init__(self, scenario: Scenario, folder: Path, one_root: bool, stack: contextlib.ExitStack) -> None:
        self.scenario = scenario
        self.record = Record(scenario.work.lease_ms)
        self.record.note("", "bounds", _BOUNDS._asdict())
        self.left_out = [f"{fault.fault} at {fault.at}: {_LEFT_OUT[fault.fault]}" for fault in _unfit(scenario)]
        names = [f"node-{number:04}" for number in range(scenario.nodes)]  # as in the simulator
        ports = _free_ports(scenario.nodes)
        self.base = scenario.link.link()
        self.proxy = stack.enter_context(Proxy(ports, seed=scenario.seed, base=self.base))
        agents = folder / "chaos_agents.py"
        agents.write_text(_AGENT, encoding="utf-8")
        groups = [names] if one_root else [[name] for name in names]
        settings = _settings(scenario)
        self.roots: list[Root] = []
        self.clients: list[Client] = []
        self.nodes: list[RealNode] = []
        for at, group in enumerate(groups):
            path = folder / ("root" if one_root else group[0])
            _make_root(path, settings)
            self.clients.append(stack.enter_context(Client(path, agents=[str(agents)])))
            self.clients[-1].init()
            self.roots.append(Root(f"store-{at}" if at else "store", path, self.record, group))
            stack.callback(self.roots[-1].close)
        self.root_of = {node: root for root in self.roots for node in root.nodes}
        for number, name in enumerate(names):
            seeds = [face for other, face in enumerate(self.proxy.faces[:4]) if other != number][:3]
            root = folder / ("root" if one_root else name)
            node = RealNode(
                name,
                root,
                folder / f"{name}.log",
                port=ports[number],
                face=self.proxy.faces[number],
                seeds=seeds,
                agents=agents,
            )
            stack.callback(node.close)
            self.nodes.append(node)
        stack.callback(self._leave)  # all at once, before they are waited for in turn
        self.up: dict[str, int] = {}  # nodes that have registered, and the process that did
        self.down: set[str] = set()  # nodes that the scenario has ended
        self.began_ms = 0
        self.complete_ms = -1

    def run(self) -> Result:
        for node in self.nodes:
            node.start()
        self._turns_until(lambda: self.complete, START_MS_MAX)
        self.complete_ms = self.record.now_ms() if self.complete else -1
        if len(self.up) < len(self.nodes):
            down = [node.node_id for node in self.nodes if node.node_id not in self.up]
            hint = "run it with --keep DIR and read the logs there"
            raise BadScenarioError(f"{', '.join(down)} did not start within {START_MS_MAX // 1_000} s; {hint}")
        self.began_ms = self.record.now_ms()
        plan = sorted(self._plan(), key=lambda due: due[0])
        end_ms = self.began_ms + self.scenario.seconds * 1_000
        while (now_ms := self.record.now_ms()) < end_ms:
            while plan and self.began_ms + plan[0][0] <= now_ms:
                plan.pop(0)[1]()
            self._turn()
        for _, act in plan:
            act()  # what was to end later ends now
        settled = self.record.now_ms()
        self._turns_until(lambda: self.complete and not any(root.open_steps() for root in self.roots), SETTLE_MS_MAX)
        settle_ms = self.record.now_ms() - settled
        self.record.note("store", "final", {"steps": [step for root in self.roots for step in root.steps()]})
        self.record.note("", "end", {"nodes": sorted(self._wanted)})
        history = tuple(self.record.events)
        broken = tuple(check(history, _BOUNDS))
        return Result(broken, self._figures(history, settle_ms), history)

    def _leave(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(psutil.Error):
                node.leave()

    @property
    def _wanted(self) -> set[str]:
        """The nodes that should run; one that has ended by itself is missed in the end."""
        return {node.node_id for node in self.nodes} - self.down

    @property
    def complete(self) -> bool:
        """Whether all that should run are up, and each holds each other ALIVE."""
        names = self._wanted
        return names == set(self.up) and all(self.root_of[node].alive(node) >= names - {node} for node in names)

    def _turns_until(self, done: Callable[[], bool], most_ms: int) -> None:
        until = self.record.now_ms() + most_ms
        while not done() and self.record.now_ms() < until:
            self._turn()

    def _turn(self) -> None:
        for node in self.nodes:
            name, pid = node.node_id, node.pid
            if self.up.get(name, pid) != pid:
                self._gone(name, "crash")  # it ended by itself
            if pid and name not in self.up and name not in self.down:
                generation = self.root_of[name].generation(name, pid)
                if generation is not None:
                    self.up[name] = pid
                    self.root_of[name].forget(name)
                    self.record.note(name, "start", {"generation": generation})
        for root in self.roots:
            root.look(list(self.up))
        time.sleep(_TURN_S)

    def _gone(self, name: str, how: str) -> None:
        if self.up.pop(name, None) is not None:
            self.record.note(name, how, {})

    def _plan(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield what is to be done: ms after the start, and how. What has an end yields that as well."""
        scenario = self.scenario
        for number, fault in enumerate(scenario.faults):
            if fault in _unfit(scenario):
                continue
            yield fault.at, partial(self._begin, number, fault)
            # As in the simulator, who ends without an end of that stays away; all else is over in the end.
            if fault.fault != "epoch" and (fault.duration or fault.fault not in ("crash", "leave")):
                end = fault.at + fault.duration if fault.duration else scenario.seconds * 1_000
                yield end, partial(self._end, number, fault)
        if scenario.link_until:
            yield scenario.link_until, partial(self.proxy.set_base, CLEAR)
        for number in range(scenario.work.steps):
            yield number * scenario.work.duration // scenario.work.steps, partial(self._submit, number)

    def _begin(self, number: int, fault: Fault) -> None:
        touched = fault.touched
        if fault.fault in ("partition", "link") and not fault.to_nodes:
            touched = tuple(range(len(self.nodes)))
        self.record.note("", "fault", {"nodes": [self.nodes[at].node_id for at in touched], "fault": fault.fault})
        others = fault.to_nodes or tuple(at for at in range(len(self.nodes)) if at not in fault.nodes)
        if fault.fault == "partition":
            self.proxy.cut(f"{number}", fault.nodes, others, one_way=fault.one_way)
        elif fault.fault == "link":
            self.proxy.rule(f"{number}", fault.state.link(), fault.nodes, fault.to_nodes or None)
        elif fault.fault == "epoch":
            for client in self.clients:
                client.cluster_epoch_bump(reason="scenario", actor="chaos")
        else:
            for at in fault.nodes:
                node = self.nodes[at]
                if fault.fault == "pause":
                    node.pause()
                    continue
                self.down.add(node.node_id)
                node.kill() if fault.fault == "crash" else node.leave()
                self._gone(node.node_id, fault.fault)

    def _end(self, number: int, fault: Fault) -> None:
        self.proxy.lift(f"{number}")
        for at in fault.nodes:
            if fault.fault == "pause":
                self.nodes[at].resume()
            elif fault.fault in ("crash", "leave"):
                self.down.discard(self.nodes[at].node_id)
                self.nodes[at].kill()  # one that has not ended in order by now
                self.nodes[at].start()
        self.record.note("", "heal", {"nodes": [self.nodes[at].node_id for at in fault.touched]})

    def _submit(self, number: int) -> None:
        at = number % len(self.clients)
        # Long enough that faults meet steps that run.
        ms = self.scenario.work.lease_ms * (1 + number % 3) // 4
        task = self.clients[at].submit("chaos_step", {"ms": ms}, idempotency_key=f"chaos-{number}")
        root = self.roots[at]
        self.record.note(root.name, "submit", {"step": root.step_of(task.task_id)})

    def _figures(self, history: tuple[Event, ...], settle_ms: int) -> dict[str, Any]:
        names = {"submit": "steps", "claim": "claims", "commit": "commits", "reject": "refusedResults"}
        counted = Counter(names.get(event.f, "") for event in history)
        touched = {node for event in history if event.f == "fault" for node in event.value["nodes"]}
        said = [event for event in history if event.f == "member"]
        dead = [event for event in said if event.value["shown"] == "DEAD"]
        refused: Counter[str] = Counter()
        for node in self.nodes:
            refused += refused_by(node)
        return {
            "title": self.scenario.title,
            "nodes": len(self.nodes),
            "roots": len(self.roots),
            "seed": self.scenario.seed,
            "viewsCompleteMs": self.complete_ms,
            "settledMs": settle_ms,
            "suspicions": sum(event.value["shown"] == "SUSPECT" for event in said),
            "dead": len(dead),
            "falseDead": sum(event.value["about"] not in touched for event in dead),
            "gone": gone_log(history),
            "leftOut": self.left_out,
            "links": dict(sorted(self.proxy.total().items())),
            "refusedPackets": dict(sorted(refused.items())),
            "events": len(history),
            **{name: counted[name] for name in names.values() if self.scenario.work.steps},
        }


def _unfit(scenario: Scenario) -> list[Fault]:
    return [fault for fault in scenario.faults if fault.fault in _LEFT_OUT]


def _settings(scenario: Scenario) -> dict[str, object]:
    """Return settings with waits short enough to be seen, and a secret that nobody else has."""
    return {
        "gossipSharedSecret": secrets.token_hex(32),
        "suspectRecoverMinMs": _SUSPECT_DWELL_MS,
        "deadRecoverMinMs": _DEAD_DWELL_MS,
        "leaseTimeoutMs": scenario.work.lease_ms,
        "baseBackoffMs": 100,
    }


def _make_root(path: Path, settings: dict[str, object]) -> None:
    path.mkdir(parents=True)
    file = os.open(path / "relaymesh-settings.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "w", encoding="utf-8") as text:
        json.dump(settings, text)


def _free_ports(count: int) -> list[int]:
    """Return UDP ports that are free now; who takes one in the meantime makes its node a stranger to the proxy."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
