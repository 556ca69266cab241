#!/usr/bin/env python3
"""The robustness tests in their long form: kill, hammer and crash for hours instead of seconds.

    scripts/soak.py kill --cycles 10000         kill -9 of nodes, workers and clients over a running load
    scripts/soak.py kill --budget-seconds 3600  the same, for so long
    scripts/soak.py hammer --budget-seconds 60  eight processes on one root at full speed
    scripts/soak.py limits --budget-seconds 60  eight nodes under limits and rates that must never be exceeded
    scripts/soak.py crash --budget-seconds 600  actors crash at random under load

Prints one JSON object with the figures; the exit status is 1 when anything was lost, repeated or stuck. ``--seed``
chooses the order of victims, ``--keep`` keeps the data root. A long kill run is cut into rounds, each on a root of its
own, and everything is checked at the end of each round. Run it with the Python of .venv.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

REPO = Path(__file__).resolve().parents[1]
# What lies beside us wins over what may be installed.
sys.path[:0] = [str(REPO)]

from tests.integration.harness import Site, history, read_acknowledged  # noqa: E402
from tests.integration.limit_storm import LimitStorm  # noqa: E402
from tests.integration.storm import Storm, check_joins  # noqa: E402

ROUND_CYCLES = 500
CYCLE_S = 0.4
CRASH_EVERY_S = 8.0
HAMMERS = 8

Figures = dict[str, Any]


def main() -> int:
    options = _options()
    began = time.monotonic()
    until = began + options.budget_seconds if options.budget_seconds else None
    soak = {"kill": _kill, "hammer": _hammer, "limits": _limits, "crash": _crash}[options.what]
    figures: Figures = {"what": options.what, "seed": options.seed, "ok": False}
    try:
        soak(options, until, figures)
        figures["ok"] = True
    except AssertionError as error:
        figures["error"] = str(error)[:4000]
    figures["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kill", "hammer", "limits", "crash"))
    parser.add_argument("--cycles", type=int, default=0, help="kills in all; 10000 when no budget is given")
    parser.add_argument("--budget-seconds", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the data roots where they are")
    options = parser.parse_args()
    if not options.cycles and not options.budget_seconds:
        options.cycles, options.budget_seconds = (10_000, 0) if options.what == "kill" else (0, 60)
    return options


class _Place:
    """A data root for one round; removed when all was well."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relaymesh-soak-"))
        self.site = Site(self.folder / "site", settings={"leaseTimeoutMs": 2_000})
        self._keep = options.keep

    def __enter__(self) -> Site:
        return self.site

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.site.close()
        if kind is None and not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"kept: {self.folder}", file=sys.stderr)


def _kill(options: argparse.Namespace, until: float | None, figures: Figures) -> None:
    left = options.cycles or 1 << 60
    killed: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    rounds = 0
    while left > 0 and (until is None or time.monotonic() < until):
        cycles = min(left, ROUND_CYCLES)
        if until is not None:
            cycles = max(1, min(cycles, int((until - time.monotonic()) / CYCLE_S)))
        with _Place(options) as site:
            storm = Storm(site, options.seed + rounds, pause_s=(0.15, 0.5))
            outcomes += storm.run(cycles)
            killed += storm.killed
        left -= cycles
        rounds += 1
        figures.update(rounds=rounds, cycles=sum(killed.values()), killed=dict(killed), tasks=dict(outcomes))
        print(f"round {rounds}: {dict(killed)} killed, {dict(outcomes)}", file=sys.stderr, flush=True)


def _hammer(options: argparse.Namespace, until: float | None, figures: Figures) -> None:
    assert until is not None, "hammer takes --budget-seconds"
    seconds = max(1.0, until - time.monotonic())
    program = [sys.executable, "-m", "tests.integration.hammer"]
    with _Place(options) as site:
        files = [site.folder / f"acknowledged.{n}" for n in range(HAMMERS)]
        nodes = [
            site.node(f"n{n}", command=[*program, str(site.root), f"n{n}", str(seconds), str(file)], measured=False)
            for n, file in enumerate(files)
        ]
        statuses = [node.wait(seconds + 300) for node in nodes]
        logs = "\n".join(node.log for node in nodes)
        assert statuses == [0] * len(nodes), logs[-4000:]
        assert "locked" not in logs and "busy" not in logs, logs[-4000:]
        ids = read_acknowledged(files)
        figures.update(tasks=dict(history(site, ids)), acknowledged=len(ids))


def _limits(options: argparse.Namespace, until: float | None, figures: Figures) -> None:
    assert until is not None, "limits takes --budget-seconds"
    with _Place(options) as site:
        storm = LimitStorm(site)
        storm.submit(600)
        storm.start()
        storm.run(max(1.0, until - time.monotonic()))
        figures.update(storm.check())


def _crash(options: argparse.Namespace, until: float | None, figures: Figures) -> None:
    from actors.system import build
    from relaymesh.node import NodeOptions
    from tests.integration.test_crash import ACTORS, Load

    assert until is not None, "crash takes --budget-seconds"
    rng, crashes = random.Random(options.seed), 0
    with _Place(options) as site:
        os.environ.update(site.environment)
        node = build(NodeOptions(root=site.root, node_id="a", concurrency=2, threads=4, agents=(str(site.agents),)))
        try:
            load = Load(site)
            while time.monotonic() < until:
                # Slower than the restart intensity bears: more often, and the node would rightly end.
                time.sleep(rng.uniform(0.5, 1.5) * CRASH_EVERY_S)
                assert node.tree.crash(rng.choice(ACTORS))
                crashes += 1
                assert node.wait(0) is None, "the node ended"
            acknowledged = load.stop()
            site.wait_done(120)
            figures.update(crashes=crashes, tasks=dict(history(site, acknowledged)))
            check_joins(site)
        finally:
            node.stop(0)


if __name__ == "__main__":
    sys.exit(main())
