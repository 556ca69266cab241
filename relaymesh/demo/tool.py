"""The script agents of the demo: which languages are there, and how they come under the data root.

A tool that is installed may still be too old or broken, so each is first tried on one line of text. At most
``TOOLS_MAX`` are taken, in the order of ``_CANDIDATES``; where none works, Python stands in as a script.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relaymesh.agents.agent_file import SCRIPT_FILE, load_script_file
from relaymesh.demo.words import statistics

__all__ = ["TOOLS_MAX", "Tool", "find_tools", "install"]

TOOLS_MAX = 2
_SCRIPTS = Path(__file__).parent / "scripts"
_SAMPLE = b"The clock has stopped,\nthe Clock must run.\n"
_TRY_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A language for script agents. command: without the script; script: the name of its file, or "" for none."""

    name: str
    command: tuple[str, ...]
    script: str

    @property
    def agent_id(self) -> str:
        """The agent that runs it."""
        return f"words-{self.name}"


_POWERSHELL = ("powershell", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File")
_CANDIDATES = (
    *((Tool("powershell", _POWERSHELL, "words.ps1"),) if sys.platform == "win32" else ()),
    Tool("awk", ("awk", "-f"), "words.awk"),
    Tool("perl", ("perl",), "words.pl"),
    Tool("node", ("node",), "words.js"),
)
_PYTHON = Tool("python-script", (sys.executable, "-m", "relaymesh.demo.words"), "")


def find_tools(candidates: Sequence[Tool] = _CANDIDATES) -> tuple[Tool, ...]:
    """Return the tools that work here, at least one."""
    found: list[Tool] = []
    for tool in candidates:
        if len(found) < TOOLS_MAX and _works(tool):
            found.append(tool)
    return tuple(found) or (_PYTHON,)


def install(tools: Sequence[Tool], root: Path) -> None:
    """Put the scripts under a scoped data root and name them in its ``scripts.json``; what else stands there stays.

    Raises:
        AgentLoadError: the ``scripts.json`` that is there cannot be read.
        OSError: the root cannot be written.
    """
    load_script_file(root)  # says what is wrong with it
    path = root / SCRIPT_FILE
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    names = {tool.agent_id for tool in tools}
    others = [
        agent for agent in document.get("agents", []) if not (isinstance(agent, dict) and agent.get("id") in names)
    ]
    ours = []
    for tool in tools:
        if tool.script:
            _write(path.parent / tool.script, (_SCRIPTS / tool.script).read_bytes())
        # Relative to the root, which may move.
        script = [f"agents/{tool.script}"] if tool.script else []
        ours.append({"id": tool.agent_id, "command": [*tool.command, *script], "timeoutMs": 30_000})
    _write(path, json.dumps({**document, "agents": [*others, *ours]}, indent=2).encode() + b"\n")


def _works(tool: Tool) -> bool:
    if shutil.which(tool.command[0]) is None:
        return False
    try:
        done = subprocess.run(
            [*tool.command, str(_SCRIPTS / tool.script)],
            input=_SAMPLE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TRY_WITHIN_S,
            env={**os.environ, "RELAYMESH_ATTEMPT": "7"},
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return bool(done.returncode == 0 and answer == statistics(_SAMPLE, tool=tool.name, attempt=7))


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step: a node may be reading it."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(data)
    os.replace(beside, path)
