"""Set-up shared by the scripts of this folder: a ``.venv`` in the repository, installed from setup.cfg once.

Runs on whatever Python starts the script, before anything is installed: the standard library only, and no syntax that
an older Python 3 cannot read, so that the message about a too old Python can be printed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
VENV = REPO / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STAMP = VENV / "relaymesh-setup.json"
LOG = VENV / "relaymesh-setup.log"

OLDEST = (3, 11)


def prepare(extras=()):
    """Create or update ``.venv``; return the path of its Python.

    Nothing is installed when setup.cfg, pyproject.toml and constraints.txt are the ones of the last time. Ends the
    program with one sentence when it cannot be done.
    """
    _require_python()
    wanted = {"inputs": _fingerprint(), "python": list(sys.version_info[:2])}
    installed = _read_stamp()
    have = set(installed.get("extras", ()))
    same = all(installed.get(key) == value for key, value in wanted.items())
    if same and have.issuperset(extras) and PYTHON.exists():
        return PYTHON
    if not _venv_works():
        _say("Making .venv")
        _run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "a virtual environment could not be made: install the venv module of your Python "
            "(on Debian and Ubuntu: apt install python3-venv) and try again",
        )
        have = set()
    every = sorted(have.union(extras))
    _say("Installing RelayMesh and what it needs into .venv (once; about a minute)")
    target = "." + (("[" + ",".join(every) + "]") if every else "")
    # Python compiles what is imported when it is: to compile all that is installed takes a quarter of the time.
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-compile"]
    _run(
        [*pip, "--editable", target, "--constraint", "constraints.txt"],
        "the packages could not be installed: see the lines above, check the network, and try again",
    )
    wanted["extras"] = every
    STAMP.write_text(json.dumps(wanted), encoding="utf-8")
    return PYTHON


def _require_python():
    if sys.version_info >= OLDEST:
        return
    found = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
    hint = "run it with " + found[0] if found else "install Python 3.11, 3.12 or 3.13 and run it with that"
    sys.exit(f"RelayMesh needs Python 3.11 or newer, this is {sys.version.split()[0]}: {hint}")


def _fingerprint():
    digest = hashlib.sha256()
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt"):
        digest.update((REPO / name).read_bytes())
    # An editable install points at this very folder.
    digest.update(str(REPO).encode("utf-8"))
    return digest.hexdigest()


def _read_stamp():
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _venv_works():
    """Whether ``.venv`` has a Python of our version that starts and has pip (a moved one leaves a dead link)."""
    if not PYTHON.exists():
        return False
    probe = f"import sys, pip; raise SystemExit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    try:
        done = subprocess.run([str(PYTHON), "-c", probe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def _run(command, otherwise):
    """Run quietly; when it fails show what it said, then ``otherwise``, and end."""
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONHOME", None)
    done = subprocess.run(
        command,
        cwd=str(REPO),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if VENV.is_dir():
        LOG.write_bytes(done.stdout)
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode("utf-8", "replace"))
        sys.exit(otherwise)


def _say(line):
    sys.stderr.write(line + " ...\n")
    sys.stderr.flush()
