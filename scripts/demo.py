#!/usr/bin/env python3
"""Run the demo on a fresh machine: sets up ``.venv``, then ``relaymesh demo``. Options are handed on."""

import os
import signal
import subprocess
import sys

import _bootstrap


def main():
    python = _bootstrap.prepare()
    command = [str(python), "-m", "relaymesh", "demo", *sys.argv[1:]]
    if sys.platform == "win32":
        # Ctrl-C reaches the child as well; it ends in its own way and we pass on how.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return subprocess.run(command).returncode
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
