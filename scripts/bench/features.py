"""features: what everything that a node does beside its work costs the work.

    bare          no audit row is made or written, nothing is counted for metrics, retention does not run
    everything    audit, metrics that another process asks for each second, retention, and limits and rates on the
                  root, the agent and each key, far above what one node reaches

Each round runs both, each on a new database, in an order that turns; ratios are taken round by round. A node cannot be
run bare by any setting: this program takes the parts out.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from actors.audit_rows import AuditRowsOf
from actors.measure import Measures
from bench.figure import budget, paired_ratio, spread
from bench.limits import set_limits
from bench.place import environment, python
from bench.setting import settings
from bench.throughput import Load, Round, measure_node
from relaymesh.client import Client

__all__ = ["run"]

RATIO_MIN = 0.9
SCRAPE_S = 1.0
_SCRAPE = """
import sys, time, urllib.request
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=10).read()
    except OSError:
        pass
    time.sleep(float(sys.argv[2]))
"""


def run(folder: Path, *, tasks: int, rounds: int, durability: str) -> dict[str, Any]:
    """Return the figures of so many rounds."""
    load = Load(tasks, durability=durability)
    measures: dict[str, Callable[[], Round]] = {
        "bare": lambda: _bare(folder, load),
        "everything": lambda: _with_everything(folder, load),
    }
    taken: dict[str, list[Round]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in sorted(measures, reverse=bool(number % 2)):
            taken[name].append(measures[name]())
    rates = {name: [one.tasks_per_s for one in its] for name, its in taken.items()}
    ratio = paired_ratio(rates["everything"], rates["bare"])
    return {
        "benchmark": "features",
        "tasks_per_s": {name: spread(its) for name, its in rates.items()},
        "ratio": ratio,
        "node_cpu_ms_per_task": {name: spread([one.cpu_ms(one.cpu_s) for one in its]) for name, its in taken.items()},
        "budget": budget("tasks/s with everything against bare", ratio["median"], "at_least", RATIO_MIN),
        "settings": settings(
            folder,
            durability,
            tasks=tasks,
            rounds=rounds,
            batch=load.batch,
            batches_in_flight=load.in_flight,
            scraped_every_s=SCRAPE_S,
        ),
    }


def _bare(folder: Path, load: Load) -> Round:
    def without_desk(self: AuditRowsOf, desk: object, *rest: Any) -> None:
        make(self, None, *rest)

    make = AuditRowsOf.__init__
    with (
        patch.object(AuditRowsOf, "__init__", without_desk),
        patch.object(Measures, "committed", lambda *_: None),
    ):
        return measure_node(folder, load, _without_retention)


def _without_retention(root: Path) -> None:
    with Client(root) as client:
        client.set_setting("retentionIntervalMs", "0")


def _with_everything(folder: Path, load: Load) -> Round:
    with contextlib.ExitStack() as scraping:

        def prepare(root: Path) -> None:
            set_limits(root)
            scraping.enter_context(_scraped(root))

        return measure_node(folder, load, prepare)


@contextlib.contextmanager
def _scraped(root: Path) -> Iterator[None]:
    """Serve the metrics of a root, and ask for them once a second, from two other processes."""
    with Client(root) as client:
        client.init()
    serve = python("-m", "relaymesh", "--root", str(root), "serve-metrics", "--port", "0")
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment())
    reader: subprocess.Popen[bytes] | None = None
    try:
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        reader = subprocess.Popen(python("-c", _SCRAPE, url.rstrip(".,;"), str(SCRAPE_S)))
        yield
    finally:
        for process in (reader, server):
            if process is not None:
                process.kill()
                process.wait()
        if server.stdout is not None:
            server.stdout.close()
