#!/usr/bin/env python3
"""The figures of the mesh, measured in the simulator: the table of docs/performance.md.

    scripts/mesh_figures.py --budget 600                        what fits into ten minutes; the next call goes on
    scripts/mesh_figures.py --budget 600 --nodes 1000 --only crash --only heal
    scripts/mesh_figures.py --table                             what is known so far, as Markdown

Results are kept in a file (``--results``), one JSON object a line, and what is there is not run again. A line counts
only while the simulator behaves as when it was written: it carries the trace hash of a small run. Everything but CPU
time is decided by the seeds. Run it with the Python of .venv. The status is 1 when a figure misses its goal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# What lies beside us wins over what may be installed.
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from chaos.sim.goal import Job, Result, behaviour, jobs, rows, run_job  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    trace = behaviour()
    results = _read(options.results, trace)
    if not options.table:
        done = {result.job for result in results}
        wanted = [job for job in jobs() if job not in done and _asked(job, options)]
        with options.results.open("a", encoding="utf-8") as file:

            def keep(result: Result) -> None:
                results.append(result)
                found = {"behaviour": trace, **result.job._asdict(), "found": result.found, "cpuS": result.cpu_s}
                file.write(json.dumps(found) + "\n")
                file.flush()

            left = fill(wanted, results, options.budget, keep)
        print(f"{len(wanted) - left} runs, {left} left", file=sys.stderr)
    table = rows(results)
    print("\n".join(_markdown(table)))
    return 1 if any(row["met"] is False for row in table) else 0


def fill(
    wanted: list[Job],
    results: Iterable[Result],
    budget_s: float,
    keep: Callable[[Result], None],
    *,
    do: Callable[[Job], Any] = run_job,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Run jobs until the budget is used up; return how many are left.

    A job of a kind that ran before is not begun when it would not end in time.
    """
    until = now() + budget_s
    took: dict[tuple[str, int], float] = {}
    for result in results:
        kind = result.job.what, result.job.nodes
        took[kind] = max(took.get(kind, 0.0), result.cpu_s)
    left = 0
    for job in wanted:
        kind = job.what, job.nodes
        if now() + took.get(kind, 0.0) >= until:
            left += 1
            continue
        began, began_cpu = now(), time.process_time()
        found = do(job)
        spent = time.process_time() - began_cpu
        took[kind] = max(took.get(kind, 0.0), now() - began)
        keep(Result(job, found, round(spent, 3)))
    return left


def _read(path: Path, trace: str) -> list[Result]:
    if not path.exists():
        return []
    results = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # cut off in the middle
        if found["behaviour"] == trace:
            job = Job(found["what"], found["nodes"], found["seed"])
            results.append(Result(job, found["found"], found["cpuS"]))
    return results


def _asked(job: Job, options: argparse.Namespace) -> bool:
    return (not options.nodes or job.nodes in options.nodes) and (
        not options.only or job.what in options.only or job.what.partition("@")[0] in options.only
    )


def _markdown(table: Iterable[dict[str, Any]]) -> Iterable[str]:
    yield "| Figure | Nodes | Number | p50 | p99 | Goal | Seeds | Met |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in table:
        goal = " / ".join("" if bound is None else f"{bound:,}" for bound in row["goal"].values())
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        numbers = " | ".join("" if row[name] is None else f"{row[name]:,}" for name in ("p50", "p99"))
        seeds = f"{row['seeds']}" + (f", {row['unfinished']} unfinished" if row["unfinished"] else "")
        yield f"| {row['figure']} | {row['nodes']:,} | {row['number']} | {numbers} | {goal} | {seeds} | {met} |"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The figures of the mesh, measured in the simulator.")
    parser.add_argument("--budget", type=float, default=600, help="seconds after which nothing is begun, default 600")
    parser.add_argument("--results", type=Path, default=Path("mesh-figures.jsonl"), help="file of what is known")
    parser.add_argument("--nodes", type=int, action="append", help="only meshes of this size; may be given again")
    parser.add_argument("--only", action="append", help="idle, young, spread, join, crash, crash@10, heal, …")
    parser.add_argument("--table", action="store_true", help="print what is known, and run nothing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
