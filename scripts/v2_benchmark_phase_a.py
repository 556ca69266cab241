#!/usr/bin/env python3
"""The built-in benchmark on default settings: everything that is submitted completes in time."""

import json
from pathlib import Path

import _scenario


def body(scenario):
    options = scenario.options
    out = Path(options.out).absolute() if options.out else scenario.root / "reports" / "benchmark-phase-a.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    result = scenario.document(
        "benchmark-run",
        *("--tasks", options.tasks, "--agent", "echo", "--priority", "normal", "--poll-batch", 64),
        *("--input-size", options.input_size, "--max-seconds", options.max_seconds, "--report-out", out),
    )
    scenario.check("it did not time out", result["timedOut"] is False, result["timedOut"])
    scenario.check("all tasks were submitted", result["submittedTasks"] == options.tasks, result["submittedTasks"])
    scenario.check("all tasks completed", result["completedTasks"] == options.tasks, result["completedTasks"])
    scenario.check("it has a throughput", result["throughputTasksPerSec"] > 0, result["throughputTasksPerSec"])
    scenario.check("the report was written", out.is_file() and json.loads(out.read_text("utf-8")) == result, str(out))
    scenario.passed(
        tasks=options.tasks,
        throughputTasksPerSec=result["throughputTasksPerSec"],
        latencyP95Ms=result["latencyP95Ms"],
        report=str(out),
    )


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario(
        "v2_benchmark_phase_a",
        __doc__,
        tasks=(2000, int),
        input_size=(64, int),
        max_seconds=(180, int),
        out=(None, str),
    ).run(body)
