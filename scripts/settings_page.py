#!/usr/bin/env python3
"""Write docs/settings.md from the table of settings (relaymesh/core/setting_table.py).

    scripts/settings_page.py           write the page
    scripts/settings_page.py --check   write nothing; the exit status is 1 when the page is not what would be written

Run it with the Python of .venv.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# What lies beside us wins over what may be installed.
sys.path[:0] = [str(REPO)]

from relaymesh.core.setting import Applies, Kind, Setting  # noqa: E402
from relaymesh.core.setting_table import table  # noqa: E402

PAGE = REPO / "docs" / "settings.md"

HEAD = """\
# Settings

<!-- Written by scripts/settings_page.py from relaymesh/core/setting_table.py; a test compares the two. -->

The settings of a root are in `relaymesh-settings.json` in the root (of a namespace: in its folder), one JSON object,
UTF-8 with or without a byte order mark. Every key is optional, and a missing file means all defaults.

```json
{
  "leaseTimeoutMs": 20000,
  "maxAttempts": 5
}
```

**Which value holds.** The file beats the default. The environment beats the file: the variable of a key holds for the
process that has it, and an empty one does not count. A value below its floor is raised to it without a word; a floor
may be the value of another key, and then defaults are raised too. `relaymesh settings show` prints what holds and
where it came from.

**What is refused.** An unknown key (the nearest known one is named), a key that stands there twice, a value of a
wrong type, a whole number that does not fit into 32 bits (int) or 64 bits (long). One fault refuses the whole file. A
command then fails with `bad_settings`, and names the file and the place. A variable with a wrong value fails with
`bad_settings_variable`.

**How to change one.** `relaymesh settings set KEY VALUE`, or an editor and `relaymesh reload-settings`, which says
what changed. `relaymesh settings schema` is the JSON Schema for the editor.

**When it holds.** A running node looks at the file and at `agents/retry-policies.json` every 10 s (`worker
--settings-reload-ms`), and takes all of both or nothing. If one of them is bad, the node keeps what it has, logs why,
writes an audit row `runtime.settings.load` with the result `error`, and raises the alert that `settings show` tells
of and `alerts/settings.json` holds; the next good load ends it. Keys marked "start" wait for the next start of a
node, which says so in its log. What nothing uses yet is taken all the same.

**A shorter or longer lease.** `leaseTimeoutMs` must be equal on all nodes of a root, but they notice a change at
different times. So a node believes in its leases by the shortest of the values of the last 30 s (three times the
reload period if that is more), and waits for those of others by the longest: a change never takes a step from a node
that lives.

**Secrets.** `gossipSharedSecret` is never printed, logged or audited; changes of it are told by its name only.
`settings set` takes it from the standard input only (an empty line clears it, no input at all is refused) and makes the
file readable by its owner only (mode 0600). A variable that holds it is not handed on to agents.

"""


def page() -> str:
    """Return the whole page."""
    lines = [
        HEAD,
        "## All keys\n\n",
        "| Key | Type | Default | Floor | Unit | Takes effect |\n|---|---|---|---|---|---|\n",
    ]
    lines += map(_row, table())
    lines.append(
        "\nKeys after `sloReplicationLagTargetMs` are not in the answer of `reload-settings`, but in `settings show`.\n"
    )
    lines.append("\n## What each does\n")
    lines += map(_paragraph, table())
    return "".join(lines)


def _row(setting: Setting) -> str:
    kind = " \\| ".join(f"`{word}`" for word in setting.choices) if setting.kind is Kind.CHOICE else setting.kind.value
    default = setting.default if not isinstance(setting.default, tuple) else list(setting.default)
    floor = "" if setting.floor is None else f"`{setting.floor}`"
    when = "at run time" if setting.applies is Applies.LIVE else "start"
    return f"| `{setting.name}` | {kind} | `{json.dumps(default)}` | {floor} | {setting.unit} | {when} |\n"


def _paragraph(setting: Setting) -> str:
    return f"\n**`{setting.name}`** (`{setting.variable}`). {setting.effect} {setting.bounds}\n"


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print((__doc__ or "").strip())
        return 2
    new = page()
    if check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == new
        print("docs/settings.md is up to date" if same else "docs/settings.md is stale: run scripts/settings_page.py")
        return 0 if same else 1
    with open(PAGE, "w", encoding="utf-8", newline="\n") as file:
        file.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
