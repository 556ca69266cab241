"""What must hold in a history of steps: who owns them, whose result counts, that each comes to its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from chaos.finding import Bounds, Check, Finding
from chaos.history import Event
from chaos.linear import NEVER, Operation, linearizable

__all__ = ["OWNERSHIP"]


def _epoch(event: Event) -> tuple[int, int]:
    return (event.value["ce"], event.value["le"])


def _nothing_lost(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    """What was submitted stands in every final read."""
    submitted: dict[str, int] = {}
    found: list[Finding] = []
    for at, event in enumerate(events):
        if event.f == "submit":
            submitted[event.value["step"]] = at
        elif event.f == "final":
            read = set(event.value["steps"])
            found += [
                (at, f"{step} was submitted, and {event.node} does not have it")
                for step in submitted
                if step not in read
            ]
    return found


def _one_outcome(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    outcomes: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    for at, event in enumerate(events):
        if event.f == "commit":
            key = (event.value["step"], *_epoch(event))
            outcome = (event.value["owner"], event.value["outcome"])
            if outcomes.setdefault(key, outcome) != outcome:
                found.append((at, f"step {key[0]} has two outcomes at epoch {key[1:]}: {outcomes[key]}, {outcome}"))
    return found


def _monotone(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    steps: dict[tuple[str, str], tuple[int, int]] = {}
    generations: dict[str, int] = {}
    epochs: dict[str, int] = {}
    for at, event in enumerate(events):
        if event.f in ("claim", "commit"):
            key = (event.node, event.value["step"])
            if _epoch(event) < steps.get(key, (-1, -1)):
                found.append((at, f"epoch of {key[1]} at {event.node} fell from {steps[key]} to {_epoch(event)}"))
            steps[key] = max(_epoch(event), steps.get(key, (-1, -1)))
        elif event.f == "start":
            generation = event.value["generation"]
            if generation <= generations.get(event.node, -1):
                found.append((at, f"{event.node} started again with generation {generation}"))
            generations[event.node] = generation
        elif event.f == "epoch":
            if event.value["ce"] < epochs.get(event.node, -1):
                found.append((at, f"cluster epoch at {event.node} fell to {event.value['ce']}"))
            epochs[event.node] = event.value["ce"]
    return found


def _fenced(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    found: list[Finding] = []
    known: dict[tuple[str, str], tuple[int, int]] = {}
    for at, event in enumerate(events):
        if event.f not in ("claim", "commit", "heartbeat"):
            continue
        key = (event.node, event.value["step"])
        newest = known.get(key, (-1, -1))
        if event.f != "claim" and _epoch(event) < newest:
            found.append((at, f"{event.node} accepted a {event.f} of {key[1]} at {_epoch(event)} after {newest}"))
        if event.f == "claim":
            known[key] = max(newest, _epoch(event))
    return found


def _exclusive(events: Sequence[Event], bounds: Bounds) -> list[Finding]:
    if not bounds.exclusive:
        return []
    found: list[Finding] = []
    held: dict[str, tuple[Any, tuple[int, int], int]] = {}
    for at, event in enumerate(events):
        if event.f in ("crash", "leave"):
            # A process that has ended believes nothing any more.
            for step in [step for step, holder in held.items() if holder[0].partition("/")[0] == event.node]:
                del held[step]
        if event.f not in ("claim", "heartbeat", "release", "commit", "abandon"):
            continue
        step, owner = event.value["step"], event.value["owner"]
        holder = held.get(step)
        if event.f == "claim":
            if holder is not None and holder[2] > event.t and holder[0] != owner:
                found.append((at, f"{owner} claimed {step} while {holder[0]} held it until {holder[2]}"))
            held[step] = (owner, _epoch(event), event.value["until"])
        elif holder is not None and holder[:2] == (owner, _epoch(event)):
            if event.f == "heartbeat":
                held[step] = (owner, holder[1], event.value["until"])
            else:
                del held[step]
    return found


def _live(events: Sequence[Event], bounds: Bounds) -> list[Finding]:
    """A while after the last fault, every step that was submitted before has come to its end."""
    if not events or events[-1].f != "end" or not events[-1].value["nodes"]:
        return []
    calm_since = max((event.t for event in events if event.f in ("fault", "heal", "start", "epoch")), default=0)
    open_since: dict[str, int] = {}
    for event in events:
        if event.f == "submit":
            open_since[event.value["step"]] = event.t
        elif event.f == "commit":
            open_since.pop(event.value["step"], None)
    now = events[-1].t
    return [
        (len(events) - 1, f"{step} has not come to its end {now - max(since, calm_since)} ms after the last fault")
        for step, since in open_since.items()
        if now - max(since, calm_since) >= bounds.live_ms
    ]


class _Register(NamedTuple):
    """A step as a register. updated: -1 when a renewal was not heard of. ce: of the lease; now: of the cluster."""

    running: bool = False
    done: bool = False
    token: str = ""
    node: str = ""
    generation: int = 0
    le: int = 0
    ce: int = 0
    updated: int = 0
    now: int = 1


def _apply(state: _Register, call: tuple[dict[str, Any], dict[str, Any] | None]) -> list[_Register]:
    """Return what a call with this answer makes of a step; None: it was not answered, but done."""
    asked, answer = call
    do = asked["do"]
    if do == "bump":
        return [state._replace(now=asked["ce"])]
    ok = True if answer is None else bool(answer["ok"])
    if do == "fence":
        mine = state.running and state.node == asked["node"] and state.generation < asked["generation"]
        if answer is not None and mine != (asked["step"] in answer["steps"]):
            return []
        return [state._replace(running=False)] if mine else [state]
    if do == "claim":
        may = not state.running and not state.done
        if not ok:
            return [] if may else [state]
        node, _, rest = asked["token"].partition("/")
        le = state.le + 1
        if not may or (answer is not None and answer["le"] != le):
            return []
        ce, updated = (state.now, -1) if answer is None else (answer["ce"], answer["updated"])
        if ce != state.now:
            return []
        generation = int(rest.partition("/")[0])
        return [_Register(True, False, asked["token"], node, generation, le, ce, updated, state.now)]
    if do == "expire":
        same = state.running and state.token == asked["token"] and state.le == asked["le"]
        if same and state.updated == -1:
            return [state._replace(running=False)] if ok else [state]
        may = same and state.updated == asked["updated"]
    else:
        may = state.running and state.token == asked["token"] and state.le == asked["le"]
        may = may and state.ce == asked["ce"] == state.now
    if ok != may:
        return []
    if not ok:
        return [state]
    if do == "renew":
        return [state._replace(updated=-1 if answer is None else answer["updated"])]
    return [state._replace(running=False, done=do == "commit")]


def _explained(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    """There is an order of instants that explains all that nodes heard of each step."""
    asked: dict[int, tuple[int, Event]] = {}
    answers: dict[int, tuple[int, dict[str, Any]]] = {}
    everywhere: list[Operation] = []
    for at, event in enumerate(events):
        if event.f == "ask":
            asked[event.value["id"]] = (at, event)
        elif event.f == "answer":
            answers[event.value["id"]] = (at, event.value)
        elif event.f == "epoch":
            everywhere.append(Operation(at, at, ({"do": "bump", "ce": event.value["ce"]}, {"ok": True})))
    by_step: dict[str, list[Operation]] = defaultdict(list)
    fences: list[tuple[int, int, dict[str, Any], dict[str, Any] | None]] = []
    for number, (at, event) in asked.items():
        answered, answer = answers.get(number, (NEVER, None))
        if event.value["do"] == "fence":
            fences.append((at, answered, event.value, answer))
        else:
            by_step[event.value["step"]].append(Operation(at, answered, (event.value, answer)))
    found: list[Finding] = []
    for step, operations in by_step.items():
        for at, answered, value, answer in fences:
            operations.append(Operation(at, answered, ({**value, "step": step}, answer)))
        if linearizable([*operations, *everywhere], _Register(), _apply) is False:
            last = max(one.asked for one in operations)
            found.append((last, f"no order of events explains what nodes heard of {step}"))
    return found


def _visible(events: Sequence[Event], _bounds: Bounds) -> list[Finding]:
    """A result is taken or refused, or its owner says that it does not know."""
    found: list[Finding] = []
    runs: dict[str, dict[tuple[Any, ...], int]] = defaultdict(dict)
    for at, event in enumerate(events):
        if event.f == "result":
            runs[event.value["step"]][(event.value["owner"], *_epoch(event))] = at
        elif event.f in ("commit", "reject", "release", "unknown"):
            runs[event.value["step"]].pop((event.value["owner"], *_epoch(event)), None)
    for step, open_runs in runs.items():
        for run, at in open_runs.items():
            found.append((at, f"the result of {step} by {run[0]} at {run[1:]} was neither taken nor refused"))
    return found


OWNERSHIP: Final[dict[str, Check]] = {
    "I1": _nothing_lost,
    "I2": _one_outcome,
    "I3": _monotone,
    "I4": _fenced,
    "I5": _exclusive,
    "I12": _live,
    "I14": _explained,
    "I15": _visible,
}
