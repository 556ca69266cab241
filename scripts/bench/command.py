"""cli: how long a command takes from a cold start, against a Python that does nothing.

Cold means a new process; the files are in the page cache and compiled. The commands take turns.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.agent import ECHO
from bench.figure import budget, paired_ratio, quantiles, rounded
from bench.node import BenchError, node_inside
from bench.place import REPO, environment, new_root, python
from bench.setting import settings
from relaymesh.client import Client

__all__ = ["run"]

HELP_RATIO_MAX = 6.0
TASK_RATIO_MAX = 10.0
BARE = "python -c pass"


def run(folder: Path, *, times: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of so many starts of each command.

    Raises:
        BenchError: a command failed.
    """
    root = new_root(folder, durability)
    with node_inside(root), Client(root) as client:
        task_id = client.submit(ECHO, "hello").task_id
        client.wait(task_id, timeout_ms=30_000)
    commands = {
        BARE: python("-c", "pass"),
        "python -m relaymesh --help": python("-m", "relaymesh", "--help"),
        "python -m relaymesh task ID": python("-m", "relaymesh", "--root", str(root), "task", task_id),
    }
    script = _console_script()
    if script is not None:
        commands["relaymesh --help"] = [str(script), "--help"]
        commands["relaymesh task ID"] = [str(script), "--root", str(root), "task", task_id]
    # Nothing on the path that a user's shell would not have, as long as the package is found without it.
    environ = dict(os.environ) if _importable(folder) else environment()
    samples: dict[str, list[int]] = {name: [] for name in commands}
    for number in range(-1, times):
        for name, command in commands.items():
            took = _start(command, environ, folder)
            if number >= 0:  # the first round compiles and fills the caches
                samples[name].append(took)
    ratios = {
        name: rounded(statistics.median(taken) / statistics.median(samples[BARE]))
        for name, taken in samples.items()
        if name != BARE
    }
    return {
        "benchmark": "cli",
        "commands": {name: quantiles(taken) for name, taken in samples.items()},
        "ratio_of_medians": ratios,
        "paired_ratio": {name: paired_ratio(taken, samples[BARE]) for name, taken in samples.items() if name != BARE},
        "budget": [
            budget(f"{name}, over {BARE}", ratio, "at_most", HELP_RATIO_MAX if "--help" in name else TASK_RATIO_MAX)
            for name, ratio in ratios.items()
        ],
        "settings": settings(
            folder,
            durability,
            times=times,
            console_script=None if script is None else "the one beside this Python",
            path_set_by_us=environ.get("PYTHONPATH") != os.environ.get("PYTHONPATH"),
        ),
    }


def _start(command: list[str], environ: dict[str, str], folder: Path) -> int:
    began = time.perf_counter_ns()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ, cwd=folder)
    took = time.perf_counter_ns() - began
    if done.returncode:
        raise BenchError(f"{' '.join(command[-2:])} failed: {done.stderr.decode(errors='replace').strip()}")
    return took


def _console_script() -> Path | None:
    """Return the command that an installation has put beside this Python, when it is of this checkout."""
    name = "relaymesh.exe" if sys.platform == "win32" else "relaymesh"
    script = Path(sys.executable).with_name(name)
    found = importlib.util.find_spec("relaymesh")
    ours = found is not None and found.origin is not None and Path(found.origin).is_relative_to(REPO)
    return script if script.exists() and ours else None


def _importable(folder: Path) -> bool:
    """Whether a plain Python elsewhere imports this checkout's package."""
    code = "import relaymesh; print(relaymesh.__file__)"
    done = subprocess.run(python("-c", code), capture_output=True, text=True, cwd=folder)
    return done.returncode == 0 and Path(done.stdout.strip()).is_relative_to(REPO)
