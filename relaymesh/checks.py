"""What is wrong with a root beside its queue, found without writing: folders, keys, files of operators, lost records.

``health`` goes by the same questions and asks more, some of which write. A status is read every few seconds and goes by
these at a slower pace: each look opens a dozen small files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from relaymesh.core.plural import counted, verb
from relaymesh.errors import RelayMeshError, RootError
from relaymesh.status_view import StatusChecks

if TYPE_CHECKING:
    from relaymesh.settings import Settings
    from relaymesh.status_view import StatusOutcome

__all__ = ["Notes", "checks", "file_problems", "mesh_notes", "notes_of", "remembered_ms", "with_checks"]


@dataclass(frozen=True, slots=True)
class Notes:
    """What somebody should know and no restart mends. inbox_gate: the code of what keeps files there, or ""."""

    sentences: tuple[str, ...]
    inbox_files: int
    inbox_gate: str


def checks(root: Path, *, settings: Callable[[], Settings], now_ms: int) -> StatusChecks:
    """Look at a scoped root; does not raise for what it is there to find."""
    from relaymesh.store.health import key_problems, place_problems

    keep_ms, problems = 0, []
    try:
        keep_ms = remembered_ms(settings(), now_ms)
    except RootError as error:
        problems.append(str(error))
    problems += [*place_problems(root), *key_problems(root, now_ms=now_ms), *file_problems(root)]
    # Paused workers and the mesh are left out: a status looks for them each time.
    notes = notes_of(root, now_ms, newer_than_ms=max(0, now_ms - keep_ms), pauses=False)
    return StatusChecks(
        checked_at_ms=now_ms,
        problems=tuple(dict.fromkeys(problems)),
        notes=notes.sentences,
    )


def with_checks(status: StatusOutcome, found: StatusChecks | None) -> StatusOutcome:
    """Return the status with these in its own health, and how old they are."""
    if found is None:
        return status
    health = status.health
    problems = (*health.problems, *(one for one in found.problems if one not in health.problems))
    health = msgspec.structs.replace(
        health,
        ok=not problems,
        problems=problems,
        notes=(*health.notes, *found.notes),
        checks_age_ms=max(0, status.checked_at_ms - found.checked_at_ms),
    )
    return msgspec.structs.replace(status, health=health)


def remembered_ms(settings: Settings, now_ms: int) -> int:
    """Return for how long ended tasks are kept at least: a lost one of before is no news."""
    return min((age for age in (settings.done_retention_ms, settings.dead_retention_ms) if age), default=now_ms)


def file_problems(root: Path) -> list[str]:
    """Return why files that an operator wrote cannot be used."""
    from relaymesh.agents.agent_file import load_retry_file, load_script_file
    from relaymesh.auth.file import auth_problem

    problems = []
    for load in (load_script_file, load_retry_file):  # a broken one keeps submits out, and nodes from starting
        try:
            load(root)
        except RelayMeshError as error:
            problems.append(str(error))
    auth = auth_problem(root)
    return [*problems, *_exposed_settings(root), *([auth] if auth is not None else [])]


def _exposed_settings(root: Path) -> list[str]:
    """Say so when others can read the secret that is in the settings; a bad file has a sentence of its own."""
    from relaymesh.settings import SETTINGS_FILE, load

    with contextlib.suppress(RootError):
        if load(root).exposed:
            return [f"{SETTINGS_FILE} holds a secret and is open to others than its owner: set its mode to 600"]
    return []


def notes_of(root: Path, now_ms: int, *, newer_than_ms: int, pauses: bool) -> Notes:
    """Return that files wait for the admission gate, that commits were lost before (``newer_than_ms``: as for that),
    and, with ``pauses``, that workers are paused because of their own node.
    """
    from relaymesh.inbox_gate import files_waiting, why_shut
    from relaymesh.store.database import Database
    from relaymesh.store.lost_commit import lost_commits
    from relaymesh.store.paused import pauses as pauses_of

    files = sum(files_waiting(root).values())
    shut, lost, held = None, "", {}
    with contextlib.suppress(RelayMeshError):
        store = Database.open(root, now_ms=now_ms, create=False)
        try:
            with store.snapshot():
                lost = lost_commits(store.conn, root / "audit" / "audit.log", newer_than_ms=newer_than_ms)
                shut = why_shut(store.conn, root, now_ms=now_ms) if files else None
                held = pauses_of(store.conn, root / "run", now_ms=now_ms) if pauses else {}
        finally:
            store.close()
    waiting = f"{counted(files, 'file')} {verb(files, 'waits', 'wait')}"
    notes = (
        f"{waiting} in the inbox: {shut.sentence}" if shut is not None else "",
        lost,
        *(f"the worker of {node_id} is paused: {why}" for node_id, why in sorted(held.items())),
    )
    return Notes(tuple(note for note in notes if note), files, shut.code if shut is not None else "")


def mesh_notes(run: Path, *, now_ms: int) -> tuple[str, ...]:
    """Return what the nodes that live say about their mesh: why one is in none, or whom it does not find."""
    from relaymesh.store.node_report import read_reports

    return tuple(
        f"node {report.node_id}: {sentence}"
        for report in read_reports(run, now_ms=now_ms)
        if report.mesh is not None
        for sentence in (report.mesh.problem, "" if report.paused else report.mesh.pause, *report.mesh.notices)
        if sentence
    )
