"""What a figure was taken at: without it, no figure can be compared with another."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from bench.figure import quantiles
from bench.place import new_root
from bench.raw import connect

__all__ = ["settings"]

_COMMITS = 40


def settings(folder: Path, durability: str, **sizes: object) -> dict[str, Any]:
    """Return machine, versions, durability and the sizes of this run; takes about as long as 40 commits."""
    return {
        "durability": durability,
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "file_system": _file_system(folder),
        # A commit of one small row: the price of one sync of this disk, at this durability.
        "commit": quantiles(_commits(new_root(folder, durability) / "commit.db", durability)),
        "load_average_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **sizes,
    }


def _file_system(folder: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


def _commits(path: Path, durability: str) -> list[int]:
    conn = connect(path, durability)
    conn.execute("CREATE TABLE probe(id INTEGER PRIMARY KEY, value TEXT)")
    samples = []
    for number in range(_COMMITS):
        started = time.perf_counter_ns()
        conn.execute("INSERT INTO probe(value) VALUES (?)", (f"value {number}",))
        samples.append(time.perf_counter_ns() - started)
    conn.close()
    return samples
