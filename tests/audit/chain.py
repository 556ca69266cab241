"""An independent verifier, written from docs/audit.md: it shares no code with the writer."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

MEMBERS = ["timestamp", "namespace", "action", "actor", "principal_id", "resource", "result", "trace_id", "span_id"]
MEMBERS += ["task_id", "step_id", "details", "prev_hash", "hash", "signature"]


def rows(root: Path) -> list[dict[str, object]]:
    """Return all rows of a root, oldest first; fail at the first that is not linked."""
    found: list[dict[str, object]] = []
    last = ""
    for line in lines(root):
        row = json.loads(line)
        assert list(row) == MEMBERS
        assert row["prev_hash"] == last, f"row {len(found) + 1} links to {row['prev_hash']!r}, not to {last!r}"
        hashed = {name: value for name, value in row.items() if name not in ("hash", "signature")}
        last = hashlib.sha256(json.dumps(hashed, separators=(",", ":")).encode()).hexdigest()
        assert row["hash"] == last, f"row {len(found) + 1} was changed"
        found.append(row)
    return found


def lines(root: Path) -> list[str]:
    """Return all lines of a root, oldest first, compressed or not."""
    folder = root / "audit" / "segments"
    numbers = sorted({path.name[:14] for path in folder.glob("audit-*.jsonl*")}) if folder.is_dir() else []
    found: list[str] = []
    for name in numbers:
        plain = folder / f"{name}.jsonl"
        data = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes())
        found += data.decode("ascii").splitlines()
    log = root / "audit" / "audit.log"
    return found + (log.read_text("ascii").splitlines() if log.exists() else [])
