"""What the operator writes under ``<root>/agents``: ``scripts.json`` and ``retry-policies.json``.

A file that is no JSON object is an error. An entry that is wrong is skipped and says why; the others count.

    scripts.json          {"agents": [{"id", "command": [...], "timeoutMs"}, {"id", "url", "headers": {...}}]}
    retry-policies.json   {"agents": [{"id", "maxAttempts", "baseBackoffMs", "maxBackoffMs"}]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from relaymesh.agents.spec import (
    DEFAULT_GRACE_MS,
    DEFAULT_TIMEOUT_MS,
    AgentSpec,
    HttpTarget,
    Isolation,
    Kind,
    ScriptTarget,
)
from relaymesh.core.json_object import RepeatedMemberError, members_once
from relaymesh.core.retry import RetryPolicy
from relaymesh.errors import AgentLoadError
from relaymesh.plain_file import open_plain

__all__ = ["RETRY_FILE", "SCRIPT_FILE", "TIMEOUT_MS_MIN", "AgentFile", "Skipped", "load_retry_file", "load_script_file"]

SCRIPT_FILE: Final = "agents/scripts.json"
RETRY_FILE: Final = "agents/retry-policies.json"
TIMEOUT_MS_MIN: Final = 1_000

_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_NUMBER_MAX: Final = 10**12  # milliseconds: 31 years, far below what the store can hold

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not taken: where it stands, the agent id if it has one, and why."""

    source: str
    agent_id: str | None
    reason: str


@dataclass(frozen=True)
class AgentFile(Generic[T]):
    """What one file brought, by agent id. loaded: entries taken, also those that a later one replaced."""

    path: Path
    entries: Mapping[str, T]
    loaded: int
    skipped: tuple[Skipped, ...]


def load_script_file(root: Path) -> AgentFile[AgentSpec]:
    """Read ``scripts.json``; a missing file brings nothing.

    Raises:
        AgentLoadError: the file cannot be read, or is no JSON object with an array ``agents``.
    """
    return _load(root / SCRIPT_FILE, lambda entry: _agent(entry, root))


def load_retry_file(root: Path) -> AgentFile[RetryPolicy]:
    """Read ``retry-policies.json``; a missing file brings nothing. Meant to be read again whenever settings are.

    Raises:
        AgentLoadError: as above.
    """
    return _load(root / RETRY_FILE, _policy)


class _Wrong(ValueError):
    """Why an entry is skipped; specs and policies raise ValueError too."""


def _load(path: Path, read: Callable[[dict[str, Any]], T]) -> AgentFile[T]:
    entries: dict[str, T] = {}
    skipped: list[Skipped] = []
    loaded = 0
    for number, entry in enumerate(_read_entries(path), 1):
        place = f"{path} entry {number}"
        agent_id = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(agent_id, str):
            skipped.append(Skipped(place, None, "it is no object with a text id"))
            continue
        try:
            _check_id(agent_id)
            entries[agent_id] = read(entry)
            loaded += 1
        except ValueError as wrong:
            skipped.append(Skipped(place, agent_id[:128], str(wrong)))
    return AgentFile(path, entries, loaded, tuple(skipped))


def _read_entries(path: Path) -> list[Any]:
    try:
        with open_plain(path) as file:
            data = file.read(_FILE_BYTES_MAX + 1)
        if len(data) > _FILE_BYTES_MAX:
            raise AgentLoadError(str(path), f"it has more than {_FILE_BYTES_MAX} bytes: that is no file of agents")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AgentLoadError(str(path), f"{error.strerror or error}: make it readable") from error
    except UnicodeDecodeError as error:
        raise AgentLoadError(str(path), f"it is not UTF-8 at byte {error.start}: save it as UTF-8") from error
    try:
        content = json.loads(text, object_pairs_hook=members_once)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise AgentLoadError(str(path), f"it is not valid JSON at {place} ({error.msg}): mend it there") from error
    except RepeatedMemberError as error:
        raise AgentLoadError(str(path), str(error)) from error
    except (RecursionError, ValueError) as error:
        raise AgentLoadError(str(path), "it is not valid JSON that can be read: make it flatter") from error
    if not isinstance(content, dict) or not isinstance(content.get("agents", []), list):
        raise AgentLoadError(str(path), 'it must be a JSON object with an array "agents"')
    agents: list[Any] = content.get("agents", [])
    return agents


def _agent(entry: dict[str, Any], root: Path) -> AgentSpec:
    if "url" in entry and "command" in entry:
        raise _Wrong("it has both a command and a url: give one of them")
    target = _http_target(entry) if "url" in entry else _script_target(entry, root)
    return AgentSpec(
        agent_id=entry["id"],
        kind=Kind.HTTP if isinstance(target, HttpTarget) else Kind.SCRIPT,
        # An HTTP call needs no process of its own, and its thread can be freed by cutting the connection.
        isolation=Isolation.THREAD if isinstance(target, HttpTarget) else Isolation.PROCESS,
        timeout_ms=max(TIMEOUT_MS_MIN, _number(entry, "timeoutMs", DEFAULT_TIMEOUT_MS)),
        grace_ms=_number(entry, "graceMs", DEFAULT_GRACE_MS),
        max_concurrency=_number(entry, "maxConcurrency", 1) if entry.get("maxConcurrency") is not None else None,
        recycle_after_steps=None,
        recycle_above_mib=None,
        source=SCRIPT_FILE,
        target=target,
    )


def _script_target(entry: dict[str, Any], root: Path) -> ScriptTarget:
    command = entry.get("command")
    if not isinstance(command, list) or not all(isinstance(token, str) for token in command):
        raise _Wrong("command must be an array of texts, or url an address")
    tokens = tuple(_resolved(token, root) for token in command if token.strip())
    if not tokens:
        raise _Wrong("command is empty")
    if any("\0" in token for token in tokens):
        raise _Wrong("command holds a zero byte")
    return ScriptTarget(tokens)


def _resolved(token: str, root: Path) -> str:
    """Return the token, or the path of the file or folder that it names below the data root."""
    path = root / token
    try:
        return str(path.absolute()) if path.exists() else token
    except (OSError, ValueError):
        return token  # not a name of a file at all


def _http_target(entry: dict[str, Any]) -> HttpTarget:
    from relaymesh.agents.http_rule import check_header, check_url

    url, headers = entry["url"], entry.get("headers", {})
    if not isinstance(url, str):
        raise _Wrong("url must be a text")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise _Wrong("headers must be an object of texts")
    problems = [check_url(url), *(check_header(name, value) for name, value in headers.items())]
    for problem in problems:
        if problem is not None:
            raise _Wrong(problem)
    return HttpTarget(url, tuple(headers.items()))


def _policy(entry: dict[str, Any]) -> RetryPolicy:
    names = ("maxAttempts", "baseBackoffMs", "maxBackoffMs")
    for name in names:
        if entry.get(name) is None:
            raise _Wrong(f"{name} is missing")
    return RetryPolicy(*(_number(entry, name, 0) for name in names))


def _number(entry: dict[str, Any], name: str, default: int) -> int:
    value = entry.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _NUMBER_MAX:
        raise _Wrong(f"{name} must be a whole number from 0 to {_NUMBER_MAX}")
    return value


def _check_id(agent_id: str) -> None:
    if not agent_id.strip():
        raise _Wrong("id is blank")
    if not agent_id.isprintable() or len(agent_id) > 128:
        raise _Wrong("id must have at most 128 printable characters")
