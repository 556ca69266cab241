"""One row of the audit log, as bytes: a line of compact JSON whose members stand in a fixed order.

    {"timestamp":…,"namespace":…,"action":…,"actor":…,"principal_id":…,"resource":…,"result":…,"trace_id":…,"span_id":…,
     "task_id":…,"step_id":…,"details":{…},"prev_hash":"…","hash":"…","signature":"…"}

``hash`` is the SHA-256 of the line without ``hash`` and ``signature``; ``prev_hash`` is the ``hash`` of the line before
it, empty in the first. ``signature`` is empty but on sealed rows. Only ASCII: other characters are written as
``\\uXXXX``, so that what was hashed is what any JSON library writes again. docs/audit.md is for who writes a verifier.

A row is made in two steps, because the link is known only when its turn has come: the *body* is the text up to the
value of ``prev_hash``, and ``chain`` makes lines of bodies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

__all__ = ["LINE_BYTES_MAX", "Record", "body_of", "chain", "instant", "quoted"]

LINE_BYTES_MAX = 65_536
"""Details that would make a line longer are left out, and named."""
_TEXT_CHARS_MAX = 512

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode
quoted = json.encoder.encode_basestring_ascii
"""A text as a JSON text."""


@dataclass(frozen=True, slots=True)
class Record:
    """What happened, before it has a place in the chain.

    resource: ``task/<id>``, ``step/<id>``, ``node/<id>``, ``runtime/<area>``, or a route. result: a code.
    details: masked when they are written. at_ms: wall time; None is when it is written.
    """

    action: str
    actor: str
    resource: str
    result: str
    details: Mapping[str, object] = field(default_factory=dict)
    task_id: str | None = None
    step_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    principal_id: str | None = None
    at_ms: int | None = None


def body_of(record: Record, *, namespace: str, now_ms: int, masked: frozenset[str] = frozenset()) -> str:
    """Return the body of a record's row. masked: more names of fields that are secret (``mask.field_names``)."""
    text = "{}"
    if record.details:
        from relaymesh.core.mask import mask  # here, because a submit has no details that need it

        details = mask(record.details, masked)
        text = _encode(details)
        if len(text) > LINE_BYTES_MAX - 4096:
            text = _encode({"left_out": sorted(details)[:32], "characters": len(text)})
    return (
        f'{{"timestamp":"{instant(now_ms if record.at_ms is None else record.at_ms)}"'
        f',"namespace":{quoted(namespace)},"action":{_text(record.action)},"actor":{_text(record.actor)}'
        f',"principal_id":{_text(record.principal_id)},"resource":{_text(record.resource)}'
        f',"result":{_text(record.result)},"trace_id":{_text(record.trace_id)},"span_id":{_text(record.span_id)}'
        f',"task_id":{_text(record.task_id)},"step_id":{_text(record.step_id)},"details":{text},"prev_hash":"'
    )


def chain(bodies: Sequence[str], prev_hash: str, pieces: list[str]) -> str:
    """Append the line of each body to ``pieces``, unsealed, in parts; return the last hash."""
    last = prev_hash
    add = pieces.append
    for body in bodies:
        add(body)
        add(last)
        last = sha256(f'{body}{last}"}}'.encode()).hexdigest()
        add('","hash":"')
        add(last)
        add('","signature":""}\n')
    return last


@lru_cache(maxsize=64)
def instant(at_ms: int) -> str:
    """Return wall time as ISO-8601 in UTC, to the millisecond."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def _text(text: str | None) -> str:
    return "null" if text is None else quoted(text[:_TEXT_CHARS_MAX])
