#!/usr/bin/env python3
"""Every check of the project on a fresh machine: sets up ``.venv``, then lint, types, import contracts, tests.

    scripts/test.py              everything, with the coverage limits
    scripts/test.py --fast       without the tests marked slow, and without coverage
    scripts/test.py ARGS...      only pytest, with these arguments (a path, -k NAME, ...)

All checks run even when an earlier one failed. "Everything" runs the tests of real processes beside all others. The
last lines printed are the closing lines of pytest; the exit status is 0 only when everything passed.
"""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile

import _bootstrap

CORE_COVERAGE_PERCENT = 90
OVERALL_COVERAGE_PERCENT = 80
# The tests that start and kill real processes: more than half of the time, most of it spent waiting. So two at a time.
# Whole clusters in a simulator go with them: the tests of the parts reach the same code, and to count it takes as long
# again.
APART = ("tests/integration", "tests/scripts", "tests/examples", "tests/demo", "tests/chaos")
TOGETHER = ("-n", "2", "--dist", "loadfile")


def main():
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    python = str(_bootstrap.prepare(extras=("test",)))
    os.chdir(str(_bootstrap.REPO))
    fast = "--fast" in arguments
    arguments = [argument for argument in arguments if argument != "--fast"]
    failed = [] if arguments else static_checks(python)
    if not arguments and not fast:
        below, runs = in_two(python)
        failed += below
    else:
        runs = [tests(python, [*(["-m", "not slow"] if fast else []), *arguments])]
    if any(status != 0 for status, _ in runs):
        failed.append("pytest")
    if failed:
        print("failed: " + ", ".join(failed), flush=True)
    for _, closing_line in runs:
        print(closing_line, flush=True)
    return 1 if failed else 0


def in_two(python):
    """Run the tests with real processes, which wait much, beside all others; what they print follows at the end.

    Returns the limits of coverage that were missed, and what the two runs came to.

    Coverage counts the others only: it slows code by half, and what an integration test alone reaches is not covered
    in the sense that somebody looks at what came of it. Nor does it count properties: see tests/conftest.py.
    """
    subprocess.run([python, "-m", "coverage", "erase"], check=True)
    with tempfile.TemporaryFile() as printed, concurrent.futures.ThreadPoolExecutor(1) as beside:
        apart = beside.submit(tests, python, [*APART, *TOGETHER, "-p", "no:cacheprovider"], out=printed)
        others = tests(python, ["--ignore=" + path for path in APART], measure=True)
        failed = coverage_limits(python)
        result = apart.result()
        heading("pytest " + " ".join(APART))
        printed.seek(0)
        shutil.copyfileobj(printed, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return failed, [result, others]


def static_checks(python):
    checks = {
        "ruff check": ["-m", "ruff", "check", "."],
        "ruff format": ["-m", "ruff", "format", "--check", "."],
        "mypy --strict": ["-m", "mypy"],
        "lint-imports": ["-c", "from importlinter.cli import lint_imports_command as run; run(['--no-logo'])"],
    }
    # What is only for other systems is read at least as types; beside the rest, as it takes as long as that.
    elsewhere = "mypy --strict, for Windows"
    types = [python, "-m", "mypy", "--platform", "win32", "--no-warn-unreachable", "--cache-dir", ".mypy_cache/win32"]
    with tempfile.TemporaryFile() as printed:
        windows = subprocess.Popen(types, stdout=printed, stderr=printed)
        failed = [name for name, command in checks.items() if not passes(name, [python, *command])]
        status = windows.wait()
        heading(elsewhere)
        printed.seek(0)
        shutil.copyfileobj(printed, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return failed if status == 0 else [*failed, elsewhere]


def tests(python, arguments, measure=False, out=None):
    """Run pytest, copying what it prints to ``out``; return its exit status and the last line it printed."""
    environment = dict(os.environ)
    command = [python, "-m", "pytest", *(["--color=yes"] if sys.stdout.isatty() else []), *arguments]
    if measure:
        command[1:3] = ["-m", "coverage", "run", "-m", "pytest"]
        if sys.version_info >= (3, 12):
            environment.setdefault("COVERAGE_CORE", "sysmon")  # several times cheaper than tracing
    if out is None:
        out = sys.stdout.buffer
        heading("pytest")
    tail = b""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        while True:
            piece = process.stdout.read1(65536)
            if not piece:
                break
            out.write(piece)
            out.flush()
            tail = (tail + piece)[-4096:]
    lines = tail.decode("utf-8", "replace").split("\n")
    return process.returncode, next(
        (line.rstrip() for line in reversed(lines) if line.strip()), "pytest printed nothing"
    )


def coverage_limits(python):
    coverage = [python, "-m", "coverage"]
    checks = {
        f"coverage of relaymesh/core, at least {CORE_COVERAGE_PERCENT} %": [
            "report",
            "--include=relaymesh/core/*",
            f"--fail-under={CORE_COVERAGE_PERCENT}",
        ],
        f"coverage, at least {OVERALL_COVERAGE_PERCENT} %": ["report", f"--fail-under={OVERALL_COVERAGE_PERCENT}"],
    }
    return [name for name, command in checks.items() if not passes(name, [*coverage, *command])]


def passes(name, command):
    heading(name)
    return subprocess.run(command).returncode == 0


def heading(name):
    print("\n== " + name, flush=True)


if __name__ == "__main__":
    sys.exit(main())
