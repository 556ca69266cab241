#!/usr/bin/env python3
"""Random faults on a simulated mesh of five nodes, seed after seed; what must hold is checked after each.

    scripts/sim_seeds.py --seeds 10000 --budget 3600         as many as fit into an hour; the next call goes on
    scripts/sim_seeds.py --from 4711 --seeds 1               one seed

Where the last call ended is kept in a file (``--progress``); it starts anew when the simulator behaves otherwise than
then. Every tenth seed encodes, authenticates and parses all packets, and bends some. The status is 1 when an invariant
was broken; the seed, the trace hash and the command that shows the shortest fault list are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

# What lies beside us wins over what may be installed.
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from chaos.sim.kernel import seeded  # noqa: E402
from chaos.sim.run import run  # noqa: E402
from chaos.sim.scenario import drawn  # noqa: E402

NODES = 5
CODEC_EACH = 10
BROKEN_KEPT = 100


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    behaviour = run(drawn(11, seeded(11, "faults"))).trace
    state = _resumed(options, behaviour)
    until = time.monotonic() + options.budget
    last = options.first + options.seeds
    while state["next"] < last and time.monotonic() < until:
        seed = state["next"]
        codec = seed % CODEC_EACH == 0
        result = run(drawn(seed, seeded(seed, "faults"), nodes=NODES, codec=codec))
        if result.broken and len(state["broken"]) < BROKEN_KEPT:
            first = result.broken[0]
            command = f"relaymesh chaos sim --random --seed {seed}" + (" --codec" if codec else "")
            found = {"seed": seed, "invariant": first.invariant, "what": first.what, "trace": result.trace}
            state["broken"].append({**found, "command": command})
            print(json.dumps(state["broken"][-1]), file=sys.stderr, flush=True)
        state["next"] = seed + 1
        if seed % 10 == 0 or state["next"] == last:
            _keep(options.progress, state)
    _keep(options.progress, state)
    ran = state["next"] - options.first
    print(json.dumps({"nodes": NODES, "from": options.first, "ran": ran, "left": last - state["next"], **state}))
    return 1 if state["broken"] else 0


def _resumed(options: argparse.Namespace, behaviour: str) -> dict[str, Any]:
    state = {"behaviour": behaviour, "next": options.first, "broken": []}
    try:
        kept = json.loads(options.progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return state
    same = kept["behaviour"] == behaviour and options.first <= kept["next"] <= options.first + options.seeds
    return kept if same else state


def _keep(path: Path, state: dict[str, Any]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(state) + "\n", encoding="utf-8")
    beside.replace(path)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Random faults on a simulated mesh, seed after seed.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many, default 10000")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed, default 1")
    parser.add_argument("--budget", type=float, default=600, help="seconds after which none is begun, default 600")
    parser.add_argument("--progress", type=Path, default=Path("sim-seeds.json"), help="file of how far it came")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
