"""What the scenario scripts share: an empty root, commands on it, checks, and one JSON summary at the end.

A script ends with status 1 at the first check that fails, 2 when it cannot begin. Set-up as with the other scripts: on
a fresh machine it makes ``.venv`` and starts itself anew there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def enter():
    """Make sure that this Python has RelayMesh: otherwise set ``.venv`` up and start the script there."""
    try:
        import relaymesh  # noqa: F401
    except ImportError:
        import _bootstrap

        command = [str(_bootstrap.prepare()), *sys.argv]
        sys.exit(subprocess.run(command).returncode)


class Scenario:
    """One script. ``options``: name to (default, type); each is given as ``--name`` or, as in PowerShell, ``-Name``."""

    def __init__(self, name, about, **options):
        self.name = name
        self.checks = []
        self.facts = {}
        parser = argparse.ArgumentParser(prog=name, description=about, allow_abbrev=False)
        parser.add_argument(
            "--root", "-Root", default=None, help="an empty folder; by default one that is removed again"
        )
        for option, (default, kind) in options.items():
            words = option.split("_")
            pascal = "".join(word.capitalize() for word in words)
            parser.add_argument(
                "--" + "-".join(words), "-" + pascal, dest=option, type=kind, default=default, help=f"default {default}"
            )
        self.options = parser.parse_args()
        self._temporary = self.options.root is None
        self.root = Path(self.options.root or tempfile.mkdtemp(prefix=f"{name}-")).absolute()
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            parser.error(f"{self.root} is not empty: name a folder that is")

    def command(self, *words, status=0):
        """Run a command on the root; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "relaymesh", "--root", str(self.root), *map(str, words)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        if done.returncode != status:
            self._end(False, f"relaymesh {words[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def document(self, *words, status=0):
        """Run a command on the root; return its answer."""
        return json.loads(self.command(*words, status=status))

    def seed(self, sql, *values):
        """Write to the tables directly, as an operator does."""
        import sqlite3

        conn = sqlite3.connect(self.root / "relaymesh.db", timeout=30)
        try:
            with conn:
                conn.execute(sql, values)
        finally:
            conn.close()

    def seed_node(self, node_id, status, at_ms):
        """Put a member into the table, or in the place of the one that is there."""
        self.seed(
            "INSERT OR REPLACE INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms,"
            " status_changed_at_ms) VALUES (?,?,?,?,?)",
            *(node_id, status, at_ms, at_ms, at_ms),
        )

    def look(self, sql, *values):
        """Return the first column of the first row, None for none."""
        import sqlite3

        conn = sqlite3.connect(self.root / "relaymesh.db", timeout=30)
        try:
            row = conn.execute(sql, values).fetchone()
        finally:
            conn.close()
        return row[0] if row is not None else None

    def audit_rows(self, action):
        """Return the records of an action, newest first."""
        return [json.loads(line) for line in self.command("audit-query", "--action", action).splitlines()]

    def settings(self, **values):
        """Write the settings file."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "relaymesh-settings.json").write_text(json.dumps(values), encoding="utf-8")

    def check(self, what, holds, found=None):
        """Note that something holds, or end."""
        self.checks.append({"check": what, "passed": bool(holds)})
        if not holds:
            self._end(False, f"{what}: found {found!r}")

    def passed(self, **facts):
        """End well."""
        self.facts.update(facts)
        self._end(True, "")

    def run(self, body):
        """Run the script's body; what it raises is a failure as well."""
        try:
            body(self)
        except Exception as error:
            self._end(False, f"{type(error).__name__}: {error}")
        self._end(False, "the script ended without a verdict")

    def _end(self, passed, message):
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)
        summary = {
            "script": self.name,
            "passed": passed,
            "message": message,
            "root": str(self.root),
            **self.facts,
            "checks": self.checks,
        }
        print(json.dumps(summary, indent=2), flush=True)
        os._exit(0 if passed else 1)  # also out of the clean-up of a body that failed
