#!/usr/bin/env python3
"""Measure RelayMesh on this machine. Each command prints one JSON object: the figures, what they were taken at, and the
budget that they are held against. docs/performance.md says what each of them does.

    scripts/bench.py throughput                       echo tasks, submit to committed result, against a raw SQLite loop
    scripts/bench.py throughput --agent process-echo  the same for a Python agent in worker processes
    scripts/bench.py latency                          submit to result on an idle node, from another process
    scripts/bench.py backlog                          cost of a claim with a million finished and delayed tasks
    scripts/bench.py limits                           throughput with limits and rates against the same without
    scripts/bench.py features                         throughput with audit, metrics, retention, limits against bare
    scripts/bench.py encryption                       throughput with payloadEncryption against the same without
    scripts/bench.py blocked                          a claim while 100,000 steps wait behind 1,000 used up keys
    scripts/bench.py history                          ten million finished tasks: claims, looks, and their removal
    scripts/bench.py crowd                            looks at a million open and a million dead-lettered tasks
    scripts/bench.py dag                              a fan-out and a join
    scripts/bench.py inbox                            files dropped at once, from a lane to a stored task
    scripts/bench.py takeover                         a killed owner's step runs again, on real processes
    scripts/bench.py idle                             CPU and memory of a node that has nothing to do
    scripts/bench.py cli                              cold start of the command line
    scripts/bench.py audit                            a row of the audit log; query and check of ten million
    scripts/bench.py peers                            Huey on SQLite, side by side (extra [bench])
    scripts/bench.py profile                          where the time of a task goes; not a benchmark
    scripts/bench.py all                              everything, smaller, one object a line

Needs the packages of setup.cfg, not an installation. A figure from a busy machine says little: look at load_average_1m.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What lies beside us wins over what may be installed.
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

Result = dict[str, Any]
Measure = Callable[[Path, argparse.Namespace], Iterator[Result]]


def throughput(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import throughput

    load = throughput.Load(
        tasks=options.tasks or (300 if options.quick else 20_000),
        agent=options.agent,
        from_outside=options.from_outside,
        in_flight=options.in_flight,
        concurrency=options.concurrency,
        durability=options.durability,
    )
    yield throughput.run(folder, load=load, rounds=options.rounds or (1 if options.quick else 5))


def latency(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import latency

    count = options.count or (10 if options.quick else 500)
    yield latency.run(folder, count=count, durability=options.durability)


def backlog(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import backlog

    rows = 2_000 if options.quick else 1_000_000
    yield backlog.run(
        folder,
        finished=rows if options.finished is None else options.finished,
        delayed=rows if options.delayed is None else options.delayed,
        turns=options.turns or (10 if options.quick else 300),
        durability=options.durability,
    )


def limits(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import limits

    yield limits.run(
        folder,
        tasks=options.tasks or (300 if options.quick else 20_000),
        rounds=options.rounds or (1 if options.quick else 5),
        durability=options.durability,
    )


def features(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import features

    yield features.run(
        folder,
        tasks=options.tasks or (300 if options.quick else 20_000),
        rounds=options.rounds or (1 if options.quick else 5),
        durability=options.durability,
    )


def encryption(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import encryption
    from bench.throughput import Load

    load = Load(
        tasks=options.tasks or (300 if options.quick else 20_000), agent=options.agent, durability=options.durability
    )
    yield encryption.run(folder, load=load, rounds=options.rounds or (1 if options.quick else 5))


def blocked(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import blocked

    yield blocked.run(
        folder,
        behind=options.behind or (6 if options.quick else 100),
        turns=options.turns or (5 if options.quick else 300),
        durability=options.durability,
    )


def history(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import history

    yield history.run(
        folder,
        finished=options.finished or (2_000 if options.quick else 10_000_000),
        turns=options.turns or (10 if options.quick else 300),
        looks=options.looks or (3 if options.quick else 30),
        purged=options.purged or (500 if options.quick else 1_000_000),
        durability=options.durability,
    )


def crowd(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import crowd

    many = 300 if options.quick else 1_000_000
    yield crowd.run(folder, dead=options.dead or many, waiting=options.waiting or many, durability=options.durability)


def dag(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import dag

    yield dag.run(
        folder,
        width=options.width or (30 if options.quick else 1_000),
        rounds=options.rounds or (1 if options.quick else 5),
        durability=options.durability,
    )


def inbox(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import inbox

    yield inbox.run(
        folder,
        files=options.files or (30 if options.quick else 10_000),
        singles=options.singles or (3 if options.quick else 100),
        rounds=options.rounds or (1 if options.quick else 3),
        durability=options.durability,
    )


def takeover(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import takeover

    kills = options.kills if options.kills is not None else (1 if options.quick else 50)
    stops = options.stops if options.stops is not None else (1 if options.quick else 10)
    yield takeover.run(folder, kills=kills, stops=stops, durability=options.durability)


def idle(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import idle

    yield idle.run(
        folder,
        seconds=options.seconds or (0.3 if options.quick else 20.0),
        tasks=2 if options.quick else 20,
        settle_s=0.1 if options.quick else idle.SETTLE_S,
        durability=options.durability,
    )


def cli(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import command

    yield command.run(folder, times=options.times or (1 if options.quick else 30))


def audit(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import audit

    yield audit.run(
        folder,
        rows=options.rows or (3_000 if options.quick else 10_000_000),
        rounds=options.rounds or (3 if options.quick else 20),
        durability=options.durability,
    )


def peers(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import peer

    yield peer.run(
        folder,
        tasks=options.tasks or (200 if options.quick else 10_000),
        peer_tasks=options.peer_tasks or (20 if options.quick else 1_000),
        trial_tasks=5 if options.quick else 150,
        our_trial_tasks=100 if options.quick else 3_000,
        trial_passes=1 if options.quick else 3,
        workers_max=1 if options.quick else 8,
        rounds=options.rounds or (1 if options.quick else 5),
    )


def profile(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    from bench import profile

    tasks = options.tasks or (500 if options.quick else 20_000)
    yield profile.run(folder, tasks=tasks, agent=options.agent, durability=options.durability)


def everything(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    """Every command with smaller sizes: about three minutes."""
    from bench.agent import ECHO, PROCESS_ECHO

    smaller: list[tuple[Measure, dict[str, Any]]] = [
        *(
            (throughput, {"tasks": 10_000, "rounds": 3, "agent": agent, "from_outside": from_outside})
            for agent in (ECHO, PROCESS_ECHO)
            for from_outside in (False, True)
        ),
        (latency, {"count": 200}),
        (backlog, {"finished": 100_000, "delayed": 100_000, "turns": 100}),
        (limits, {"tasks": 10_000, "rounds": 3}),
        (features, {"tasks": 10_000, "rounds": 3}),
        (encryption, {"tasks": 10_000, "rounds": 3}),
        (blocked, {"behind": 20, "turns": 100}),
        (history, {"finished": 100_000, "turns": 100, "looks": 10, "purged": 10_000}),
        (crowd, {"dead": 50_000, "waiting": 50_000}),
        (dag, {"rounds": 3}),
        (inbox, {"rounds": 1, "singles": 20}),
        (idle, {"seconds": 5.0}),
        (cli, {"times": 10}),
        (audit, {"rows": 300_000, "rounds": 10}),
        (peers, {"tasks": 5_000, "peer_tasks": 300, "rounds": 3}),
    ]
    for measure, sizes in smaller:
        kept = {} if options.quick else sizes
        chosen = {name: value for name, value in sizes.items() if name in ("agent", "from_outside")}
        defaults = vars(_parser().parse_args([measure.__name__]))
        yield from measure(folder, argparse.Namespace(**{**defaults, **vars(options), **chosen, **kept}))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="sizes that only show that it works")
    common.add_argument(
        "--root", type=Path, metavar="DIR", help="folder for the data, on the disk to measure  [default: ./tmp]"
    )
    common.add_argument("--durability", choices=("full", "fast"), default="full", help="[default: full]")
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, measure: Measure) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common])
        added.set_defaults(measure=measure)
        return added

    rounds = {"type": int, "help": "[default: 5]"}
    one = command("throughput", throughput)
    one.add_argument("--tasks", type=int, help="tasks a round  [default: 20000]")
    one.add_argument("--agent", choices=("echo", "process-echo"), default="echo", help="[default: echo]")
    one.add_argument("--from-outside", action="store_true", help="submitted by another process, through Client")
    one.add_argument("--in-flight", type=int, default=3, help="batches of 500 without an answer  [default: 3]")
    one.add_argument("--concurrency", type=int, help="worker processes  [default: the node's]")
    one.add_argument("--rounds", **rounds)
    one = command("latency", latency)
    one.add_argument("--count", type=int, help="tasks of each agent  [default: 500]")
    one = command("backlog", backlog)
    one.add_argument("--finished", type=int, help="[default: 1000000]")
    one.add_argument("--delayed", type=int, help="[default: 1000000]")
    one.add_argument("--turns", type=int, help="claims of each store  [default: 300]")
    one = command("limits", limits)
    one.add_argument("--tasks", type=int, help="tasks a round  [default: 20000]")
    one.add_argument("--rounds", **rounds)
    one = command("features", features)
    one.add_argument("--tasks", type=int, help="tasks a round  [default: 20000]")
    one.add_argument("--rounds", **rounds)
    one = command("encryption", encryption)
    one.add_argument("--tasks", type=int, help="tasks a round  [default: 20000]")
    one.add_argument("--agent", choices=("echo", "process-echo"), default="echo", help="[default: echo]")
    one.add_argument("--rounds", **rounds)
    one = command("blocked", blocked)
    one.add_argument("--behind", type=int, help="steps of each of 1,000 keys  [default: 100]")
    one.add_argument("--turns", type=int, help="claims of each store  [default: 300]")
    one = command("history", history)
    one.add_argument("--finished", type=int, help="[default: 10000000]")
    one.add_argument("--turns", type=int, help="claims of each store  [default: 300]")
    one.add_argument("--looks", type=int, help="calls of each command  [default: 30]")
    one.add_argument("--purged", type=int, help="tasks removed at the end  [default: 1000000]")
    one = command("crowd", crowd)
    one.add_argument("--dead", type=int, help="dead-lettered tasks  [default: 1000000]")
    one.add_argument("--waiting", type=int, help="tasks that are ready  [default: 1000000]")
    one = command("dag", dag)
    one.add_argument("--width", type=int, help="steps between submit and join  [default: 1000]")
    one.add_argument("--rounds", **rounds)
    one = command("inbox", inbox)
    one.add_argument("--files", type=int, help="dropped at once  [default: 10000]")
    one.add_argument("--singles", type=int, help="dropped one after the other  [default: 100]")
    one.add_argument("--rounds", type=int, help="[default: 3]")
    one = command("takeover", takeover)
    one.add_argument("--kills", type=int, help="owners that are killed  [default: 50]")
    one.add_argument("--stops", type=int, help="owners that are stopped  [default: 10]")
    one = command("idle", idle)
    one.add_argument("--seconds", type=float, help="how long to watch each phase  [default: 20]")
    one = command("cli", cli)
    one.add_argument("--times", type=int, help="starts of each command  [default: 30]")
    one = command("audit", audit)
    one.add_argument("--rows", type=int, help="rows of the log  [default: 10000000]")
    one.add_argument("--rounds", type=int, help="of the cost of a row  [default: 20]")
    one = command("peers", peers)
    one.add_argument("--tasks", type=int, help="our tasks a round  [default: 10000]")
    one.add_argument("--peer-tasks", type=int, help="Huey's tasks a round  [default: 1000]")
    one.add_argument("--rounds", **rounds)
    one = command("profile", profile)
    one.add_argument("--tasks", type=int, help="[default: 20000]")
    one.add_argument("--agent", choices=("echo", "process-echo"), default="echo", help="[default: echo]")
    command("all", everything)
    return parser


def main() -> int:
    """Print one JSON object: indented, or with ``all`` one a line."""
    options = _parser().parse_args()
    from bench.node import BenchError
    from bench.place import workspace

    try:
        with workspace(options.root) as folder:
            for result in options.measure(folder, options):
                print(json.dumps(result, indent=None if options.measure is everything else 2), flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
